"""The global time cut: nothing at or after T0 is ever seen by what learns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usermirror_gym.data import RecDataset, TimeSplit, cut_at, time_cut
from usermirror_gym.errors import ConfigError

Build = Callable[..., RecDataset]


def toy(times: list[int]) -> RecDataset:
    """Event k: user k % 3 + 1 takes item k % 5 + 1 at times[k]."""
    tokens = pd.Series(range(len(times)))
    return RecDataset.from_tables(
        "toy",
        "movie",
        users=pd.DataFrame({"user_id": [1, 2, 3]}),
        items=pd.DataFrame({"item_id": range(1, 6), "title": list("ABCDE")}),
        interactions=pd.DataFrame(
            {"user_id": tokens % 3 + 1, "item_id": tokens % 5 + 1, "timestamp": times}
        ),
    )


# Few distinct values: ties are the hard case.
TIMES = st.lists(st.integers(0, 12), min_size=2, max_size=60)
FRACTION = st.floats(0.01, 0.99)


def cut_or_none(times: list[int], fraction: float) -> TimeSplit | None:
    data = toy(times)
    try:
        return time_cut(data, fraction)
    except ConfigError:
        # Allowed only when the events that would be cut off begin with the very first one.
        left = data.interactions["timestamp"].to_numpy()
        assert (left == left[0]).sum() > min(np.ceil(len(left) * fraction), len(left) - 1)
        return None


@given(TIMES, FRACTION)
def test_sides_are_separated_by_t0_and_lose_nothing(times: list[int], fraction: float) -> None:
    split = cut_or_none(times, fraction)
    if split is None:
        return
    assert split.before["timestamp"].max() < split.t0 <= split.after["timestamp"].min()
    both = pd.concat([split.before, split.after], ignore_index=True)
    pd.testing.assert_frame_equal(both, split.dataset.interactions)
    assert not set(split.before["timestamp"]) & set(split.after["timestamp"])


@given(TIMES, FRACTION)
def test_fraction_is_reached_up_to_ties(times: list[int], fraction: float) -> None:
    split = cut_or_none(times, fraction)
    if split is None:
        return
    n, ties = len(split.dataset.interactions), int((split.after["timestamp"] == split.t0).sum())
    wanted = min(np.ceil(n * fraction), n - 1)
    assert wanted - ties < len(split.before) <= wanted
    assert len(split.after) >= 1


@given(TIMES, FRACTION, st.integers(1, 6))
def test_memory_is_the_recent_past_of_each_user(
    times: list[int], fraction: float, size: int
) -> None:
    split = cut_or_none(times, fraction)
    if split is None:
        return
    memory = split.memory(np.array([3, 1, 99]), size)
    assert memory.items.shape == memory.ratings.shape == memory.ages.shape == (3, size)
    for row, user in enumerate([3, 1, 99]):
        past = split.before[split.before["user_id"] == user]
        n = memory.lengths[row]
        assert n == min(size, len(past))
        assert memory.items[row, :n].tolist() == past["item_id"].tolist()[len(past) - n :]
        assert (split.t0 - memory.ages[row, :n]).tolist() == past["timestamp"].tolist()[
            len(past) - n :
        ]
        assert (memory.ages[row, :n] > 0).all()
        assert (np.diff(memory.ages[row, :n]) <= 0).all()
        assert not memory.items[row, n:].any()


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 1.5, float("nan")])
def test_fraction_out_of_bounds_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        time_cut(toy([1, 2, 3]), fraction)


def test_empty_side_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match=r"4 of 5 events share one timestamp"):
        time_cut(toy([7, 7, 7, 7, 9]), 0.5)


def test_exact_cut() -> None:
    split = time_cut(toy(list(range(10))), 0.8)
    assert (split.t0, len(split.before), len(split.after)) == (8, 8, 2)


def test_popularity_counts_only_the_past(build: Build) -> None:
    split = TimeSplit(build([("a", "x", 1), ("b", "x", 2), ("a", "z", 10), ("b", "y", 11)]), t0=10)
    assert split.popularity.tolist() == [0, 2, 0, 0]


def test_memory_keeps_the_last_items_oldest_first_and_pads_right(build: Build) -> None:
    data = build([("a", "x", 1, 5), ("a", "y", 4, 2), ("a", "z", 6, 1), ("b", "z", 9)])
    memory = TimeSplit(data, t0=8).memory(np.array([2, 1]), 2)
    assert memory.items.tolist() == [[0, 0], [2, 3]]
    assert memory.ages.tolist() == [[0, 0], [4, 2]]
    assert memory.ratings.tolist() == [[0, 0], [2, 1]]
    assert memory.lengths.tolist() == [0, 2]
    wide = TimeSplit(data, t0=8).memory(np.array([1]), 5)
    assert wide.items.tolist() == [[1, 2, 3, 0, 0]]


def test_users_with_history_counts_only_the_past(build: Build) -> None:
    data = build([("b", "x", 1), ("b", "y", 2), ("a", "x", 3), ("a", "y", 10), ("a", "z", 11)])
    split = TimeSplit(data, t0=10)
    assert split.users_with_history(1).tolist() == [1, 2]
    assert split.users_with_history(2).tolist() == [2]
    assert split.users_with_history(3).tolist() == []


def test_histories_of_no_events_are_empty(build: Build) -> None:
    data = build([("a", "x", 1)])
    assert TimeSplit(data, t0=1).histories == {}
    assert TimeSplit(data, t0=2).histories[1].items.tolist() == [1]


def dated(build: Build, times: list[int], undated: list[bool]) -> RecDataset:
    rows = pd.DataFrame(
        {"user_id": "a", "item_id": "x", "timestamp": times, "undated": undated}, dtype=object
    )
    return build(rows)


def test_events_without_a_known_time_do_not_move_the_cut(build: Build) -> None:
    times, unknown = [1, 2, 3, 4, 5, 6, 100, 200, 300, 400], [True] * 6 + [False] * 4
    assert time_cut(dated(build, times, unknown), 0.5).t0 == 300
    assert time_cut(dated(build, times, [False] * 10), 0.5).t0 == 6
    with pytest.raises(ConfigError, match="no interaction of 'toy' has a known time"):
        time_cut(dated(build, times, [True] * 10), 0.5)
    with pytest.raises(ConfigError, match="no interaction of 'toy' has a known time"):
        cut_at(dated(build, times, [True] * 10), 5)


@pytest.mark.parametrize(
    ("moment", "t0"),
    [
        (978_307_200, 978_307_200),
        ("2001-01-01", 978_307_200),
        ("2001-01-01 00:00:00", 978_307_200),
        ("2001-01-01T01:00:00+01:00", 978_307_200),
        ("2001-01-01T00:00:00Z", 978_307_200),
        ("2001-01-01T00:00:00.5", 978_307_201),
        (np.int64(978_307_200), 978_307_200),
    ],
)
def test_cut_at_a_given_moment(build: Build, moment: int | str, t0: int) -> None:
    data = build([("a", "x", 978_307_199), ("a", "y", 978_307_200), ("b", "z", 978_307_300)])
    split = cut_at(data, moment)
    assert split.t0 == t0
    assert len(split.before) == (1 if t0 == 978_307_200 else 2)


@pytest.mark.parametrize(
    ("moment", "side"),
    [("1999-12-31", "before"), ("2000-01-01", "before"), ("2000-01-02 00:00:01", "after"),
     (0, "before"), (10**15, "after"), (-5, "before")],
)  # fmt: skip
def test_cut_that_leaves_a_side_empty_names_the_span(
    build: Build, moment: int | str, side: str
) -> None:
    data = build([("a", "x", 946_684_800), ("a", "y", 946_771_200)])
    span = "from 2000-01-01 00:00:00 to 2000-01-02 00:00:00"
    with pytest.raises(ConfigError, match=f"leaves nothing {side} it.*{span}"):
        cut_at(data, moment)


@pytest.mark.parametrize("moment", ["last week", "", "2000-13-01", None, True, 1.5, [2000]])
def test_what_is_no_moment_is_refused(build: Build, moment: object) -> None:
    data = build([("a", "x", 1), ("a", "y", 4)])
    with pytest.raises(ConfigError, match="a date such as '2000-12-01', got"):
        cut_at(data, moment)  # type: ignore[arg-type]


def test_users_without_a_past_are_not_seen(build: Build) -> None:
    data = build([("b", "x", 1), ("b", "y", 2), ("a", "x", 10)])
    assert TimeSplit(data, t0=10).seen_users.tolist() == [2]
    assert TimeSplit(data, t0=11).seen_users.tolist() == [1, 2]
    assert TimeSplit(data, t0=1).seen_users.tolist() == []
