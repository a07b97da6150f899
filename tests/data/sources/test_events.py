"""Two passes over a big log: who is kept, what is counted, how much memory it takes."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usermirror_gym.data.raw.raw_files import ReadLog
from usermirror_gym.data.sources.base import Limits, apply_limits
from usermirror_gym.data.sources.events import Event, EventCheck, Reader, kept_events
from usermirror_gym.errors import DataError

PATH = Path("log.jsonl")


def reader(rows: list[tuple[str, str, int]]) -> Reader:
    def read(log: ReadLog, lines: Container[int] | None) -> Iterator[Event]:
        for line, (user, item, time) in enumerate(rows, start=1):
            if lines is None or line in lines:
                yield Event(line, user, item, time, {})

    return read


ids = st.sampled_from("abcd")
counts = st.integers(0, 4)


@given(
    st.lists(st.tuples(ids, ids), max_size=40),
    counts,
    counts,
    st.none() | counts,
    st.none() | counts,
)
def test_kept_is_what_the_limits_say(
    pairs: list[tuple[str, str]],
    min_user: int,
    min_item: int,
    max_user: int | None,
    max_item: int | None,
) -> None:
    limits = Limits(min_user, max_user, min_item, max_item)
    rows = [(user, item, time) for time, (user, item) in enumerate(pairs)]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    expected = apply_limits(table, limits)["timestamp"].tolist()
    if expected:
        kept = kept_events(reader(rows), limits, PATH, ReadLog("raise"))
        assert [event.time for event in kept] == expected
    else:
        with pytest.raises(DataError, match=f"none of the {len(rows)} usable interactions"):
            list(kept_events(reader(rows), limits, PATH, ReadLog()))


def test_duplicates_are_counted_once_and_do_not_count_for_the_limits() -> None:
    rows = [("a", "x", 5), ("b", "x", 5), ("a", "x", 5), ("a", "x", 9)]
    log = ReadLog()
    kept = kept_events(reader(rows), Limits(min_user=2), PATH, log)
    assert [(e.line, e.user) for e in kept] == [(1, "a"), (4, "a")]
    (repair,) = log.repairs
    assert (repair.kind, repair.examples) == ("duplicate interaction, skipped", ("log.jsonl:3",))


def test_once_keeps_the_earliest_of_a_user_and_an_item() -> None:
    rows = [("a", "x", 9), ("a", "x", 5), ("a", "y", 9), ("a", "x", 5)]
    log = ReadLog()
    kept = kept_events(reader(rows), Limits(), PATH, log, once=True)
    assert [e.line for e in kept] == [2, 3]
    assert log.repairs[0].examples == ("log.jsonl:1", "log.jsonl:4")


def test_nothing_to_keep_names_the_limits() -> None:
    with pytest.raises(DataError, match=r"none of the 1 .* \(Limits\(min_user=7.*Widen them"):
        list(kept_events(reader([("a", "x", 1)]), Limits(min_user=7), PATH, ReadLog()))


@pytest.mark.parametrize(
    ("user", "item", "time", "kind"),
    [
        (None, "x", 1.4e9, "without a user or an item"),
        ("a", None, 1.4e9, "without a user or an item"),
        ("a", "z", 1.4e9, "not in the catalog"),
        ("a", "x", None, "without a readable time"),
        ("a", "x", 1.6e9, "time is not in 2010-2018"),
        ("a", "x", 1.4e12, "time is not in 2010-2018"),
        ("a", "x", -1.0, "time is not in 2010-2018"),
        ("a", "x", float("inf"), "time is not in 2010-2018"),
    ],
)
def test_unusable_rows_are_counted(
    user: str | None, item: str | None, time: float | None, kind: str
) -> None:
    log = ReadLog()
    check = EventCheck(PATH, log, {"x"}, between=(2010, 2018))
    assert check(3, user, item, time, {}) is None
    assert kind in log.repairs[0].kind
    assert log.repairs[0].examples[0].startswith("log.jsonl:3")


def test_the_first_and_the_last_second_of_a_log_are_in_it() -> None:
    check = EventCheck(PATH, ReadLog("raise"), {"x"}, between=(2018, 2018))
    for time in (1514764800, 1546300799):
        event = check(1, "a", "x", time, {})
        assert event is not None
        assert event.time == time
