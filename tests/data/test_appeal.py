"""What is known of items alone, whoever is asked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from usermirror_gym.data import RecDataset, TimeSplit
from usermirror_gym.data.appeal import Appeal, appeal

Build = Callable[..., RecDataset]
DAY = 86_400
HOUR = 3_600
T0 = 1_000 * DAY


def column(found: Appeal, name: str) -> np.ndarray:
    return found.values[:, found.names.index(name)]


def standard(*values: float) -> list[float]:
    """Of the items 1, 2, 3; before them a zero for nothing."""
    own = np.array(values)
    return [0.0, *((own - own.mean()) / own.std())]


@pytest.fixture
def split(build: Build) -> TimeSplit:
    return TimeSplit(
        build(
            [
                ("a", "x", T0 - 900 * DAY, 5.0),
                ("a", "y", T0 - 900 * DAY + HOUR, 4.0),  # an hour is not yet more than an hour
                ("a", "z", T0 - 900 * DAY + 3 * HOUR, 1.0),
                ("b", "x", T0 - 800 * DAY, 4.0),
                ("b", "z", T0 - 61 * DAY, 2.0),
                ("b", "y", T0 - 60 * DAY, 3.0),
                ("b", "x", T0 - 60 * DAY + 1, 3.0),
                ("a", "y", T0, 1.0),  # as everything after it, of no concern
                ("b", "y", T0 + DAY, 1.0),
            ]
        ),
        T0,
    )


def test_counts_openers_recent_days_and_ratings(split: TimeSplit) -> None:
    found = appeal(split)
    assert column(found, "log popularity") == pytest.approx(standard(*np.log([4, 3, 3])))
    # Openers: z of a, then z and y of b.
    assert column(found, "log opener popularity") == pytest.approx(standard(*np.log([1, 2, 3])))
    assert column(found, "log recent popularity") == pytest.approx(standard(*np.log([2, 2, 1])))
    mean = 22 / 7
    ratings = ((12 + 5 * mean) / 8, (7 + 5 * mean) / 7, (3 + 5 * mean) / 7)
    assert column(found, "mean rating") == pytest.approx(standard(*ratings))
    ages = (900, 900 - 1 / 24, 900 - 3 / 24)
    assert column(found, "log age") == pytest.approx(standard(*np.log1p(ages)))


def test_sitting_and_recent_days_can_be_set(split: TimeSplit) -> None:
    found = appeal(split, sitting=HOUR - 1, recent_days=61)
    assert column(found, "log opener popularity") == pytest.approx(standard(*np.log([1, 3, 3])))
    assert column(found, "log recent popularity").tolist() == [0, 0, 0, 0]  # one each


def test_nothing_after_the_cut_is_read(split: TimeSplit) -> None:
    events = split.dataset.interactions
    early = RecDataset(
        "toy", "movie", split.dataset.users, split.dataset.items, events[events["timestamp"] < T0]
    )
    assert (appeal(split).values == appeal(TimeSplit(early, T0)).values).all()


def test_the_catalogue_says_how_old_an_item_is(build: Build) -> None:
    events = [("a", "x", T0 - 9 * DAY), ("a", "y", T0 - 9 * DAY), ("b", "z", T0 - 9 * DAY)]
    items = pd.DataFrame({"item_id": ["x", "y", "z"], "title": ["X", "Y", "Z"]})

    def ages(**columns: list[float | None]) -> list[float]:
        split = TimeSplit(build(events, items=items.assign(**columns)), T0)
        return column(appeal(split), "log age").tolist()

    exact = ages(available_from=[T0 - 99 * DAY, None, T0 + 5 * DAY])
    assert exact == pytest.approx([0.0, 1.0, 0.0, -1.0])
    old, _, new = ages(year=[1940, 0, 1972])[1:]
    assert old == pytest.approx(1)
    assert new == pytest.approx(-1)
    assert ages() == [0, 0, 0, 0]  # equally old


def test_what_is_not_known_is_zero(build: Build) -> None:
    events = pd.DataFrame(
        [("a", "x", 10), ("a", "x", 9_000_000), ("b", "x", 7), ("b", "y", 9_000_000)],
        columns=["user_id", "item_id", "timestamp"],
    )
    found = appeal(TimeSplit(build(events.assign(undated=True)), T0))
    assert np.isfinite(found.values).all()
    assert (found.values[:, 1:] == 0).all()  # neither times nor ratings
    # An item that nobody took is not as good as one of the mean.
    assert column(found, "log popularity").tolist() == pytest.approx([0, 1, -1, -3])
    empty = appeal(TimeSplit(build(events), 0))
    assert empty.values.shape == (4, 5)
    assert not empty.values.any()
