"""All interactions of a log, user by user, in the order of time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from usermirror_gym.data import RecDataset
from usermirror_gym.types import (
    ITEM_ID,
    RATING,
    TIMESTAMP,
    UNDATED,
    USER_ID,
    BoolArray,
    FloatArray,
    IntArray,
)


@dataclass(frozen=True)
class Timeline:
    """N interactions sorted by user, then time; those of user u are ``offsets[u]:offsets[u + 1]``.

    Attributes:
        rows: ``(N,)`` position in ``dataset.interactions``.
        earlier: ``(N,)`` how many interactions of the same user are strictly earlier: events of
            one second are one visit, and only what came before it is memory.
        dated: ``(N,)`` whether the time is known.
        first_touch: ``(N,)`` whether the user had not touched the item before.
    """

    offsets: IntArray  # (n_users + 2,)
    rows: IntArray
    users: IntArray
    items: IntArray
    times: IntArray
    ratings: FloatArray
    earlier: IntArray
    dated: BoolArray
    first_touch: BoolArray

    @classmethod
    def of(cls, dataset: RecDataset) -> Timeline:
        """The timeline of a data set, whose interactions are sorted by time."""
        events = dataset.interactions
        rows = np.argsort(events[USER_ID].to_numpy(), kind="stable")
        users, items, times = (
            events[c].to_numpy(np.int64)[rows] for c in (USER_ID, ITEM_ID, TIMESTAMP)
        )
        offsets = np.searchsorted(users, np.arange(dataset.n_users + 2))
        new_visit = np.r_[True, (users[1:] != users[:-1]) | (times[1:] != times[:-1])]
        starts = np.maximum.accumulate(np.where(new_visit, np.arange(len(users)), 0))
        undated = events[UNDATED].to_numpy(bool)[rows] if UNDATED in events else np.zeros(len(rows))
        return cls(
            offsets=offsets.astype(np.int64),
            rows=rows.astype(np.int64),
            users=users,
            items=items,
            times=times,
            ratings=events[RATING].to_numpy(np.float64)[rows],
            earlier=(starts - offsets[users]).astype(np.int64),
            dated=~undated.astype(bool),
            first_touch=~pd.DataFrame({"u": users, "i": items}).duplicated().to_numpy(),
        )

    def earlier_than(self, users: IntArray, times: IntArray) -> IntArray:
        """``(B,)`` how many interactions each user has strictly before the given time."""
        counts = np.empty(len(users), np.int64)
        for row, (user, time) in enumerate(zip(users.tolist(), times.tolist(), strict=True)):
            own = self.times[self.offsets[user] : self.offsets[user + 1]]
            counts[row] = np.searchsorted(own, time)
        return counts


def spans(starts: IntArray, lengths: IntArray) -> tuple[IntArray, IntArray]:
    """Flat positions of B slices, and the row ``0..B-1`` that each belongs to."""
    rows = np.repeat(np.arange(len(starts)), lengths)
    ends = np.cumsum(lengths)
    flat = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    return np.repeat(starts, lengths) + flat, rows
