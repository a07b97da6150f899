"""RecDataset: validated users, items and interactions in one integer id space."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from usermirror_gym.errors import DataError, UnknownNameError
from usermirror_gym.types import (
    AVAILABLE_FROM,
    FRIEND_ID,
    ITEM_ID,
    RATING,
    TIMESTAMP,
    TITLE,
    TOKEN,
    USER_ID,
    BoolArray,
    IntArray,
)

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
class Impressions:
    """N shown lists of any lengths, ordered by time, then user.

    Row ``i`` showed ``items[offsets[i]:offsets[i + 1]]`` in that order.
    """

    names: np.ndarray  # (N,) str, the id in the raw log
    user_ids: IntArray  # (N,)
    timestamps: IntArray  # (N,) seconds
    offsets: IntArray  # (N + 1,)
    items: IntArray  # (total,) item ids
    clicked: BoolArray  # (total,)

    def __len__(self) -> int:
        return len(self.user_ids)

    def row(self, index: int) -> tuple[IntArray, BoolArray]:
        """Items shown and which of them were clicked."""
        span = slice(self.offsets[index], self.offsets[index + 1])
        return self.items[span], self.clicked[span]


@dataclass(frozen=True)
class RecDataset:
    """Users, items and interactions.  Ids are 1..n; 0 is padding and has no row.

    Attributes:
        name: for example ``"ml-100k"``.
        domain: chooses the text of items and profiles (``"movie"``).
        users: indexed by ``user_id``; column ``token`` (id in the raw log) and profile features.
        items: indexed by ``item_id``; columns ``token``, ``title`` and item features.  The column
            ``available_from`` (nullable integer seconds), if there is one, is when an item was
            published.
        interactions: ``user_id, item_id, timestamp`` (int64 seconds), ``rating`` (float64), then
            what else is known of the behaviour (hours played, a review ...), as given; sorted by
            time, equal times by user, then item.
        repairs: what was repaired on the way in.
        impressions: the lists that were really shown, where the log has them.
        friends: ``user_id, friend_id``, one row per direction, where the log has them.
        template: the words of this data set's own domain, as in ``configs/domains/*.yaml``;
            without it those of ``domain`` are used.
    """

    name: str
    domain: str
    users: pd.DataFrame
    items: pd.DataFrame
    interactions: pd.DataFrame
    repairs: tuple[Repair, ...] = field(default=())
    impressions: Impressions | None = None
    friends: pd.DataFrame | None = None
    template: dict[str, Any] | None = None

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

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits of all that the data say: another log has others."""
        shown = self.impressions
        content = hashlib.sha256(
            repr((self.domain, self.template)).encode("utf-8", "surrogatepass")
        )
        for table in (self.users, self.items, self.interactions, self.friends):
            content.update(b"-" if table is None else _table_digest(table))
        if shown is not None:
            for column in ("user_ids", "timestamps", "offsets", "items", "clicked"):
                content.update(np.ascontiguousarray(getattr(shown, column)).tobytes())
        return content.hexdigest()[:16]

    @classmethod
    def from_tables(
        cls,
        name: str,
        domain: str,
        *,
        users: pd.DataFrame,
        items: pd.DataFrame,
        interactions: pd.DataFrame,
        impressions: pd.DataFrame | None = None,
        friends: pd.DataFrame | None = None,
        template: dict[str, Any] | None = None,
        repairs: tuple[Repair, ...] = (),
        bad_rows: BadRows = "repair",
    ) -> RecDataset:
        """Build a data set from raw tables, whose ids may be any strings or numbers.

        Args:
            users: column ``user_id`` and any profile features.
            items: columns ``item_id``, ``title`` and any item features.
            interactions: columns ``user_id, item_id, timestamp``, optionally ``rating``, and any
                others, which are kept.
            impressions: columns ``user_id, timestamp``, ``shown`` (a sequence of item ids in the
                order shown), ``clicked`` (a sequence of bool of the same length), and optionally
                ``impression_id``.
            friends: columns ``user_id, friend_id``.
            template: see the class.
            repairs: what a reader repaired or skipped before.
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
        log = _RepairLog(bad_rows, list(repairs))
        users = _index(users, USER_ID, "users")
        items = _index(items, ITEM_ID, "items")
        items = _mend_availability(_mend_titles(items, log), log)
        events = _clean_events(interactions, users, items, log)
        if events.empty:
            raise DataError(
                f"data set {name!r}: none of the {len(interactions)} interactions is usable. "
                f"{'; '.join(map(str, log.repairs)) or 'The table is empty'}."
            )
        lists = None if impressions is None else _impressions(impressions, users, items, log)
        pairs = None if friends is None else _friends(friends, users, log)
        return cls(name, domain, users, items, events, tuple(log.repairs), lists, pairs, template)


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


def _mend_availability(items: pd.DataFrame, log: _RepairLog) -> pd.DataFrame:
    if AVAILABLE_FROM not in items:
        return items
    times = pd.to_numeric(items[AVAILABLE_FROM], errors="coerce")
    # Films are older than 1970: only the upper bound is a sign of another unit.
    bad = items[AVAILABLE_FROM].notna() & ~times.le(MAX_TIMESTAMP)
    log.note("bad publication time, left empty", items.loc[bad, TOKEN])
    return items.assign(**{AVAILABLE_FROM: times.mask(bad).round().astype("Int64")})


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
    events = events.astype({RATING: np.float64})
    further = raw.drop(columns=[c for c in events.columns if c in raw]).loc[events.index]
    return pd.concat([events, further], axis=1).sort_values(
        [TIMESTAMP, USER_ID, ITEM_ID], kind="stable", ignore_index=True
    )


def _impressions(
    raw: pd.DataFrame, users: pd.DataFrame, items: pd.DataFrame, log: _RepairLog
) -> Impressions:
    _require(raw, (USER_ID, TIMESTAMP, "shown", "clicked"), "impressions")
    raw = raw.reset_index(drop=True)
    user_ids = _to_ids(raw[USER_ID], users)
    times = pd.to_numeric(raw[TIMESTAMP], errors="coerce")
    good_time = times.ge(0) & times.le(MAX_TIMESTAMP)
    log.note("list shown to an unknown user, dropped", raw.loc[user_ids.isna(), USER_ID])
    log.note(
        "list with a bad timestamp, dropped", raw.loc[user_ids.notna() & ~good_time, TIMESTAMP]
    )
    sizes, clicks = raw["shown"].map(len), raw["clicked"].map(len)
    if (sizes != clicks).any():
        row = int(np.flatnonzero(sizes != clicks)[0])
        raise DataError(
            f"table 'impressions', row {row} (counted from 0): {sizes[row]} items shown, but "
            f"{clicks[row]} values in 'clicked'"
        )
    names = raw["impression_id"] if "impression_id" in raw else pd.Series(raw.index)
    flat = pd.DataFrame(
        {
            "row": np.repeat(raw.index.to_numpy(), sizes),
            "token": [token for shown in raw["shown"] for token in shown],
            "clicked": np.array([bool(c) for row in raw["clicked"] for c in row], np.bool_),
        }
    )
    flat[ITEM_ID] = _to_ids(flat["token"], items)
    unknown = flat[ITEM_ID].isna()
    log.note("item shown that is not in the catalog, its list dropped", flat.loc[unknown, "token"])
    twice = flat.duplicated(["row", "token"])
    log.note("item shown twice in one list, its list dropped", flat.loc[twice & ~unknown, "token"])
    broken = set(flat.loc[unknown | twice, "row"])
    empty = sizes == 0
    log.note("empty list, dropped", names[empty].astype(str))
    keep = (user_ids.notna() & good_time & ~empty & ~raw.index.isin(list(broken))).to_numpy()
    order = np.flatnonzero(keep)[np.lexsort((user_ids[keep], times[keep]))]
    place = np.empty(len(raw), np.int64)
    place[order] = np.arange(len(order))
    flat = flat[keep[flat["row"].to_numpy()]]
    flat = flat.iloc[np.argsort(place[flat["row"].to_numpy()], kind="stable")]
    return Impressions(
        names=names.iloc[order].astype(str).to_numpy(object),
        user_ids=user_ids.iloc[order].to_numpy(np.int64),
        timestamps=times.iloc[order].to_numpy(np.int64),
        offsets=np.r_[0, np.cumsum(sizes.iloc[order])].astype(np.int64),
        items=flat[ITEM_ID].to_numpy(np.int64),
        clicked=flat["clicked"].to_numpy(np.bool_),
    )


def _friends(raw: pd.DataFrame, users: pd.DataFrame, log: _RepairLog) -> pd.DataFrame:
    _require(raw, (USER_ID, FRIEND_ID), "friends")
    pairs = pd.DataFrame({c: _to_ids(raw[c], users) for c in (USER_ID, FRIEND_ID)})
    unknown = pairs.isna().any(axis=1)
    log.note("friend of or to an unknown user, dropped", raw.loc[unknown.to_numpy(), FRIEND_ID])
    pairs = pairs[~unknown].astype(np.int64)
    pairs = pairs[pairs[USER_ID] != pairs[FRIEND_ID]]
    return pairs.drop_duplicates().sort_values([USER_ID, FRIEND_ID], ignore_index=True)


def _to_ids(tokens: pd.Series, table: pd.DataFrame) -> pd.Series:
    ids = pd.Series(table.index.to_numpy(), index=table[TOKEN].to_numpy())
    return _tokens(tokens).map(ids)


def _describe(events: pd.DataFrame) -> pd.Series:
    head = events.head(3)
    text = [f"user {u} item {i} at {t}" for u, i, t, _ in head.itertuples(index=False)]
    return pd.Series(text + [""] * (len(events) - len(head)), dtype=object)


def _table_digest(table: pd.DataFrame) -> bytes:
    content = hashlib.sha256(repr([*table.columns]).encode("utf-8", "surrogatepass"))
    for name in table:
        column = table[name]
        plain = column.dtype.kind in "iufb" if isinstance(column.dtype, np.dtype) else False
        if plain:
            content.update(column.to_numpy().tobytes())
        else:  # lone surrogates among them
            content.update("\0".join(map(str, column)).encode("utf-8", "surrogatepass"))
    return content.digest()
