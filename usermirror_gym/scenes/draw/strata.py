"""Popularity strata: items that are about equally popular, and how often each is chosen from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from usermirror_gym.types import FloatArray, IntArray


@dataclass(frozen=True)
class Strata:
    """S groups of items.

    Attributes:
        of_item: ``(n_items + 1,)`` stratum of each item, 0..S-1; -1 for padding.
        order: ``(n_items,)`` item ids, stratum by stratum.
        bounds: ``(S + 1,)`` where each stratum begins in ``order``.
        mass: ``(n_items + 1,)`` running sum of the items' popularity in ``order``.
        cumulative: ``(S,)`` running share of choices that fall into the strata.
    """

    of_item: IntArray
    order: IntArray
    bounds: IntArray
    mass: FloatArray
    cumulative: FloatArray

    @classmethod
    def single(cls, popularity: IntArray) -> Strata:
        """All items in one stratum: lists that are not balanced."""
        of_item = np.zeros(len(popularity), np.int64)
        return cls._of(of_item, popularity, np.ones(1))

    @classmethod
    def balanced(cls, popularity: IntArray, chosen: IntArray, n: int = 10) -> Strata:
        """Up to ``n`` strata with about equally many choices each.

        Equally popular items stay together, and items without interactions are a stratum of
        their own.

        Args:
            popularity: ``(n_items + 1,)`` interactions before T0.
            chosen: item ids of the choices that lists are built around.
        """
        chosen_counts = np.bincount(chosen, minlength=len(popularity))
        levels, level_of_item = np.unique(popularity[1:], return_inverse=True)
        weight = np.bincount(level_of_item, chosen_counts[1:], minlength=len(levels))
        middle = (np.cumsum(weight) - weight / 2) / weight.sum()
        group = np.minimum((middle * n).astype(np.int64), n - 1) + 1
        group[levels == 0] = 0
        _, group = np.unique(group, return_inverse=True)
        shares = np.bincount(group, weight) / weight.sum()
        return cls._of(np.r_[0, group[level_of_item]], popularity, shares)

    @classmethod
    def _of(cls, of_item: IntArray, popularity: IntArray, shares: FloatArray) -> Strata:
        of_item = of_item.astype(np.int64)
        of_item[0] = -1
        order = 1 + np.argsort(of_item[1:], kind="stable")
        bounds = np.searchsorted(of_item[order], np.arange(len(shares) + 1))
        mass = np.r_[0.0, np.cumsum(popularity[order])]
        return cls(of_item, order, bounds.astype(np.int64), mass, np.cumsum(shares))

    def draw(self, u: FloatArray) -> IntArray:
        """Strata for uniform numbers of any shape, as often as choices fall into them."""
        drawn = np.searchsorted(self.cumulative, u * self.cumulative[-1], side="right")
        return np.minimum(drawn, len(self.cumulative) - 1).astype(np.int64)

    def pick(self, strata: IntArray, u: FloatArray, *, weighted: bool) -> IntArray:
        """An item of each stratum; ``weighted``: in proportion to popularity.

        A stratum without any popularity is drawn from uniformly.

        Args:
            strata: of any shape that broadcasts to that of ``u``.
            u: numbers in [0, 1); the items have their shape.
        """
        low, high = self.bounds[strata], self.bounds[strata + 1]
        flat = low + (u * (high - low)).astype(np.int64)
        if weighted:
            total = self.mass[high] - self.mass[low]
            heavy = np.searchsorted(self.mass, self.mass[low] + u * total, side="right") - 1
            flat = np.where(total > 0, np.clip(heavy, low, high - 1), flat)
        return self.order[np.minimum(flat, high - 1)]
