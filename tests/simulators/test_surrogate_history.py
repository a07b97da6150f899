"""A surrogate that reads whole histories: it begins as its teacher, and stays as quick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from usermirror_gym.data import TimeSplit
from usermirror_gym.envs import SlateVectorEnv, make_world
from usermirror_gym.errors import ConfigError
from usermirror_gym.files import read_json
from usermirror_gym.progress import Display
from usermirror_gym.scenes import PromptBuilder, PromptConfig, Scene, SceneBatch, domain_text
from usermirror_gym.scenes.scene import Turn
from usermirror_gym.simulators import (
    RecordingSimulator,
    SessionSimulator,
    SessionWeights,
    SurrogateSimulator,
)
from usermirror_gym.simulators.affinity.affinity_head import LineMemory
from usermirror_gym.simulators.session.session_head import Follow, SessionHead
from usermirror_gym.simulators.session.session_net import SessionNet, SessionShape
from usermirror_gym.simulators.surrogate.profile_codes import profile_features
from usermirror_gym.simulators.surrogate.start import start_as
from usermirror_gym.simulators.surrogate.surrogate import read_surrogate, write_surrogate
from usermirror_gym.train.surrogate.answers import (
    Answers,
    ask,
    past_of,
    read_answers,
    write_answers,
)
from usermirror_gym.train.surrogate.config import NetworkSettings, read_surrogate_config
from usermirror_gym.train.surrogate.distil import distill, new_student

DAY = 86_400
NETWORK = NetworkSettings(dim=6, tastes=2, lines=4, hidden=0, history=1000, follow=4, once=True)
WEIGHTS = SessionWeights(
    0.8, (0.5, 0.9, 0.3, -0.2, 0.1, 0.2, -0.1), (0.3, -0.2, 0.4, 0.2, 0.1, -0.3, 0.2, 0.1),
    -0.4, 0.6, 0.8,
)  # fmt: skip


def scene(user: int, history: tuple[int, ...], slate: tuple[int, ...], *turns: Turn) -> Scene:
    n = len(history)
    ages = tuple(DAY * (n - place) ** 2 // 4 + 5 for place in range(n))
    ratings = tuple(1.0 + (item * 7) % 5 for item in history)
    return Scene(user, history, ratings, ages, slate, turns)


SCENES = [
    scene(1, (1, 2, 3), (4, 5, 6, 7)),
    scene(2, (), (9, 4), Turn((1, 2, 3), 0), Turn((4, 5, 6), 5)),
    scene(3, tuple(range(10, 40)), (11, 12, 50, 51, 52, 53), Turn((50, 51), 0)),
    scene(1, (1, 2, 3), (3, 5, 9, 7), Turn((8, 9), 9), Turn((4, 20), 20)),
    scene(2, (), (9, 4)),
    replace(scene(4, (8, 9), (3, 5, 9)), ages=(50, 20), ratings=(np.nan, 3.0)),
]


@pytest.fixture(scope="module")
def teacher(split: TimeSplit) -> SessionSimulator:
    """Knows all films; every number of it counts."""
    builder = PromptBuilder(domain_text(split.dataset), PromptConfig(form="session"))
    n, rng = split.dataset.n_items, np.random.default_rng(3)
    features = profile_features(split.dataset.users)
    net = SessionNet(SessionShape(6, 2, 1000, sum(f.size for f in features)))
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, values in net.named_parameters():
            if name not in ("again", "shown"):
                values += 0.3 * torch.randn(values.shape, generator=draw)

    def table(width: int) -> np.ndarray:
        return (0.2 * rng.normal(size=(n, width))).astype(np.float32)

    lines = builder.item_lines(tuple(range(1, n + 1))).options
    known = LineMemory.of(lines, table(6), table(6), table(1)[:, 0])
    size = len(known.digests)
    follow = Follow(3 * table(4)[:size], table(4)[:size], np.float32([0.3, 0.1, -0.2]), 0.5)
    return SessionSimulator(
        SessionHead(net.eval(), known, None, features, follow), WEIGHTS, split, builder
    )


Student = Callable[..., SurrogateSimulator]


@pytest.fixture(scope="module")
def student(split: TimeSplit, teacher: SessionSimulator) -> SurrogateSimulator:
    made = new_student(split, NETWORK, teacher="t")
    assert start_as(made, teacher)
    return made


def test_it_begins_as_its_teacher(student: SurrogateSimulator, teacher: SessionSimulator) -> None:
    found = student.choose(SCENES).probs
    np.testing.assert_allclose(found, teacher.choose(SCENES).probs, atol=2e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-9)


def test_what_was_taken_before_is_not_taken_again_whatever_was_learned(
    split: TimeSplit, teacher: SessionSimulator
) -> None:
    assert teacher.takes_once
    untaught = new_student(split, NETWORK, teacher="t", seed=5)
    probs = untaught.choose(SCENES).probs
    assert probs[2, :2].max() < 1e-20  # of the history
    assert probs[3, [0, 2]].max() < 1e-20  # of the history, and of the session
    free = new_student(split, NETWORK.model_copy(update={"once": False}), teacher="t", seed=5)
    assert free.choose(SCENES).probs[2, :2].min() > 1e-3


def test_a_row_does_not_depend_on_the_others(student: SurrogateSimulator) -> None:
    many = SCENES * 7
    together = student.choose(many).probs
    for row, own in enumerate(SCENES):
        alone = student.choose([own]).probs[0]
        k = len(own.slate)
        for at in (row, row + 6 * len(SCENES)):
            assert together[at, :k].tolist() == alone[:k].tolist()
            assert together[at, -1] == alone[-1]


@pytest.mark.parametrize(
    "change",
    [
        {"ratings": (2.0, 5.0, 1.0)},
        {"ages": (9 * DAY, 8 * DAY, 30)},
        {"history": (4, 2, 3)},
        {"user_id": 2},
        {"turns": (Turn((20, 21), 21),)},
        {"turns": (Turn((20, 21), 0),)},
    ],
)
def test_it_reads_all_that_was_done(student: SurrogateSimulator, change: dict) -> None:
    before, after = student.choose([SCENES[0], replace(SCENES[0], **change)]).probs
    assert np.abs(before - after).max() > 1e-5


def test_histories_that_an_environment_knows_are_as_those_of_scenes(
    split: TimeSplit, student: SurrogateSimulator
) -> None:
    """Pooled once for all, to the last bit as from the scenes themselves."""
    kept: list[tuple[np.ndarray, list[Scene]]] = []

    class Kept(RecordingSimulator):
        def choose(self, scenes):  # type: ignore[no-untyped-def]
            assert isinstance(scenes, SceneBatch)
            assert scenes.at_t0 is split
            answer = student.choose(scenes)
            kept.append((answer.probs, list(scenes)))
            return answer

    world = make_world(split, simulator=Kept(student, 1, 0), min_history=1)
    env = SlateVectorEnv(20, world, slate_size=4, session="stay", max_episode_steps=None)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(5):
        env.step(np.stack([rng.permutation(split.dataset.n_items)[:4] + 1 for _ in range(20)]))
    assert len(kept) == 5
    for probs, scenes in kept:
        np.testing.assert_array_equal(student.choose(scenes).probs, probs)
    with torch.no_grad():
        student.net.reader.lag += 0.1 * torch.arange(18)
    probs, scenes = kept[0]
    try:
        student.net = student.net  # after more training, nothing of before is left
        batch = SceneBatch.of(scenes)
        known = SceneBatch.lazy(len(batch), lambda name: getattr(batch, name), at_t0=split)
        changed = student.choose(known).probs
        assert np.abs(changed - probs).max() > 1e-6
        np.testing.assert_array_equal(changed, student.choose(scenes).probs)
    finally:
        with torch.no_grad():
            student.net.reader.lag -= 0.1 * torch.arange(18)
        student.net = student.net


def test_what_is_written_is_read(split, student, tmp_path) -> None:  # type: ignore[no-untyped-def]
    write_surrogate(tmp_path, student.net, student.facts)
    once = SurrogateSimulator(*read_surrogate(tmp_path), split)
    np.testing.assert_allclose(once.choose(SCENES).probs, student.choose(SCENES).probs, atol=2e-3)
    write_surrogate(tmp_path / "again", once.net, once.facts)
    twice = SurrogateSimulator(*read_surrogate(tmp_path / "again"), split)
    assert twice.name == once.name
    assert twice.history_lines == 1000


def test_answers_about_whole_histories_are_kept(split, student, teacher, tmp_path) -> None:  # type: ignore[no-untyped-def]
    past = past_of(split, NETWORK)
    parts = [ask(teacher, some, 4, "x", past) for some in (SCENES[:2], SCENES[2:])]
    joined = Answers.joined(parts)
    assert len(joined.questions.whole.histories.store.starts) - 1 == 4  # alike ones once
    write_answers(tmp_path / "a.npz", joined)
    for kept in (joined, read_answers(tmp_path / "a.npz")):
        np.testing.assert_array_equal(student.answer(kept.questions), student.choose(SCENES).probs)
    rows = np.array([3, 0])
    assert student.answer(joined.questions.part(rows))[1, 0] == student.choose(SCENES).probs[0, 0]


def test_a_distillation_comes_out_as_near_as_its_file_can_hold(
    split: TimeSplit, teacher: SessionSimulator, tmp_path
) -> None:  # type: ignore[no-untyped-def]
    config = read_surrogate_config(
        "smollm2-session",
        {
            "questions.total": 800, "questions.agents": ["Random"], "questions.strangers": ["Pop"],
            "questions.episodes": 20, "questions.min_history": 1, "questions.slate_sizes": [5, 3],
            "questions.new_users": 0.3, "network.dim": 6, "network.follow": 4, "network.lines": 4,
        },
    )  # fmt: skip
    folder = distill(teacher, split, config, tmp_path / "run", display=Display(quiet=True))
    facts = read_json(folder / "distillation.json")
    for role in ("new lists", "new users"):
        found = facts["report"][role]["all"]
        assert found["kl"]["mean"] < 1e-5
        assert found["agreement"]["mean"] > 0.98
    card = (folder / "README.md").read_text()
    assert "the teacher's own" in card
    assert "1000 of a history with ages and ratings" in card


def test_another_teacher_is_learned_from_the_start(split: TimeSplit, teacher) -> None:  # type: ignore[no-untyped-def]
    student = new_student(split, NETWORK, teacher="t")
    name = student.name
    assert not start_as(student, student)
    assert student.name == name


def test_sizes_that_are_not_those_of_the_teacher_are_refused(split: TimeSplit, teacher) -> None:  # type: ignore[no-untyped-def]
    for change, told in (
        ({"dim": 8}, "network.dim=6"), ({"once": False}, "network.once=true"),
        ({"follow": 0}, "network.follow=4"), ({"lines": 2}, "network.lines=3"),
    ):  # fmt: skip
        other = new_student(split, NETWORK.model_copy(update=change), teacher="t")
        with pytest.raises(ConfigError, match=told):
            start_as(other, teacher)


def test_settings_that_need_a_history_are_refused_without() -> None:
    for settings in ({"once": True}, {"follow": 4}):
        with pytest.raises(ValidationError, match="go with history"):
            NetworkSettings(**settings)
