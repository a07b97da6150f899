"""Many scenes as arrays, between drawing them and writing them down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from usermirror_gym.scenes.draw.timeline import Timeline
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.types import PAD, BoolArray, IntArray


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
