"""Bad rows are repaired and reported, or refused: never passed on, never dropped in silence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from usermirror_gym.data import RecDataset
from usermirror_gym.errors import DataError, UnknownNameError

Build = Callable[..., RecDataset]
GOOD = ("a", "x", 100)

BAD_EVENTS = {
    "unknown user": (("ghost", "x", 100), "event of an unknown user", "ghost"),
    "missing user": ((None, "x", 100), "event of an unknown user", ""),
    "unknown item": (("a", "ghost", 100), "event of an unknown item", "ghost"),
    "no time": (("a", "y", np.nan), "bad timestamp", "nan"),
    "negative time": (("a", "y", -1), "bad timestamp", "-1"),
    "infinite time": (("a", "y", np.inf), "bad timestamp", "inf"),
    "milliseconds": (("a", "y", 978_300_760_000), "bad timestamp", "978300760000"),
    "text as time": (("a", "y", "yesterday"), "bad timestamp", "yesterday"),
    "duplicate": (GOOD, "duplicate event", "user 1 item 1 at 100"),
}


@pytest.mark.parametrize(("event", "kind", "example"), BAD_EVENTS.values(), ids=BAD_EVENTS)
def test_bad_event_is_dropped_and_reported(
    build: Build, event: tuple, kind: str, example: str
) -> None:
    data = build([GOOD, event])
    assert len(data.interactions) == 1
    assert data.interactions.iloc[0][["user_id", "item_id", "timestamp"]].tolist() == [1, 1, 100]
    (repair,) = data.repairs
    assert repair.kind.startswith(kind)
    assert repair.count == 1
    assert example in repair.examples[0]
    assert str(repair) == f"{repair.kind}: 1 (e.g. {repair.examples[0]})"


@pytest.mark.parametrize(("event", "kind", "example"), BAD_EVENTS.values(), ids=BAD_EVENTS)
def test_bad_event_is_an_error_on_request(
    build: Build, event: tuple, kind: str, example: str
) -> None:
    with pytest.raises(DataError, match=kind) as caught:
        build([GOOD, event], bad_rows="raise")
    assert example in str(caught.value)
    assert "bad_rows='repair'" in str(caught.value)


def test_clean_data_report_nothing_and_pass_strictly(build: Build) -> None:
    assert build([GOOD, ("b", "z", 0)], bad_rows="raise").repairs == ()


def test_each_event_is_reported_under_its_first_fault_only(build: Build) -> None:
    data = build([GOOD, ("ghost", "ghost", -1), ("a", "ghost", -1), ("a", "y", -1)])
    assert [r.count for r in data.repairs] == [1, 1, 1]


def test_report_keeps_three_examples_and_counts_all(build: Build) -> None:
    data = build([GOOD, *[(f"ghost{n}", "x", 5) for n in range(10)]])
    (repair,) = data.repairs
    assert repair.count == 10
    assert repair.examples == ("ghost0", "ghost1", "ghost2")


@pytest.mark.parametrize("title", ["", "   ", None, np.nan])
def test_empty_title_is_named_after_its_id(build: Build, title: object) -> None:
    items = pd.DataFrame({"item_id": ["x", "y"], "title": ["X", title]})
    data = build([GOOD], items=items)
    assert data.titles == ["", "X", "untitled y"]
    (repair,) = data.repairs
    assert repair.kind.startswith("empty title")
    assert repair.examples == ("y",)
    with pytest.raises(DataError, match="empty title"):
        build([GOOD], items=items, bad_rows="raise")


def test_rating_that_is_no_number_is_emptied_and_reported(build: Build) -> None:
    data = build([("a", "x", 1, "five"), ("a", "y", 2, 4), ("a", "z", 3, None)])
    ratings = data.interactions["rating"]
    assert ratings.isna().tolist() == [True, False, True]
    (repair,) = data.repairs
    assert repair.kind.startswith("rating that is not a number")
    assert repair.examples == ("five",)


def test_same_item_at_another_time_is_no_duplicate(build: Build) -> None:
    data = build([GOOD, ("a", "x", 101)])
    assert len(data.interactions) == 2
    assert data.repairs == ()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"users": pd.DataFrame({"user_id": ["a", "b", "a"]})}, "table 'users'.*user_id.*'a'"),
        (
            {"items": pd.DataFrame({"item_id": [7, 7], "title": ["X", "Y"]})},
            "table 'items'.*item_id.*'7'",
        ),
        ({"users": pd.DataFrame({"user_id": ["a", None]})}, "'users' has no user_id in row 1"),
        ({"users": pd.DataFrame({"name": ["a"]})}, r"'users' lacks.*user_id.*it has \['name'\]"),
        ({"items": pd.DataFrame({"item_id": ["x"]})}, "'items' lacks.*title"),
    ],
)
def test_tables_without_usable_ids_are_refused(
    build: Build, table: dict[str, pd.DataFrame], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        build([GOOD], **table)


@pytest.mark.parametrize("column", ["user_id", "item_id", "timestamp"])
def test_interactions_without_a_column_are_refused(build: Build, column: str) -> None:
    events = pd.DataFrame({"user_id": ["a"], "item_id": ["x"], "timestamp": [1]})
    with pytest.raises(DataError, match=f"'interactions' lacks.*{column}"):
        build(events.drop(columns=column))


def test_nothing_left_is_an_error_that_says_why(build: Build) -> None:
    with pytest.raises(DataError, match=r"none of the 2 interactions.*bad timestamp.*: 2"):
        build([("a", "x", 978_300_760_000), ("b", "x", 978_300_761_000)])
    with pytest.raises(DataError, match="table is empty"):
        build([])


def test_unknown_way_to_treat_bad_rows_is_refused(build: Build) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'repair'"):
        build([GOOD], bad_rows="repairs")
