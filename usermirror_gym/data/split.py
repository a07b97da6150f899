"""The global time cut: everything that learns sees only what is before it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
import pandas as pd

from usermirror_gym.data.dataset import RecDataset
from usermirror_gym.errors import ConfigError
from usermirror_gym.types import (
    ITEM_ID,
    RATING,
    TIMESTAMP,
    UNDATED,
    USER_ID,
    Float32Array,
    IntArray,
)


@dataclass(frozen=True)
class History:
    """The interactions of one user, oldest first; arrays of equal length."""

    items: IntArray
    ratings: np.ndarray
    timestamps: IntArray

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class Memory:
    """The last ``H`` interactions of N users, oldest first, padded with 0 on the right."""

    items: IntArray  # (N, H)
    ratings: Float32Array  # (N, H); NaN where the log has none
    ages: IntArray  # (N, H) seconds between the interaction and ``now``
    lengths: IntArray  # (N,)


@dataclass(frozen=True)
class TimeSplit:
    """A data set cut at ``t0``: ``before`` has timestamps < t0, ``after`` has the rest.

    Agents, popularity, rankers and the simulator's training may only read ``before``.
    """

    dataset: RecDataset
    t0: int

    @cached_property
    def before(self) -> pd.DataFrame:
        return self._events(self.dataset.interactions[TIMESTAMP] < self.t0)

    @cached_property
    def after(self) -> pd.DataFrame:
        return self._events(self.dataset.interactions[TIMESTAMP] >= self.t0)

    @cached_property
    def popularity(self) -> IntArray:
        """Number of interactions before T0 by item id, shape ``(n_items + 1,)``."""
        items = self.before[ITEM_ID].to_numpy()
        return np.bincount(items, minlength=self.dataset.n_items + 1).astype(np.int64)

    @cached_property
    def histories(self) -> dict[int, History]:
        """What each user did before T0, by user id; users without any are absent."""
        columns = [USER_ID, ITEM_ID, RATING, TIMESTAMP]
        events = self.before[columns].sort_values(USER_ID, kind="stable")
        cuts = np.flatnonzero(np.diff(events[USER_ID])) + 1
        parts = zip(*(np.split(events[c].to_numpy(), cuts) for c in columns), strict=True)
        return {int(users[0]): History(*own) for users, *own in parts if len(users)}

    @cached_property
    def seen_users(self) -> IntArray:
        """Ids, ascending, of the users with interactions before T0; shape ``(n,)``."""
        return np.unique(self.before[USER_ID].to_numpy())

    def users_with_history(self, minimum: int) -> IntArray:
        """Ids, ascending, of the users with at least ``minimum`` interactions before T0."""
        users, counts = np.unique(self.before[USER_ID].to_numpy(), return_counts=True)
        return users[counts >= minimum]

    def memory(self, user_ids: IntArray, size: int) -> Memory:
        """The last ``size`` interactions before T0 of the given users, aged relative to T0.

        A user without history has length 0.
        """
        shape = (len(user_ids), size)
        memory = Memory(
            np.zeros(shape, np.int64),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.int64),
            np.zeros(len(user_ids), np.int64),
        )
        for row, user in enumerate(user_ids):
            history = self.histories.get(int(user))
            if history is None:
                continue
            n = min(size, len(history))
            memory.lengths[row] = n
            memory.items[row, :n] = history.items[len(history) - n :]
            memory.ratings[row, :n] = history.ratings[len(history) - n :]
            memory.ages[row, :n] = self.t0 - history.timestamps[len(history) - n :]
        return memory

    def _events(self, mask: pd.Series) -> pd.DataFrame:
        return self.dataset.interactions[mask].reset_index(drop=True)


def time_cut(dataset: RecDataset, fraction: float = 0.8) -> TimeSplit:
    """Cut at the timestamp before which (about) ``fraction`` of the interactions lie.

    Events with the same timestamp always fall on the same side.  Interactions whose time is not
    known (column ``undated``) are not counted: the times that stand for it say nothing.

    Raises:
        ConfigError: ``fraction`` is not strictly between 0 and 1, or one side would be empty.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"fraction must be between 0 and 1, got {fraction!r}")
    times = _dated(dataset)
    t0 = int(times[min(int(np.ceil(len(times) * fraction)), len(times) - 1)])
    if t0 == times[0]:
        raise ConfigError(
            f"a cut at {fraction} leaves nothing before it in {dataset.name!r}: its first "
            f"{int((times == t0).sum())} of {len(times)} events share one timestamp"
        )
    return TimeSplit(dataset, t0)


def cut_at(dataset: RecDataset, t0: int | str) -> TimeSplit:
    """Cut at a given moment: seconds since 1970, or a date such as ``"2000-12-01"``.

    Dates are ISO 8601, with or without a time of day, in UTC unless they name another zone.

    Raises:
        ConfigError: not a moment, or one side would hold no dated interaction; says when the log
            begins and ends.
    """
    seconds = _seconds(t0)
    times = _dated(dataset)
    if not times[0] < seconds <= times[-1]:
        side = "before" if seconds <= times[0] else "after"
        raise ConfigError(
            f"a cut at {t0!r} leaves nothing {side} it in {dataset.name!r}, whose log runs from "
            f"{_date(times[0])} to {_date(times[-1])} (UTC)"
        )
    return TimeSplit(dataset, seconds)


def _dated(dataset: RecDataset) -> IntArray:
    """The known times of interactions, ascending."""
    events = dataset.interactions
    times = events[TIMESTAMP].to_numpy()
    if UNDATED in events:
        times = times[~events[UNDATED].astype("boolean").fillna(False).to_numpy(np.bool_)]
    if len(times) == 0:
        raise ConfigError(f"no interaction of {dataset.name!r} has a known time to cut at")
    return times


def _seconds(moment: int | str) -> int:
    if isinstance(moment, int | np.integer) and not isinstance(moment, bool):
        return int(moment)
    try:
        when = datetime.fromisoformat(str(moment))
    except ValueError as error:
        raise ConfigError(
            f"t0 must be seconds since 1970 or a date such as '2000-12-01', got {moment!r}"
        ) from error
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return math.ceil(when.timestamp())  # timestamps are whole: the same events are before it


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%d %H:%M:%S")
