"""95 % intervals by resampling users, the same resamples for every agent and metric.

The percentile bootstrap of Efron & Tibshirani (1993, ch. 13) with users as clusters: all episodes
of a drawn user enter together.  A resample is a row of counts, so that the means of every agent
and metric under every resample are two matrix products, and paired differences and rank
correlations are read from the very same resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from usermirror_gym.errors import ConfigError
from usermirror_gym.types import FloatArray, IntArray

# An interval is only given if at least this share of the resamples has a value.
_DEFINED = 0.95


class Interval(NamedTuple):
    """A value and its interval; ``low`` and ``high`` are NaN where none can be given."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero (False without an interval)."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class UserBootstrap:
    """Resamples of the users behind E episodes.

    Attributes:
        user_ids: ``(E,)`` the user of each episode.
        n_resamples: how many; the same ``seed`` draws the same ones.
        confidence: probability content of the intervals.
    """

    user_ids: IntArray
    n_resamples: int = 2000
    seed: int = 0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.n_resamples < 1:
            raise ConfigError(f"n_resamples must be at least 1, got {self.n_resamples!r}")
        if not 0 < self.confidence < 1:
            raise ConfigError(f"confidence must be between 0 and 1, got {self.confidence!r}")

    @cached_property
    def weights(self) -> FloatArray:
        """How often each episode is in each resample, ``(n_resamples, E)``."""
        users, column = np.unique(self.user_ids, return_inverse=True)
        rng = np.random.default_rng(self.seed)
        share = np.full(len(users), 1 / len(users))
        drawn = rng.multinomial(len(users), share, size=self.n_resamples)
        return drawn[:, column].astype(np.float64)

    def means(self, values: FloatArray) -> FloatArray:
        """Mean over episodes under every resample: ``(E, M) -> (n_resamples, M)``.

        NaN values are left out; a resample without any value is NaN.
        """
        known = np.isfinite(values)
        count = self.weights @ known.astype(np.float64)
        total = self.weights @ np.where(known, values, 0.0)
        return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)

    def intervals(self, values: FloatArray) -> list[Interval]:
        """The mean of each column of ``values`` ``(E, M)`` and its interval.

        No interval (NaN) where fewer than two users have a value or all values are equal: such
        data hold no evidence about the spread between users.
        """
        means = self.means(values)
        return [
            self.interval(_mean(column), resampled if self._varies(column) else None)
            for column, resampled in zip(values.T, means.T, strict=True)
        ]

    def interval(self, value: float, resampled: FloatArray | None) -> Interval:
        """``value`` with the percentile interval of its ``(n_resamples,)`` resampled values."""
        if resampled is None or np.isfinite(resampled).mean() < _DEFINED:
            return Interval(value, np.nan, np.nan)
        tail = (1 - self.confidence) / 2
        low, high = np.nanquantile(resampled, [tail, 1 - tail])
        return Interval(value, float(low), float(high))

    def _varies(self, values: FloatArray) -> bool:
        known = np.isfinite(values)
        return bool(
            known.any()
            and len(np.unique(self.user_ids[known])) > 1
            # Episode means of equal steps differ by rounding; that is no variation.
            and np.ptp(values[known]) > 1e-12 * max(1.0, float(np.abs(values[known]).max()))
        )


def drawn_trainings(trainings: int, n_resamples: int, seed: int) -> FloatArray:
    """``(n_resamples, trainings)`` shares of trainings that are drawn anew, beside the users."""
    share = np.full(trainings, 1 / trainings)
    rng = np.random.default_rng([seed, 1])
    return rng.multinomial(trainings, share, size=n_resamples) / trainings


def kendall_tau_b(x: FloatArray, y: FloatArray) -> FloatArray:
    """Kendall's tau-b between ``x`` ``(A,)``, or each row of it ``(R, A)``, and the rows of ``y``
    ``(R, A)``; NaN if constant.

    Vectorised over rows; equal to ``scipy.stats.kendalltau(variant="b")`` row by row.
    """
    left, right = np.triu_indices(x.shape[-1], k=1)
    dx, dy = np.sign(x[..., left] - x[..., right]), np.sign(y[:, left] - y[:, right])
    scale = np.sqrt((dx**2).sum(axis=-1) * (dy**2).sum(axis=1))
    together = (dx * dy).sum(axis=1)
    return np.divide(together, scale, out=np.full(len(y), np.nan), where=scale > 0)


def spearman(x: FloatArray, y: FloatArray) -> FloatArray:
    """Spearman's rank correlation of ``x`` ``(A,)`` with every row of ``y`` ``(R, A)``."""
    rx, ry = rankdata(x), rankdata(y, axis=1)
    rx, ry = rx - rx.mean(), ry - ry.mean(axis=1, keepdims=True)
    scale = np.sqrt((rx**2).sum() * (ry**2).sum(axis=1))
    return np.divide(ry @ rx, scale, out=np.full(len(y), np.nan), where=scale > 0)


def _mean(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
