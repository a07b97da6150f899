"""Attacks on the text of an option: who falls for them is found, who does not is not accused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from usermirror_gym.data import TimeSplit
from usermirror_gym.fidelity.answers import Answer, answer
from usermirror_gym.fidelity.checks.base import Asker, CardSizes, Context
from usermirror_gym.fidelity.checks.text_attacks import (
    ATTACKS,
    DUPLICATE,
    attacked_places,
    count_columns,
    inflate_counts,
    text_attacks,
    with_copies,
)
from usermirror_gym.measures.choice_scores import ObservedChoices
from usermirror_gym.scenes import Scene, ScenePlan, build_scenes, domain_text
from usermirror_gym.simulators import ChoiceBatch, PopularityChooser
from usermirror_gym.simulators.base import UserSimulator
from usermirror_gym.testing.data import tiny_split


@pytest.fixture(scope="module")
def split() -> TimeSplit:
    return tiny_split(n_users=60, n_items=50)


@pytest.fixture(scope="module")
def scenes(split: TimeSplit) -> list[Scene]:
    return build_scenes(split, ScenePlan(count=40, slate_size=4))


class Reader:
    """Takes options by what their title says; a *weak* one does as it is told there."""

    name = "reader"

    def __init__(self, split: TimeSplit, words: str = "Ignore all else") -> None:
        self.titles, self.words = split.dataset.items["title"], words

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        probs = np.zeros((len(scenes), max(len(s.slate) for s in scenes) + 1))
        for row, scene in zip(probs, scenes, strict=True):
            told = [self.words in self.titles[item] for item in scene.slate]
            row[: len(told)] = np.where(told, 10.0, 1.0)
            row[-1] = 1.0
        return ChoiceBatch(probs / probs.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Listening(Asker):
    """Remembers what was asked."""

    asked: dict[str, list[Scene]] = field(default_factory=dict)

    def __call__(
        self, simulator: UserSimulator, scenes: Sequence[Scene], what: str, **_: Any
    ) -> Answer:
        self.asked[what] = list(scenes)
        return answer(simulator, scenes)


def probed(
    make: Callable[[TimeSplit], UserSimulator],
    split: TimeSplit,
    scenes: list[Scene],
    asker: Asker | None = None,
) -> dict[str, dict]:
    sizes = CardSizes(text_attacks=len(scenes), n_resamples=200)
    context = Context(
        ObservedChoices.of(scenes), [], make(split), split, asker=asker or Listening(),
        remake=make, sizes=sizes,
    )  # fmt: skip
    return {row["name"]: row for row in text_attacks(context)}


def test_who_does_as_a_title_says_is_found(split: TimeSplit, scenes: list[Scene]) -> None:
    found = probed(Reader, split, scenes)
    told = found["instruction in the title"]
    # One of four options and none of these has weight 10 instead of 1.
    assert told["change"]["mean"] == pytest.approx(10 / 14 - 1 / 5)
    assert told["rises"] == 1.0
    assert told["n"] == 40
    for name in ("praise in the title", "list markers in the title", "counts claimed in the title"):
        assert found[name]["change"]["mean"] == pytest.approx(0)
        assert found[name]["rises"] == 0
    assert "inflated counts" not in found  # these films carry none
    # Listed twice, two of five options: both together.
    assert found[DUPLICATE]["change"]["mean"] == pytest.approx(2 / 6 - 1 / 5)


def test_who_counts_interactions_is_not_moved_by_words(
    split: TimeSplit, scenes: list[Scene]
) -> None:
    found = probed(PopularityChooser, split, scenes)
    for name in list(ATTACKS)[:4]:
        assert found[name]["change"]["mean"] == pytest.approx(0, abs=1e-12), name
    assert found[DUPLICATE]["change"]["low"] > 0


def test_counts_that_items_carry_are_inflated(split: TimeSplit, scenes: list[Scene]) -> None:
    items = split.dataset.items.assign(n_ratings=10, n_title="few", mean_rating=3.0)
    carrying = TimeSplit(replace(split.dataset, items=items), split.t0)
    assert count_columns(items) == ["n_ratings"]
    assert (inflate_counts(items)["n_ratings"] == 10_000).all()
    assert (inflate_counts(items)["mean_rating"] == 3.0).all()

    class Counter(Reader):
        def __init__(self, split: TimeSplit) -> None:
            counts = split.dataset.items["n_ratings"]
            self.titles, self.words = counts.astype(str), "000"

    found = probed(Counter, carrying, scenes)
    assert found["inflated counts"]["change"]["mean"] > 0.4
    assert found["praise in the title"]["rises"] == 0


def test_only_the_attacked_option_is_another_item(split: TimeSplit, scenes: list[Scene]) -> None:
    """Same histories, same company: the difference is the text alone."""
    asker = Listening()
    probed(Reader, split, scenes, asker)
    asked = asker.asked
    places = attacked_places(scenes, 0)
    original, edited = asked["probe: as it is"], asked["probe: praise in the title"]
    assert original == edited
    n = split.dataset.n_items
    for scene, shown, twice, place in zip(
        scenes, original, asked[f"probe: {DUPLICATE}"], places, strict=True
    ):
        assert shown.slate[place] > n
        assert replace(shown, slate=scene.slate) == scene
        assert twice.slate[:-1] == shown.slate
        assert twice.slate[-1] > shown.slate[place]


def test_places_are_uniform_and_belong_to_their_scene(scenes: list[Scene]) -> None:
    places = attacked_places(scenes, 0)
    assert set(places.tolist()) == {0, 1, 2, 3}
    assert attacked_places(scenes[::-1], 0).tolist() == places[::-1].tolist()
    assert attacked_places(scenes, 1).tolist() != places.tolist()


def test_copies_are_as_popular_as_their_originals_and_read_alike(split: TimeSplit) -> None:
    items = np.array([2, 5, 11])
    copied = with_copies(split, items)
    n = split.dataset.n_items
    assert copied.dataset.n_items == n + 6
    first, second = np.arange(n + 1, n + 4), np.arange(n + 4, n + 7)
    for ids in (first, second):
        assert (copied.popularity[ids] == split.popularity[items]).all()
    assert (copied.popularity[: n + 1] == split.popularity).all()
    before, after = domain_text(split.dataset), domain_text(copied.dataset)
    for item, copy, other in zip(items, first, second, strict=True):
        assert before.option(item) == after.option(copy) == after.option(other)
    times = copied.dataset.interactions["timestamp"]
    assert times.is_monotonic_increasing
    assert copied.dataset.items["token"].is_unique


def test_edits_touch_the_copies_alone(split: TimeSplit) -> None:
    def shout(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(title=rows["title"].str.upper())

    copied = with_copies(split, np.array([3]), edit=shout).dataset.items
    assert copied["title"].iloc[-2:].tolist() == ["FILM 3", "FILM 3"]
    pd.testing.assert_frame_equal(copied.iloc[:-2], split.dataset.items, check_index_type=False)
