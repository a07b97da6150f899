"""The lists that were really shown, where a log has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from usermirror_gym.types import BoolArray, IntArray


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

    @classmethod
    def from_arrays(
        cls,
        *,
        names: np.ndarray,
        user_ids: IntArray,
        timestamps: IntArray,
        sizes: IntArray,
        items: IntArray,
        clicked: BoolArray,
    ) -> Impressions:
        """Sort rows (given in any order, ``sizes`` items each) by time, then user."""
        order = np.lexsort((user_ids, timestamps))
        starts = np.concatenate([[0], np.cumsum(sizes)])[:-1]
        offsets = np.concatenate([[0], np.cumsum(sizes[order])]).astype(np.int64)
        flat = np.repeat(starts[order] - offsets[:-1], sizes[order]) + np.arange(offsets[-1])
        return cls(
            names[order], user_ids[order], timestamps[order], offsets, items[flat], clicked[flat]
        )
