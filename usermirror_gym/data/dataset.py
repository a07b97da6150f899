"""RecDataset: validated users, items and interactions in one integer id space."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import pandas as pd

from usermirror_gym.errors import DataError, UnknownNameError
from usermirror_gym.types import ITEM_ID, RATING, TIMESTAMP, TITLE, TOKEN, USER_ID, IntArray

BadRows = Literal["repair", "raise"]
# Later than any real log and earlier than timestamps in milliseconds would be.
MAX_TIMESTAMP = 4_102_444_800  # 2100-01-01


@dataclass(frozen=True)
class Repair:
    """One kind of row that was repaired or dropped, how often, and a few examples."""

    kind: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind}: {self.count} (e.g. {', '.join(self.examples)})"


@dataclass(frozen=True)
class RecDataset:
    """Users, items and interactions.  Ids are 1..n; 0 is padding and has no row.

    Attributes:
        name: for example ``"ml-100k"``.
        domain: chooses the text of items and profiles (``"movie"``).
        users: indexed by ``user_id``; column ``token`` (id in the raw log) and profile features.
        items: indexed by ``item_id``; columns ``token``, ``title`` and item features.
        interactions: ``user_id, item_id, timestamp`` (int64 seconds), ``rating`` (float64),
            sorted by time; equal times are ordered by user, then item.
        repairs: what was repaired on the way in.
    """

    name: str
    domain: str
    users: pd.DataFrame
    items: pd.DataFrame
    interactions: pd.DataFrame
    repairs: tuple[Repair, ...] = field(default=())

    @property
    def n_users(self) -> int:
        return len(self.users)

    @property
    def n_items(self) -> int:
        return len(self.items)

    @cached_property
    def titles(self) -> list[str]:
        """Title by item id; position 0 (padding) is empty."""
        return ["", *self.items[TITLE].tolist()]

    @classmethod
    def from_tables(
        cls,
        name: str,
        domain: str,
        *,
        users: pd.DataFrame,
        items: pd.DataFrame,
        interactions: pd.DataFrame,
        bad_rows: BadRows = "repair",
    ) -> RecDataset:
        """Build a data set from raw tables, whose ids may be any strings or numbers.

        Args:
            users: column ``user_id`` and any profile features.
            items: columns ``item_id``, ``title`` and any item features.
            interactions: columns ``user_id, item_id, timestamp`` and optionally ``rating``.
            bad_rows: ``"repair"`` drops or mends bad rows and counts them in ``repairs``;
                ``"raise"`` makes the first kind found an error.

        Raises:
            DataError: a column is missing, ids in ``users`` / ``items`` are empty or not unique,
                nothing is left, or ``bad_rows="raise"`` and a bad row was found.
            UnknownNameError: ``bad_rows`` is neither of the two.
        """
        if bad_rows not in get_args(BadRows):
            raise UnknownNameError("bad_rows", bad_rows, get_args(BadRows))
        _require(users, (USER_ID,), "users")
        _require(items, (ITEM_ID, TITLE), "items")
        _require(interactions, (USER_ID, ITEM_ID, TIMESTAMP), "interactions")
        log = _RepairLog(bad_rows)
        users = _index(users, USER_ID, "users")
        items = _index(items, ITEM_ID, "items")
        items = _mend_titles(items, log)
        events = _clean_events(interactions, users, items, log)
        if events.empty:
            raise DataError(
                f"data set {name!r}: none of the {len(interactions)} interactions is usable. "
                f"{'; '.join(map(str, log.repairs)) or 'The table is empty'}."
            )
        return cls(name, domain, users, items, events, tuple(log.repairs))


@dataclass
class _RepairLog:
    bad_rows: BadRows
    repairs: list[Repair] = field(default_factory=list)

    def note(self, kind: str, values: pd.Series) -> None:
        if values.empty:
            return
        repair = Repair(kind, len(values), tuple(str(v) for v in values.iloc[:3]))
        if self.bad_rows == "raise":
            raise DataError(f"{repair}. Mend the raw data, or pass bad_rows='repair'.")
        self.repairs.append(repair)


def _require(table: pd.DataFrame, columns: tuple[str, ...], what: str) -> None:
    missing = [c for c in columns if c not in table.columns]
    if missing:
        have = list(map(str, table.columns))
        raise DataError(f"table {what!r} lacks the column(s) {missing}; it has {have}")


def _index(table: pd.DataFrame, key: str, what: str) -> pd.DataFrame:
    """Number the rows 1..n in the given order; the raw id becomes the column ``token``."""
    tokens = _tokens(table[key])
    if tokens.isna().any():
        row = int(np.flatnonzero(tokens.isna())[0])
        raise DataError(f"table {what!r} has no {key} in row {row} (counted from 0)")
    twice = tokens[tokens.duplicated()]
    if not twice.empty:
        raise DataError(f"table {what!r} has the same {key} twice: {twice.iloc[0]!r}")
    numbered = table.drop(columns=key).reset_index(drop=True)
    numbered.insert(0, TOKEN, tokens.to_numpy())
    numbered.index = pd.RangeIndex(1, len(table) + 1, name=key)
    return numbered


def _tokens(ids: pd.Series) -> pd.Series:
    """Raw ids as strings; a gap in a column of integers must not turn 7 into "7.0"."""
    if pd.api.types.is_float_dtype(ids) and (ids.dropna() % 1 == 0).all():
        ids = ids.astype("Int64")
    return ids.astype("string").astype(object)


def _mend_titles(items: pd.DataFrame, log: _RepairLog) -> pd.DataFrame:
    titles = items[TITLE].astype("string").fillna("").str.strip()
    empty = titles == ""
    log.note("empty title, named after its id", items.loc[empty, TOKEN])
    titles = titles.mask(empty, "untitled " + items[TOKEN].astype("string"))
    return items.assign(**{TITLE: titles.astype(object)})


def _clean_events(
    raw: pd.DataFrame, users: pd.DataFrame, items: pd.DataFrame, log: _RepairLog
) -> pd.DataFrame:
    events = pd.DataFrame(
        {
            USER_ID: _to_ids(raw[USER_ID], users),
            ITEM_ID: _to_ids(raw[ITEM_ID], items),
            TIMESTAMP: pd.to_numeric(raw[TIMESTAMP], errors="coerce"),
            RATING: pd.to_numeric(raw[RATING], errors="coerce") if RATING in raw else np.nan,
        }
    ).reset_index(drop=True)
    raw = raw.reset_index(drop=True)
    keep = pd.Series(True, index=events.index)
    for column, what in ((USER_ID, "user"), (ITEM_ID, "item")):
        unknown = events[column].isna()
        log.note(f"event of an unknown {what}, dropped", raw.loc[unknown & keep, column])
        keep &= ~unknown
    times = events[TIMESTAMP]
    bad_time = ~(times.ge(0) & times.le(MAX_TIMESTAMP))
    log.note(
        "bad timestamp (not seconds between 1970 and 2100), dropped",
        raw.loc[bad_time & keep, TIMESTAMP],
    )
    keep &= ~bad_time
    events = events[keep].astype({USER_ID: np.int64, ITEM_ID: np.int64, TIMESTAMP: np.int64})
    twice = events.duplicated([USER_ID, ITEM_ID, TIMESTAMP])
    log.note("duplicate event, kept once", _describe(events[twice]))
    events = events[~twice]
    if RATING in raw:
        given = raw.loc[events.index, RATING]
        log.note(
            "rating that is not a number, left empty", given[events[RATING].isna() & given.notna()]
        )
    return events.sort_values(
        [TIMESTAMP, USER_ID, ITEM_ID], kind="stable", ignore_index=True
    ).astype({RATING: np.float64})


def _to_ids(tokens: pd.Series, table: pd.DataFrame) -> pd.Series:
    ids = pd.Series(table.index.to_numpy(), index=table[TOKEN].to_numpy())
    return _tokens(tokens).map(ids)


def _describe(events: pd.DataFrame) -> pd.Series:
    head = events.head(3)
    text = [f"user {u} item {i} at {t}" for u, i, t, _ in head.itertuples(index=False)]
    return pd.Series(text + [""] * (len(events) - len(head)), dtype=object)


def count_per_item(events: pd.DataFrame, n_items: int) -> IntArray:
    """Number of interactions by item id, shape ``(n_items + 1,)``; entry 0 (padding) is 0."""
    return np.bincount(events[ITEM_ID].to_numpy(), minlength=n_items + 1).astype(np.int64)
