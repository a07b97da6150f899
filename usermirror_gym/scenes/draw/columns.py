"""Many scenes as arrays, between drawing them and writing them down, and the log behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from usermirror_gym.data import RecDataset
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.types import (
    ITEM_ID,
    PAD,
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


@dataclass(frozen=True)
class SceneColumns:
    """B scenes of one data set.

    Attributes:
        user_ids, timestamps: ``(B,)`` who chose, and when.
        first_lines, lines: ``(B,)`` the stretch of the timeline that is the memory.
        slates: ``(B, K)`` lists as shown, padded with 0 at the end.
        origins: ``(B, K)`` where each option comes from
            (positions in :data:`~usermirror_gym.scenes.draw.exposure.ORIGINS`).
        targets: ``(B,)`` position of the choice; the length of the list for *none of these*.
        items: ``(B,)`` the item that was chosen; 0: nothing.
        removed: ``(B,)`` whether the chosen item was taken out of the list.
        names: ``(B,)`` names of real impressions, "" for sampled lists.
        timeline: what ``first_lines`` points into.
        dropped: scenes that could not be built, by reason.
    """

    dataset: str
    user_ids: IntArray
    timestamps: IntArray
    first_lines: IntArray
    lines: IntArray
    slates: IntArray
    origins: IntArray
    targets: IntArray
    items: IntArray
    removed: BoolArray
    names: np.ndarray
    timeline: Timeline
    dropped: Counter[str]

    def __len__(self) -> int:
        return len(self.user_ids)

    @property
    def scene_ids(self) -> list[str]:
        """Unique names that the same event has in every build."""
        columns = (self.user_ids, self.items, self.timestamps, self.names, self.removed)
        return [
            f"{self.dataset}/u{user}/i{item}/t{time}"
            + (f"/list {name}" if name else "")
            + ("/removed" if removed else "")
            for user, item, time, name, removed in zip(*(c.tolist() for c in columns), strict=True)
        ]

    def select(self, rows: IntArray | BoolArray, dropped: Mapping[str, int]) -> SceneColumns:
        """Some of the scenes, noting why the others are gone."""
        arrays = {name: getattr(self, name)[rows] for name in _ROWS}
        counts = self.dropped + Counter({k: v for k, v in dropped.items() if v})
        return SceneColumns(self.dataset, **arrays, timeline=self.timeline, dropped=counts)

    @classmethod
    def concatenate(cls, parts: Sequence[SceneColumns]) -> SceneColumns:
        """Parts of one data set, one after the other."""
        width = max(part.slates.shape[1] for part in parts)
        arrays = {
            name: np.concatenate([_widen(getattr(part, name), width) for part in parts])
            for name in _ROWS
        }
        dropped = sum((part.dropped for part in parts), Counter[str]())
        return cls(parts[0].dataset, **arrays, timeline=parts[0].timeline, dropped=dropped)

    def scenes(self) -> list[Scene]:
        """As :class:`Scene`, without behaviours and notes."""
        line, names = self.timeline, self.scene_ids
        spans = [slice(a, a + n) for a, n in zip(self.first_lines, self.lines, strict=True)]
        return [
            Scene(
                user_id=int(self.user_ids[row]),
                history=tuple(line.items[span].tolist()),
                ratings=tuple(line.ratings[span].tolist()),
                ages=tuple((self.timestamps[row] - line.times[span]).tolist()),
                slate=tuple(self.slates[row][self.slates[row] != PAD].tolist()),
                target=int(self.targets[row]),
                name=names[row],
            )
            for row, span in enumerate(spans)
        ]


_ROWS = ("user_ids", "timestamps", "first_lines", "lines", "slates", "origins", "targets", "items",
         "removed", "names")  # fmt: skip


def _widen(array: np.ndarray, width: int) -> np.ndarray:
    if array.ndim == 1 or array.shape[1] == width:
        return array
    # Item ids are padded with 0; origins, which may be 0, are read only where there is an item.
    return np.pad(array, ((0, 0), (0, width - array.shape[1])))
