"""Interactions of a big file in two passes: count and decide first, then read what is kept."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from usermirror_gym.data.raw.raw_files import ReadLog
from usermirror_gym.data.raw.values import identifier
from usermirror_gym.data.sources.base import Limits, apply_limits
from usermirror_gym.errors import DataError
from usermirror_gym.types import FRIEND_ID, ITEM_ID, TIMESTAMP, USER_ID, IntArray

_LINE = "line"


class Event(NamedTuple):
    """One interaction: where it stands in its file, who, what, when (seconds), and its raw row."""

    line: int
    user: str
    item: str
    time: int
    row: dict[str, Any]


Row = dict[str, Any]
Reader = Callable[[ReadLog, Container[int] | None], Iterator[Event]]
"""Reads the events of one file: all of them, or those of the given lines."""
Values = Mapping[str, Callable[[Event], object]]
"""Columns of interactions, and what they hold for one event."""


class EventCheck:
    """Turns raw values into an :class:`Event`, or notes what is wrong with them.

    Args:
        path: the file of the interactions.
        log: told of every row that is left out.
        items: ids of the catalog.
        between: the log's first and last year; times outside cannot be right.
    """

    def __init__(
        self, path: Path, log: ReadLog, items: Container[str], between: tuple[int, int]
    ) -> None:
        self._path, self._log, self._items = path, log, items
        self._first = datetime.fromisoformat(f"{between[0]}-01-01T00:00+00:00").timestamp()
        self._end = datetime.fromisoformat(f"{between[1] + 1}-01-01T00:00+00:00").timestamp()
        self._span = f"{between[0]}-{between[1]}"

    def __call__(
        self, line: int, user: str | None, item: str | None, time: float | None, row: dict[str, Any]
    ) -> Event | None:
        """The event, or ``None`` if it cannot be used."""
        if user is None or item is None:
            self._skip("interaction without a user or an item, skipped", line, row)
        elif item not in self._items:
            self._skip("interaction with an item that is not in the catalog, skipped", line, item)
        elif time is None:
            self._skip("interaction without a readable time, skipped", line, row)
        elif not self._first <= time < self._end:
            self._skip(f"interaction whose time is not in {self._span}, skipped", line, time)
        else:
            return Event(line, user, item, int(time), row)
        return None

    def _skip(self, kind: str, line: int, value: object) -> None:
        self._log.skip(kind, self._path, line, value)


def kept_events(
    read: Reader, limits: Limits, path: Path, log: ReadLog, *, once: bool = False
) -> Iterator[Event]:
    """The events of the users and items within the limits, in the order of the file.

    The file is read twice; nothing but four numbers a row is held in between.

    Args:
        read: gives the events of ``path``; called once for all and once for the kept lines.
        limits: items are counted first, then users among what is left.
        path: the file, for messages.
        log: what is left out is counted once.
        once: only the first event of a user with an item counts; otherwise only events that are
            also equal in time are duplicates.

    Raises:
        DataError: nothing is within the limits.
    """
    yield from read(log.again(), _kept_lines(read(log, None), limits, path, log, once))


def read_events(
    path: Path,
    log: ReadLog,
    limits: Limits,
    rows: Callable[..., Iterator[tuple[int, Row]]],
    ids: Callable[[Row], tuple[str | None, str | None, float | None]],
    values: Values,
    *,
    items: Container[str],
    between: tuple[int, int],
    once: bool = False,
) -> pd.DataFrame:
    """The :func:`kept_events` of a file of rows: ``user_id, item_id, timestamp`` and ``values``.

    Args:
        rows: reads the file: takes path, log and ``lines=``, the numbers of the lines wanted.
        ids: user, item and time of a row; see :class:`EventCheck` for the rest.
        values: further columns.
    """

    def read(log: ReadLog, lines: Container[int] | None) -> Iterator[Event]:
        check = EventCheck(path, log, items, between)
        events = (check(line, *ids(row), row) for line, row in rows(path, log, lines=lines))
        return (event for event in events if event is not None)

    shared: dict[str, str] = {}
    columns: dict[str, list] = {name: [] for name in (USER_ID, ITEM_ID, TIMESTAMP, *values)}
    for event in kept_events(read, limits, path, log, once=once):
        columns[USER_ID].append(shared.setdefault(event.user, event.user))
        columns[ITEM_ID].append(shared.setdefault(event.item, event.item))
        columns[TIMESTAMP].append(event.time)
        for name, value in values.items():
            columns[name].append(value(event))
    return pd.DataFrame(columns)


def unique_rows(
    rows: Iterable[tuple[int, Row]],
    column: str,
    what: str,
    path: Path,
    log: ReadLog,
    *,
    name: str | None = None,
    key: Callable[[Any], str | None] = identifier,
    alike: bool = False,
) -> Iterator[tuple[int, Row, str]]:
    """Line, row and id of each row with an id of its own, the first of each.

    Args:
        column: of the id, which ``key`` reads.
        what: the rows are, for messages.
        name: the column by which messages call a row without an id.
        alike: rows without an id and rows with that of another one are of one kind.
    """
    seen: set[str] = set()
    for line, row in rows:
        found = key(row.get(column))
        if alike and (found is None or found in seen):
            log.skip(f"{what} without an id of its own, skipped", path, line, row[column])
        elif found is None:
            value = "" if name is None else row.get(name, "")
            log.skip(f"{what} without an id, skipped", path, line, value)
        elif found in seen:
            log.skip(f"{what} listed twice, kept once", path, line, found)
        else:
            seen.add(found)
            yield line, row, found


class _Lines(Container[int]):
    """A set of line numbers, one byte a line."""

    def __init__(self, lines: IntArray) -> None:
        flags = np.zeros(int(lines.max()) + 1, np.bool_)
        flags[lines] = True
        self._flags = flags.tobytes()

    def __contains__(self, line: object) -> bool:
        return isinstance(line, int) and line < len(self._flags) and self._flags[line] == 1


def _kept_lines(
    found: Iterable[Event], limits: Limits, path: Path, log: ReadLog, once: bool
) -> _Lines:
    # Users and items as 64-bit hashes: 32 bytes a row, whatever the ids are.
    columns = {name: array("q") for name in (_LINE, USER_ID, ITEM_ID, TIMESTAMP)}
    lines, users, items, times = columns.values()
    for event in found:
        lines.append(event.line)
        users.append(hash(event.user))
        items.append(hash(event.item))
        times.append(event.time)
    events = pd.DataFrame({name: np.array(column, np.int64) for name, column in columns.items()})
    same = [USER_ID, ITEM_ID] if once else [USER_ID, ITEM_ID, TIMESTAMP]
    again = events.sort_values(TIMESTAMP, kind="stable").duplicated(same).sort_index()
    kind = "second interaction with the same item" if once else "duplicate interaction"
    for line in events[_LINE][again].tolist():
        log.skip(f"{kind}, skipped", path, line)
    usable = events[~again]
    kept = apply_limits(usable, limits)[_LINE].to_numpy()
    if not len(kept):
        raise DataError(
            f"{path}: none of the {len(usable)} usable interactions is within the limits "
            f"({limits}). Widen them."
        )
    return _Lines(kept)


def item_table(
    rows: Iterable[dict[str, Any]], path: Path, *, real: Sequence[str], whole: Sequence[str]
) -> pd.DataFrame:
    """A table of items whose columns have one type even where nothing is known.

    Args:
        rows: one dict an item, with equal keys.
        path: the file they come from, for messages.
        real: columns of numbers.
        whole: columns of integers.

    Raises:
        DataError: there are no rows.
    """
    listed = list(rows)
    if not listed:
        raise DataError(f"{path} holds no usable item. Is it the file as published?")
    types = dict.fromkeys(real, "float64") | dict.fromkeys(whole, "Int64")
    return pd.DataFrame(listed).astype(types)


def kept_items(items: pd.DataFrame, interactions: pd.DataFrame, limits: Limits) -> pd.DataFrame:
    """The items that somebody interacted with, or all of them if ``min_item`` is 0."""
    if limits.min_item == 0:
        return items
    return items[items[ITEM_ID].isin(interactions[ITEM_ID])]


def friend_table(pairs: Iterable[tuple[str, str]], left_out: Collection[str]) -> pd.DataFrame:
    """Columns ``user_id, friend_id``: both directions of each pair, each once.

    Whom the limits leave out is no mistake of the files: nobody is told of their friends.
    """
    both = [pair for user, friend in pairs for pair in ((user, friend), (friend, user))]
    frame = pd.DataFrame(both, columns=[USER_ID, FRIEND_ID], dtype=object).drop_duplicates()
    return frame[~frame.isin(left_out).any(axis=1)]
