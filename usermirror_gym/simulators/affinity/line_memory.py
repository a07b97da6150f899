"""What a trained head remembers of single lines, beside what it can say of any."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from usermirror_gym.errors import CheckpointError
from usermirror_gym.types import Float32Array, FloatArray


class LineVectors(NamedTuple):
    """What a head makes of n lines."""

    history: FloatArray  # (n, d) as a line of the memory
    option: FloatArray  # (n, d) as an option
    item_bias: FloatArray  # (n,) as an option, whoever looks at it


@dataclass(frozen=True, eq=False)
class LineMemory:
    """Vectors of lines that are known by their text, in ascending order of its digest.

    Attributes:
        digests: ``(n,)`` uint64, see :func:`line_digests`; ascending, each once.
        history: ``(n, e)``.
        option: ``(n, e)``.
        item_bias: ``(n,)``.

    Raises:
        CheckpointError: shapes that do not fit together, or digests out of order.
    """

    digests: np.ndarray
    history: Float32Array
    option: Float32Array
    item_bias: Float32Array

    def __post_init__(self) -> None:
        for name in ("history", "option", "item_bias"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), np.float32))
        n = self.digests.shape
        shapes = [self.history.shape, self.option.shape, self.item_bias.shape]
        fits = all(shape[:1] == n for shape in shapes) and shapes[0] == shapes[1]
        if len(n) != 1 or 0 in n or not fits:
            raise CheckpointError(
                f"what the affinity head remembers has shapes {n} and {shapes}, and must be (n,), "
                "(n, e), (n, e), (n,)"
            )
        if self.digests.dtype != np.uint64 or (np.diff(self.digests.astype(object)) <= 0).any():
            raise CheckpointError(
                "the lines that the affinity head remembers must be ascending uint64 digests"
            )

    @classmethod
    def of(
        cls, lines: Sequence[str], history: FloatArray, option: FloatArray, item_bias: FloatArray
    ) -> LineMemory:
        """Of n lines and their vectors; of lines that read alike the first is kept."""
        digests, rows = np.unique(line_digests(lines), return_index=True)
        kept = (values[rows].astype(np.float32) for values in (history, option, item_bias))
        return cls(digests, *kept)

    @property
    def e(self) -> int:
        """Numbers that are remembered of a line, for each of its two parts."""
        return self.history.shape[1]

    def recall(self, lines: Sequence[str]) -> LineVectors:
        """Of these lines, ``(len(lines), e)`` and ``(len(lines),)``; zeros for unknown ones."""
        digests = line_digests(lines)
        rows = np.minimum(np.searchsorted(self.digests, digests), len(self.digests) - 1)
        known = self.digests[rows] == digests
        held = (np.where(known, values[rows].T, 0.0).T.astype(np.float64)
                for values in (self.history, self.option, self.item_bias))  # fmt: skip
        return LineVectors(*held)


def line_digests(lines: Sequence[str]) -> np.ndarray:
    """``(n,)`` uint64: the first eight bytes of the SHA-256 of each text."""
    whole = b"".join(hashlib.sha256(line.encode()).digest()[:8] for line in lines)
    return np.frombuffer(whole, "<u8").astype(np.uint64)
