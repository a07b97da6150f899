"""The surrogates that ship with the package."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from usermirror_gym.checkpoints import shipped_folder
from usermirror_gym.data import TimeSplit, load_dataset, time_cut
from usermirror_gym.envs import SlateVectorEnv, make_world
from usermirror_gym.files import read_json
from usermirror_gym.scenes import Scene, ScenePlan, build_scenes
from usermirror_gym.simulators import (
    DEFAULT_SIMULATOR,
    SurrogateSimulator,
    UserSimulator,
    available_simulators,
    make_simulator,
)
from usermirror_gym.simulators.base import ChoiceBatch, Wrapping
from usermirror_gym.train.surrogate.config import SurrogateConfig, read_surrogate_config
from usermirror_gym.train.surrogate.report import Agreement, summary


@pytest.fixture(scope="module")
def ml100k() -> TimeSplit:
    return time_cut(load_dataset())


@pytest.fixture(scope="module")
def surrogate(ml100k: TimeSplit) -> SurrogateSimulator:
    made = make_simulator("surrogate", ml100k)
    assert isinstance(made, SurrogateSimulator)
    return made


@pytest.fixture(scope="module")
def of_session(ml100k: TimeSplit) -> SurrogateSimulator:
    made = make_simulator("smollm2-session-surrogate", ml100k)
    assert isinstance(made, SurrogateSimulator)
    return made


def test_it_is_small_and_says_where_it_comes_from() -> None:
    folder = shipped_folder("surrogate")
    assert folder is not None
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1e6
    card = (folder / "README.md").read_text()
    for words in ("apache-2.0", DEFAULT_SIMULATOR, "no redistribution", "mistakes included"):
        assert words in card, words
    assert {"surrogate", "smollm2-ml100k-surrogate"} <= set(available_simulators())


def test_it_is_what_its_recipe_makes() -> None:
    folder = shipped_folder("surrogate")
    assert folder is not None
    facts = read_json(folder / "distillation.json")
    assert SurrogateConfig(**facts["recipe"]) == read_surrogate_config("smollm2-ml100k")
    for role in ("new lists", "new users"):
        assert facts["report"][role]["all"]["kl"]["high"] < 0.05 * facts["constant"][role]["kl"]
        assert facts["report"][role]["all"]["agreement"]["low"] > 0.85


def test_that_of_whole_histories_is_what_its_recipe_makes() -> None:
    folder = shipped_folder("smollm2-session-surrogate")
    assert folder is not None
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2e6
    facts = read_json(folder / "distillation.json")
    assert SurrogateConfig(**facts["recipe"]) == read_surrogate_config("smollm2-session")
    for role in ("new lists", "new users"):
        for own in facts["report"][role].values():
            assert own["kl"]["high"] < 1e-6
            assert own["agreement"]["mean"] > 0.999
    card = (folder / "README.md").read_text()
    for words in ("apache-2.0", "smollm2-session", "no redistribution", "the teacher's own"):
        assert words in card, words


def test_the_shipped_name_and_answers_of_before_stay(surrogate: SurrogateSimulator) -> None:
    """What a network may read besides was added later: runs that name this one go on."""
    assert surrogate.name.endswith("net@ff96a421)")
    assert surrogate.history_lines == 0


def test_whole_histories_are_answered_as_by_the_teacher(
    of_session: SurrogateSimulator, ml100k: TimeSplit
) -> None:
    """On scenes after T0 with real targets, near and far."""
    scenes = build_scenes(ml100k, ScenePlan(count=300))
    teacher = make_simulator("smollm2-session", ml100k)
    found = Agreement.of(teacher.choose(scenes).probs, of_session.choose(scenes).probs)
    assert found.kl.max() < 1e-5
    assert found.same.mean() > 0.99


class _Compared(Wrapping):
    """Answers as the surrogate, and asks the teacher too."""

    def __init__(self, inner: SurrogateSimulator, teacher: UserSimulator) -> None:
        self.inner, self.teacher, self.name = inner, teacher, "compared"
        self.kl: list[float] = []

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        answer = self.inner.choose(scenes)
        self.kl += Agreement.of(self.teacher.choose(scenes).probs, answer.probs).kl.tolist()
        return answer


def test_sessions_are_answered_as_by_the_teacher(
    of_session: SurrogateSimulator, ml100k: TimeSplit
) -> None:
    """Where nothing is read again, and half of the lists show what was taken before."""
    compared = _Compared(of_session, make_simulator("smollm2-session", ml100k))
    world = make_world(ml100k, simulator=compared)
    env = SlateVectorEnv(60, world, slate_size=5, session="stay", max_episode_steps=None)
    seen, _ = env.reset(seed=0)
    rng = np.random.default_rng(1)
    for _ in range(6):
        slates = np.stack([rng.permutation(ml100k.dataset.n_items)[:5] + 1 for _ in range(60)])
        newest = seen["history_items"][np.arange(60), seen["history_length"] - 1]
        slates[::2, 0] = np.where((slates == newest[:, None]).any(axis=1), slates[:, 0], newest)[
            ::2
        ]
        seen, *_ = env.step(slates)
    assert len(compared.kl) == 360
    assert max(compared.kl) < 1e-5


def test_it_answers_for_every_user(surrogate: SurrogateSimulator, ml100k: TimeSplit) -> None:
    scenes = build_scenes(ml100k, ScenePlan(count=200))
    probs = surrogate.choose(scenes).probs
    np.testing.assert_allclose(probs.sum(axis=1), 1.0, atol=1e-9)
    assert 0.02 < probs[:, -1].mean() < 0.3


@pytest.mark.slow
def test_it_agrees_with_its_teacher_on_scenes_of_another_kind(
    surrogate: SurrogateSimulator, ml100k: TimeSplit
) -> None:
    """Scenes after T0 with real targets: none of them is of the sessions that were learned from."""
    scenes = build_scenes(ml100k, ScenePlan(count=400))
    teacher = make_simulator(DEFAULT_SIMULATOR, ml100k).choose(scenes).probs
    found = Agreement.of(teacher, surrogate.choose(scenes).probs)
    assert found.kl.mean() < 0.05
    assert found.same.mean() > 0.8
    users = np.array([scene.user_id for scene in scenes])
    assert summary(found, users, 0, 10)["spearman"] > 0.95
