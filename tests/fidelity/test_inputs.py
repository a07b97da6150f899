"""What the card says of what a simulator reads: it is asked with one thing told wrongly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.fidelity.fidelity_example import example_card
from usermirror_gym.data import TimeSplit
from usermirror_gym.data.dataset import Impressions
from usermirror_gym.fidelity.checks.base import Answered, CardSizes, Context
from usermirror_gym.fidelity.checks.inputs import PASSED, Inputs
from usermirror_gym.fidelity.pages import render_markdown
from usermirror_gym.measures.choice_scores import ObservedChoices
from usermirror_gym.scenes import Scene
from usermirror_gym.simulators.base import ChoiceBatch


@pytest.fixture
def split(make_split: Callable[..., TimeSplit]) -> TimeSplit:
    return make_split(n_users=20)


RATINGS, PROFILE = "ratings (the other way round)", "profile (of another user)"
NEWEST, OLD = "newest line (left out)", "lines before the newest 10 (left out)"


class Reads:
    """Prefers the place that a function of the scene says."""

    name = "reads"

    def __init__(self, place: Callable[[Scene], int]) -> None:
        self.place = place

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        probs = np.full((len(scenes), 4), 0.1)
        probs[np.arange(len(scenes)), [self.place(scene) % 3 for scene in scenes]] = 0.7
        return ChoiceBatch(probs)


def scenes(split: TimeSplit, place: Callable[[Scene], int]) -> list[Scene]:
    """Real choices follow the function."""
    rng, found = np.random.default_rng(0), []
    for number in range(120):
        ids = 1 + rng.permutation(40)[:15]
        history, slate = tuple(ids[:12].tolist()), tuple(ids[12:].tolist())
        ratings = tuple(rng.choice([1.0, 2.0, 4.0, 5.0], 12).tolist())
        ages = tuple(range(1200, 0, -100))
        scene = Scene(1 + number % 20, history, ratings, ages, slate)
        found.append(replace(scene, target=place(scene) % 3))
    return found


def found(split: TimeSplit, place: Callable[[Scene], int], **more: Any) -> dict[str, Any]:
    asked, simulator = scenes(split, place), Reads(place)
    choices = ObservedChoices.of(asked)
    rows = [Answered("reads", "simulator", simulator.choose(asked).probs)]
    sizes = CardSizes(n_resamples=300)
    return Inputs().run(Context(choices, rows, simulator, split, sizes=sizes, **more))


@pytest.mark.parametrize(
    ("reads", "place"),
    [
        (RATINGS, lambda scene: int(scene.ratings[1] > 3)),
        (PROFILE, lambda scene: scene.user_id),
        (NEWEST, lambda scene: scene.slate[0] % 2 * int(scene.ages[-1] > 100)),
        (OLD, lambda scene: scene.slate[0] % 2 * int(len(scene.history) > 10)),
    ],
)
def test_only_what_is_read_is_worth_something(
    split: TimeSplit, reads: str, place: Callable[[Scene], int]
) -> None:
    rows = {row["input"]: row for row in found(split, place)["reads"]}
    assert set(rows) == {RATINGS, PROFILE, NEWEST, OLD}
    assert rows[reads]["accuracy"]["low"] > 0
    assert rows[reads]["log_loss"]["high"] < 0
    for name in rows.keys() - {reads}:
        if (reads, name) != (RATINGS, OLD):  # the rating that is read is an old one
            assert rows[name]["log_loss"]["mean"] == pytest.approx(0.0, abs=1e-12)


def test_of_a_log_with_lists_what_was_passed_over_is_forgotten(split: TimeSplit) -> None:
    one = np.array([1])
    shown = Impressions(
        np.array(["a"]), one, one, np.array([0, 2]), np.array([1, 2]), np.zeros(2, np.bool_)
    )
    browsed = replace(split, dataset=replace(split.dataset, impressions=shown))

    def remake(split: TimeSplit) -> Reads:
        knows = split.dataset.impressions is not None
        return Reads(lambda scene: scene.user_id + (not knows))

    rows = found(browsed, lambda scene: scene.user_id, remake=remake)["reads"]
    (row,) = (row for row in rows if row["input"] == PASSED)
    assert row["log_loss"]["mean"] == pytest.approx(np.log(0.1 / 0.7))
    assert row["accuracy"]["mean"] == 1.0


def test_what_is_said(split: TimeSplit) -> None:
    card = example_card() | found(split, lambda scene: int(scene.ratings[1] > 3))
    first, second = Inputs().sentences(card)
    assert first.startswith("What it is told moves it as the data go, in nats of log-loss")
    assert f"({RATINGS}: -" in first
    assert second.startswith("It is not shown to gain from being told (profile")
    page = render_markdown(card)
    assert "## What it reads" in page
    assert Inputs().tables(example_card()) == []  # cards of earlier versions
