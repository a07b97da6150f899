"""*None of these*: the AUC as scikit-learn has it, and the ladder from bad lists to good ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from usermirror_gym.data import TimeSplit
from usermirror_gym.fidelity.answers import Answer
from usermirror_gym.fidelity.checks.base import Asker, CardSizes, Context
from usermirror_gym.fidelity.checks.outside_option import (
    LADDER,
    detection,
    ladder,
    ladder_scenes,
    weighted_auc,
)
from usermirror_gym.measures.bootstrap import UserBootstrap
from usermirror_gym.measures.choice_scores import ObservedChoices
from usermirror_gym.scenes import Rankers, Scene, ScenePlan, domain_text, draw_scenes
from usermirror_gym.scenes.table import scenes_of
from usermirror_gym.scenes.words.render import scene_table
from usermirror_gym.simulators import UniformChooser
from usermirror_gym.simulators.base import UserSimulator
from usermirror_gym.testing.data import tiny_split
from usermirror_gym.types import FloatArray


def leavers(s: int = 300, skill: float = 1.0) -> tuple[FloatArray, ObservedChoices]:
    """Lists of three; P(none) is higher by ``skill`` where the true item is missing."""
    rng = np.random.default_rng(0)
    removed = rng.random(s) < 0.3
    none = 1 / (1 + np.exp(-np.round(rng.normal(skill * removed - 0.5, 1.0), 1)))  # with ties
    probs = np.column_stack([np.outer(1 - none, [0.5, 0.3, 0.2]), none])
    targets = np.where(removed, 3, rng.integers(0, 3, s))
    return probs, ObservedChoices(rng.integers(0, 60, s), np.ones((s, 3), bool), targets)


def test_detection_as_scikit_learn_has_it() -> None:
    probs, choices = leavers()
    found = detection(probs, choices, UserBootstrap(choices.users, 200))
    removed = ~choices.contains_choice
    assert found["auc"]["mean"] == pytest.approx(roc_auc_score(removed, probs[:, -1]))
    told = probs.argmax(axis=1) == 3
    assert found["precision"] == pytest.approx(precision_score(removed, told))
    assert found["recall"] == pytest.approx(recall_score(removed, told))
    assert 0.5 < found["auc"]["low"] < found["auc"]["mean"] < found["auc"]["high"]
    blind = leavers(skill=0.0)[0]
    nothing = detection(blind, choices, UserBootstrap(choices.users, 200))["auc"]
    assert nothing["low"] < 0.5 < nothing["high"]


def test_weights_are_how_often_a_list_counts() -> None:
    probs, choices = leavers(80)
    weights = np.random.default_rng(1).integers(0, 4, (5, 80)).astype(float)
    expected = [
        roc_auc_score(np.repeat(~choices.contains_choice, w), np.repeat(probs[:, -1], w))
        for w in weights.astype(int)
    ]
    np.testing.assert_allclose(
        weighted_auc(probs[:, -1], ~choices.contains_choice, weights), expected
    )


def test_without_one_of_the_two_kinds_of_lists_there_is_no_auc() -> None:
    probs, choices = leavers(40)
    held = choices.contains_choice
    bootstrap = UserBootstrap(choices.users[held], 20)
    every = ObservedChoices(choices.users[held], choices.shown[held], choices.targets[held])
    assert detection(probs[held], every, bootstrap) == {
        "auc": None, "precision": None, "recall": None,
    }  # fmt: skip
    lost = ObservedChoices(choices.users[~held], choices.shown[~held], choices.targets[~held])
    found = detection(probs[~held], lost, UserBootstrap(lost.users, 20))
    assert found["auc"] is None
    assert found["precision"] == 1.0
    assert np.isnan(weighted_auc(probs[:, -1], held, np.zeros((1, 40)))).all()


def test_one_user_gives_no_interval() -> None:
    probs, choices = leavers(40)
    alone = ObservedChoices(np.ones(40, np.int64), choices.shown, choices.targets)
    auc = detection(probs, alone, UserBootstrap(alone.users, 20))["auc"]
    assert auc["mean"] > 0.5
    assert np.isnan(auc["low"])


@pytest.fixture(scope="module")
def split() -> TimeSplit:
    return tiny_split(n_users=80, n_items=60)


@pytest.fixture(scope="module")
def evaluation(split: TimeSplit) -> pa.Table:
    plan = ScenePlan(count=60, slate_size=4, history=(2, 6), removed=0.1)
    rankers = Rankers(split)
    columns = draw_scenes(rankers, plan, (split.t0, None))
    return scene_table(columns, rankers, domain_text(split.dataset), "eval")


def rungs(
    ask: Callable[[Sequence[Scene], str], FloatArray],
    split: TimeSplit,
    table: pa.Table,
    count: int,
) -> Context:
    """A context of the lists of a table in which questions are answered by a function."""

    class Asking(Asker):
        def __call__(
            self, simulator: UserSimulator, scenes: Sequence[Scene], what: str, **_: Any
        ) -> Answer:
            return Answer(ask(scenes, what), 0.0)

    return Context(
        ObservedChoices.of(scenes_of(table)), [], UniformChooser(), split, table, Asking(),
        sizes=CardSizes(ladder=count, n_resamples=300),
    )  # fmt: skip


def test_rungs_are_the_same_moments_with_other_lists(
    split: TimeSplit, evaluation: pa.Table
) -> None:
    rungs = ladder_scenes(split, evaluation, 40, seed=0)
    assert len(rungs) == len(LADDER) == 4
    assert len({len(rung) for rung in rungs}) == 1
    assert len(rungs[0]) > 20
    for scenes in zip(*rungs, strict=True):
        assert len({(s.user_id, s.history, s.ages) for s in scenes}) == 1
        assert [len(s.slate) for s in scenes] == [4] * 4
        # Only the last list holds what was chosen.
        assert [s.target == 4 for s in scenes] == [True, True, True, False]
        seen = set(scenes[0].history)
        assert all(seen.isdisjoint(s.slate) for s in scenes)
    popularity = [split.popularity[[s.slate for s in rung]].mean() for rung in rungs]
    assert popularity[1] > popularity[0]
    # The true item takes the place of one of the collaborative ones.
    kept = [len(set(a.slate) & set(b.slate)) for a, b in zip(rungs[2], rungs[3], strict=True)]
    assert np.mean(kept) > 2.5


def test_the_ladder_falls_for_who_leaves_unpopular_lists(
    split: TimeSplit, evaluation: pa.Table
) -> None:
    asked: list[str] = []

    def ask(scenes: Sequence[Scene], what: str) -> FloatArray:
        asked.append(what)
        mass = np.log1p(split.popularity[[s.slate for s in scenes]])
        probs = np.column_stack([mass, np.full(len(mass), 4.0)])
        return probs / probs.sum(axis=1, keepdims=True)

    context = rungs(ask, split, evaluation, 40)
    steps = ladder(context)
    assert [s["lists"] for s in steps] == [name for name, *_ in LADDER]
    assert len(set(asked)) == 4
    first, second = steps[:2]
    assert first["fall"] is None
    assert second["fall"]["low"] > 0
    assert second["fall"]["mean"] == pytest.approx(
        first["p_none"]["mean"] - second["p_none"]["mean"]
    )
    assert ladder(context) == steps


def test_data_without_enough_items_have_no_ladder(split: TimeSplit, evaluation: pa.Table) -> None:
    wide = evaluation.set_column(
        evaluation.schema.get_field_index("slate"), "slate",
        pa.array([list(range(1, 59))] * len(evaluation), pa.list_(pa.int64())),
    )  # fmt: skip
    assert ladder_scenes(split, wide, 10, seed=0) == []

    def never(scenes: Sequence[Scene], what: str) -> FloatArray:
        raise AssertionError

    assert ladder(rungs(never, split, wide, 10)) == []
