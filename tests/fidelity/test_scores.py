"""Rows of a card: every chooser by itself, by slice, and against the simulator, list by list."""

from __future__ import annotations

import json

import numpy as np
import pytest

from usermirror_gym.fidelity.checks import run_checks
from usermirror_gym.fidelity.checks.base import Answered, CardSizes, Context
from usermirror_gym.fidelity.checks.calibration import Calibration
from usermirror_gym.fidelity.checks.history import History
from usermirror_gym.fidelity.checks.order import Order
from usermirror_gym.fidelity.checks.scores import Scores
from usermirror_gym.fidelity.checks.slices import slice_blocks
from usermirror_gym.files import to_json_types
from usermirror_gym.measures.bootstrap import UserBootstrap
from usermirror_gym.measures.choice_scores import (
    METRICS,
    ObservedChoices,
    outside_scores,
    scores_given_click,
)
from usermirror_gym.scenes import Scene
from usermirror_gym.simulators import UniformChooser

S, K = 240, 4
RNG = np.random.default_rng(0)
SCENES = [
    Scene(int(u), (), (), (), tuple((1 + RNG.permutation(30)[:K]).tolist()), target=int(t))
    for u, t in zip(RNG.integers(0, 40, S), RNG.choice([0, 1, 2, 3, 4], S), strict=True)
]
CHOICES = ObservedChoices.of(SCENES)


def answers(skill: float, *, none: bool = True, seed: int = 1) -> np.ndarray:
    """Probabilities that favour the truth by ``skill`` nats."""
    utility = np.random.default_rng(seed).normal(0, 1, (S, K + 1))
    utility[np.arange(S), CHOICES.targets] += skill
    if not none:
        utility[:, -1] = -np.inf
    mass = np.exp(utility)
    return mass / mass.sum(axis=1, keepdims=True)


@pytest.fixture
def rows() -> list[Answered]:
    return [
        Answered("good", "simulator", answers(2.0), 1.5),
        Answered("swapped history", "swapped", answers(0.5, seed=2), 1.0),
        Answered("forced", "classic", answers(1.0, none=False), 0.5),
    ]


@pytest.fixture
def bootstrap() -> UserBootstrap:
    return UserBootstrap(CHOICES.users, 300)


def context(rows: list[Answered]) -> Context:
    sizes = CardSizes(order=0, n_resamples=300)
    return Context(CHOICES, rows, UniformChooser(), sizes=sizes)


def blocks(rows: list[Answered], groups: dict | None = None) -> list:
    found = run_checks(context(rows), (Scores(), Calibration(), Order()))["choosers"]
    for block, own in zip(found, slice_blocks(context(rows), groups or {}), strict=True):
        block["slices"] = own
    return found


def test_scores_are_those_of_the_lists_with_their_intervals(rows, bootstrap) -> None:
    for row, block in zip(rows, blocks(rows), strict=True):
        assert (block["name"], block["kind"], block["seconds"]) == (row.name, row.kind, row.seconds)
        expected = bootstrap.intervals(scores_given_click(row.probs, CHOICES))
        for name, interval in zip(METRICS, expected, strict=True):
            assert block["overall"]["forced"][name] == pytest.approx(interval._asdict())
    outside = blocks(rows)[0]["overall"]["outside"]
    loss = outside_scores(rows[0].probs, CHOICES)[:, METRICS.index("log_loss")].mean()
    assert outside["log_loss"]["mean"] == pytest.approx(loss)


def test_who_never_leaves_is_not_judged_by_leaving(rows) -> None:
    assert [row.offers_outside for row in rows] == [True, True, False]
    assert blocks(rows)[2]["overall"]["outside"] is None


def test_slices_hold_their_lists_alone(rows) -> None:
    first, few = np.arange(S) < 150, np.arange(S) < 20
    groups = {
        "half": {
            "first": CHOICES.contains_choice & first,
            "rest": CHOICES.contains_choice & ~first,
        },
        "few": {"x": few},
    }
    block = blocks(rows, groups)[0]
    rest = block["slices"]["half"][1]
    member = groups["half"]["rest"]
    assert rest["n"] == member.sum()
    scores = scores_given_click(rows[0].probs, CHOICES)[member]
    assert rest["accuracy"]["mean"] == pytest.approx(scores[:, METRICS.index("accuracy")].mean())
    assert rest["log_loss"]["mean"] == pytest.approx(scores[:, METRICS.index("log_loss")].mean())
    assert not rest["few"]
    assert block["slices"]["few"][0]["few"]


def test_differences_are_paired_list_by_list(rows, bootstrap) -> None:
    scores = {row.name: scores_given_click(row.probs, CHOICES) for row in rows}
    paired = context(rows).paired
    assert [(p["chooser"], p["against"]) for p in paired] == [
        ("good", "swapped history"), ("good", "forced"),
    ]  # fmt: skip
    column = METRICS.index("log_loss")
    difference = (scores["good"] - scores["forced"])[:, [column]]
    (expected,) = bootstrap.intervals(difference)
    assert paired[1]["log_loss"] == pytest.approx(expected._asdict())
    # Good and forced share their noise: the paired interval is the narrower one.
    own, other = (bootstrap.intervals(scores[n][:, [column]])[0] for n in ("good", "forced"))
    width = paired[1]["log_loss"]["high"] - paired[1]["log_loss"]["low"]
    assert width < own.high - own.low + other.high - other.low
    assert context(rows[:1]).paired == []


def test_the_worth_of_a_history_is_one_of_the_differences(rows) -> None:
    paired = context(rows).paired
    found = History().run(context(rows))["history"]
    assert found == {name: paired[0][name] for name in ("accuracy", "log_loss")}
    assert found["accuracy"]["low"] > 0
    assert History().run(context([rows[0], rows[2]]))["history"] is None


def test_everything_is_plain_json(rows) -> None:
    whole = blocks(rows, {"g": {"v": CHOICES.contains_choice}})
    json.dumps(to_json_types(whole), allow_nan=False)
    assert len(whole[0]["positions"]) == K
