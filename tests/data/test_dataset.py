"""Ids, order and types of a valid data set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from usermirror_gym.data import SOURCES, RecDataset, TimeSplit, load_dataset
from usermirror_gym.errors import UnknownNameError

Build = Callable[..., RecDataset]


def test_ids_start_at_one_in_table_order(build: Build) -> None:
    data = build([("b", "z", 1), ("a", "x", 2)])
    assert data.users.index.tolist() == [1, 2]
    assert data.users["token"].tolist() == ["a", "b"]
    assert data.items.index.tolist() == [1, 2, 3]
    assert data.titles == ["", "X", "Y", "Z"]
    assert data.interactions[["user_id", "item_id"]].to_numpy().tolist() == [[2, 3], [1, 1]]


def test_ids_do_not_depend_on_the_order_of_events(build: Build) -> None:
    events = [("a", "x", 3), ("b", "y", 1), ("a", "z", 2), ("b", "x", 2)]
    one, two = build(events), build(events[::-1])
    pd.testing.assert_frame_equal(one.interactions, two.interactions)
    pd.testing.assert_frame_equal(one.items, two.items)


def test_events_are_sorted_by_time_then_user_then_item(build: Build) -> None:
    data = build([("b", "x", 5), ("a", "z", 5), ("a", "y", 5), ("b", "z", 1)])
    rows = data.interactions[["timestamp", "user_id", "item_id"]].to_numpy().tolist()
    assert rows == [[1, 2, 3], [5, 1, 2], [5, 1, 3], [5, 2, 1]]


def test_column_types_are_the_documented_ones(build: Build) -> None:
    types = build([("a", "x", "12", "4")]).interactions.dtypes
    assert [types[c] for c in ("user_id", "item_id", "timestamp")] == [np.int64] * 3
    assert types["rating"] == np.float64


def test_log_without_ratings_has_empty_ratings(build: Build) -> None:
    events = pd.DataFrame({"user_id": ["a"], "item_id": ["x"], "timestamp": [1]})
    data = build(events)
    assert data.interactions["rating"].isna().all()
    assert data.repairs == ()


def test_integer_ids_survive_a_gap_in_their_column(build: Build) -> None:
    # A missing id makes pandas read the whole column as floats: 7 must not become "7.0".
    users = pd.DataFrame({"user_id": [7, 8]})
    events = pd.DataFrame({"user_id": [7, np.nan, 8], "item_id": ["x"] * 3, "timestamp": [1, 2, 3]})
    data = build(events, users=users)
    assert data.interactions["user_id"].tolist() == [1, 2]
    assert [r.count for r in data.repairs] == [1]


def test_user_without_events_keeps_its_id(build: Build) -> None:
    data = build([("b", "x", 1)])
    assert data.n_users == 2
    assert data.interactions["user_id"].tolist() == [2]


def test_raw_tables_are_left_alone(build: Build) -> None:
    items = pd.DataFrame({"item_id": ["x"], "title": [""]})
    events = pd.DataFrame({"user_id": ["a", "a"], "item_id": ["x", "x"], "timestamp": ["1", "1"]})
    before = items.copy(), events.copy()
    build(events, items=items)
    pd.testing.assert_frame_equal(items, before[0])
    pd.testing.assert_frame_equal(events, before[1])


def test_popularity_has_an_empty_padding_entry(build: Build) -> None:
    data = build([("a", "x", 1), ("b", "x", 2), ("a", "z", 3)])
    assert TimeSplit(data, t0=9).popularity.tolist() == [0, 2, 0, 1]


def test_unknown_source_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'ml-100k'"):
        load_dataset("ml100k")
    assert {"ml-100k", "ml-1m"} <= set(SOURCES)
