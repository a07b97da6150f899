"""The surrogate that ships with the package."""

from __future__ import annotations

import numpy as np
import pytest

from usermirror_gym.checkpoints import shipped_folder
from usermirror_gym.data import TimeSplit, load_dataset, time_cut
from usermirror_gym.files import read_json
from usermirror_gym.scenes import ScenePlan, build_scenes
from usermirror_gym.simulators import (
    DEFAULT_SIMULATOR,
    SurrogateSimulator,
    available_simulators,
    make_simulator,
)
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
