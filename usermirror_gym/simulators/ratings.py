"""How satisfied the user is with what was chosen: simulated ratings."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from scipy.special import ndtri

from usermirror_gym.data import TimeSplit
from usermirror_gym.types import ITEM_ID, RATING, USER_ID, FloatArray, IntArray


class RatingModel(Protocol):
    """Ratings of chosen items."""

    def sample(self, user_ids: IntArray, items: IntArray, uniforms: FloatArray) -> FloatArray:
        """One rating per row, ``(N,)``; a pure function, ``uniforms`` in [0, 1) is the luck."""
        ...


class BiasRatings:
    """Mean + user bias + item bias + Gaussian residual, rounded to the levels of the log.

    The baseline predictor of Koren, Bell & Volinsky (Matrix Factorization Techniques for
    Recommender Systems, 2009), with biases shrunk towards zero by ``damping`` pseudo-ratings.
    Fitted on ratings before T0 only; users and items without ratings have bias 0.
    """

    def __init__(self, split: TimeSplit, damping: float = 10.0) -> None:
        data = split.dataset
        events = split.before[split.before[RATING].notna()]
        users, items = events[USER_ID].to_numpy(), events[ITEM_ID].to_numpy()
        ratings = events[RATING].to_numpy()
        self.levels = np.unique(ratings)
        self._middles = (self.levels[1:] + self.levels[:-1]) / 2
        self.mean = float(ratings.mean()) if len(ratings) else np.nan
        rest = ratings - self.mean
        self.item_bias = _shrunk_means(items, rest, data.n_items + 1, damping)
        rest = rest - self.item_bias[items]
        self.user_bias = _shrunk_means(users, rest, data.n_users + 1, damping)
        rest = rest - self.user_bias[users]
        self.residual = float(rest.std()) if len(rest) else 0.0

    def expected(self, user_ids: IntArray, items: IntArray) -> FloatArray:
        """Expected rating before rounding; broadcasts."""
        return self.mean + self.user_bias[user_ids] + self.item_bias[items]

    def sample(self, user_ids: IntArray, items: IntArray, uniforms: FloatArray) -> FloatArray:
        if not len(self.levels):  # the log has no ratings
            return np.full(len(items), np.nan)
        value = self.expected(user_ids, items) + self.residual * ndtri(uniforms)
        return self.levels[self._middles.searchsorted(value)]


def _shrunk_means(groups: IntArray, values: FloatArray, n: int, damping: float) -> FloatArray:
    totals = np.bincount(groups, weights=values, minlength=n)
    return totals / (np.bincount(groups, minlength=n) + damping)
