"""The global time cut: everything that learns sees only what is before it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from usermirror_gym.data.dataset import RecDataset, count_per_item
from usermirror_gym.errors import ConfigError
from usermirror_gym.types import ITEM_ID, RATING, TIMESTAMP, USER_ID, Float32Array, IntArray


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
        return count_per_item(self.before, self.dataset.n_items)

    @cached_property
    def histories(self) -> dict[int, History]:
        """What each user did before T0, by user id; users without any are absent."""
        return histories(self.before)

    def users_with_history(self, minimum: int) -> IntArray:
        """Ids, ascending, of the users with at least ``minimum`` interactions before T0."""
        return np.array(
            sorted(u for u, h in self.histories.items() if len(h) >= minimum), dtype=np.int64
        )

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

    Events with the same timestamp always fall on the same side.

    Raises:
        ConfigError: ``fraction`` is not strictly between 0 and 1, or one side would be empty.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"fraction must be between 0 and 1, got {fraction!r}")
    times = dataset.interactions[TIMESTAMP].to_numpy()
    t0 = int(times[min(int(np.ceil(len(times) * fraction)), len(times) - 1)])
    if t0 == times[0]:
        raise ConfigError(
            f"a cut at {fraction} leaves nothing before it in {dataset.name!r}: its first "
            f"{int((times == t0).sum())} of {len(times)} events share one timestamp"
        )
    return TimeSplit(dataset, t0)


def histories(events: pd.DataFrame) -> dict[int, History]:
    """Group events (sorted by time) into one :class:`History` per user id."""
    if events.empty:
        return {}
    order = np.argsort(events[USER_ID].to_numpy(), kind="stable")
    users = events[USER_ID].to_numpy()[order]
    columns = [events[c].to_numpy()[order] for c in (ITEM_ID, RATING, TIMESTAMP)]
    starts = np.flatnonzero(np.r_[True, users[1:] != users[:-1]])
    ends = [*starts[1:], len(users)]
    return {
        int(users[a]): History(*(c[a:b] for c in columns))
        for a, b in zip(starts, ends, strict=True)
    }
