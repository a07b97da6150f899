"""User-steps that an agent learns from, as columns of equal length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import numpy as np

Columns = dict[str, np.ndarray]


@dataclass
class Experience:
    """Columns, oldest row first; ``iteration`` is the one in which a row was made."""

    columns: Columns = field(default_factory=dict)
    _new: list[Columns] = field(default_factory=list)

    def __len__(self) -> int:
        self._settle()
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def add(self, columns: Columns) -> None:
        """Rows behind those that are there."""
        self._new.append({name: np.array(values) for name, values in columns.items()})

    def arrays(self) -> Columns:
        """All columns, each in one piece."""
        self._settle()
        return self.columns

    def last(self, count: int) -> Self:
        """The newest rows."""
        return self.where(np.arange(len(self)) >= len(self) - count)

    def where(self, mask: np.ndarray) -> Self:
        """Some rows."""
        return type(self)({name: values[mask] for name, values in self.arrays().items()})

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[Columns]:
        """All rows once, in a random order."""
        order = rng.permutation(len(self))
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            yield {name: values[rows] for name, values in self.columns.items()}

    def _settle(self) -> None:
        if self._new:
            pieces = ([self.columns] if self.columns else []) + self._new
            self.columns = {k: np.concatenate([p[k] for p in pieces]) for k in pieces[0]}
            self._new = []
