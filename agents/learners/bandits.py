"""Linear contextual bandits over item factors: LinUCB and Thompson sampling."""

from __future__ import annotations

import numpy as np
from pydantic import NonNegativeFloat, PositiveFloat

from usermirror_gym.agents.base import Transition
from usermirror_gym.agents.learners.item_space import newest_items
from usermirror_gym.agents.learners.learning import LearningAgent
from usermirror_gym.agents.ranking import hashed_words
from usermirror_gym.agents.saved import Arrays
from usermirror_gym.configs.settings import Positive, Settings
from usermirror_gym.types import Float32Array, FloatArray, IntArray, Observation


class BanditSettings(Settings):
    """Of both bandits."""

    d: Positive = 64
    """Item factors."""
    width: NonNegativeFloat = 0.3
    """LinUCB: standard deviations of the bonus (alpha).  Thompson: of the draw (v)."""
    ridge: PositiveFloat = 1.0
    """Precision of the prior."""
    half_life: PositiveFloat = 10.0
    """After so many later items a line of the history counts half."""
    history: Positive = 30
    """Newest items of the history that count."""


class _LinearBandit(LearningAgent):
    """Ridge regression of what a shown item earned on what user and item have in common.

    One model for all users and items, learned online from every shown item (the reward for the
    chosen one, 0 for the others).  Features of user s and item i: ``taste(s) * factors(i)`` one by
    one, the item's popularity, and 1; taste is the mean of the factors of the newest items,
    weighted by recency.  Before any feedback the prior believes in the sum of the products, which
    is item-kNN.  A batch of N users is one update: precision += X'X, moment += X'y.
    """

    settings_type = BanditSettings
    settings: BanditSettings

    def _begin(self) -> None:
        d, self.updates = self.space.d, 0
        self.precision: FloatArray = np.eye(d + 2) * self.settings.ridge
        prior = np.r_[np.full(d, 1.0 / d), 0.0, 0.0]
        self.moment: FloatArray = self.precision @ prior
        self._solve()

    def _solve(self) -> None:
        inverse = np.linalg.inv(self.precision)
        self._covariance = (inverse + inverse.T) / 2
        self._mean = self._covariance @ self.moment
        # half @ half.T is the covariance: its rows turn standard normal numbers into a draw.
        self._half = np.linalg.cholesky(self._covariance)

    def _observe(self, transition: Transition) -> None:
        x = self._features(transition.observations, transition.slates)
        x = x.reshape(-1, x.shape[-1])
        k = transition.slates.shape[1]
        chosen = transition.choices[:, None] == np.arange(k)
        earned = (chosen * transition.rewards[:, None]).reshape(-1)
        there = transition.slates.reshape(-1) > 0
        x, earned = x[there], earned[there]
        self.precision = self.precision + x.T @ x
        self.moment = self.moment + x.T @ earned
        self._solve()
        self.updates += 1

    def _tastes(self, observations: Observation) -> Float32Array:
        """``(N, d)``."""
        newest = newest_items(observations, self.settings.history)
        weights = 0.5 ** (np.arange(newest.shape[1]) / self.settings.half_life) * (newest > 0)
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
        tastes = np.einsum("nl,nld->nd", weights, self.space.factors[newest])
        return (tastes * self.space.d**0.5).astype(np.float32)

    def _features(self, observations: Observation, items: IntArray) -> FloatArray:
        """``(N, K, d + 2)``."""
        products = self._tastes(observations)[:, None] * self.space.factors[items]
        popularity = self.space.popularity[items][..., None]
        return np.concatenate([products, popularity, np.ones_like(popularity)], axis=2)

    def _linear(self, tastes: Float32Array, weights: FloatArray) -> FloatArray:
        """``(N, n_items + 1)`` for weights ``(d + 2,)`` or, one per row, ``(N, d + 2)``."""
        d = self.space.d
        weights = np.broadcast_to(weights, (len(tastes), d + 2))
        scores = (tastes * weights[:, :d]) @ self.space.factors.T
        return scores + weights[:, d : d + 1] * self.space.popularity + weights[:, d + 1 :]

    def _policy_arrays(self) -> Arrays:
        return {
            "precision": self.precision,
            "moment": self.moment,
            "updates": np.array(self.updates),
        }

    def _take_policy(self, arrays: Arrays) -> None:
        self.precision, self.moment = arrays["precision"], arrays["moment"]
        self.updates = int(arrays["updates"])
        self._solve()


class LinUCBAgent(_LinearBandit):
    """LinUCB with one shared linear model (Li et al., WWW 2010, algorithm 1 with shared arms).

    The slate are the items of the largest ``mean + width * standard deviation``; without
    ``explore`` of the largest mean.  It learns only if somebody calls :meth:`observe`, which
    benchmarks do not: there an untrained one stays item-kNN on factors.
    """

    kind = "LinUCB"

    def _scores(self, observations: Observation, k: int) -> FloatArray:
        tastes = self._tastes(observations)
        scores = self._linear(tastes, self._mean)
        if not self.explore or self.settings.width == 0:
            return scores
        return scores + self.settings.width * np.sqrt(self._variance(tastes))

    def _variance(self, tastes: Float32Array) -> FloatArray:
        """``(N, n_items + 1)``: x' covariance x is the squared length of ``half' x``."""
        d, space = self.space.d, self.space
        own = np.column_stack([space.popularity, np.ones_like(space.popularity)])
        fixed = (own @ self._half[d:]).astype(np.float32)  # (n_items + 1, d + 2)
        half = self._half[:d].astype(np.float32)
        rows = [((space.factors * taste) @ half + fixed) for taste in tastes]
        return np.stack([np.einsum("ij,ij->i", row, row) for row in rows])


class ThompsonAgent(_LinearBandit):
    """Linear Thompson sampling (Agrawal & Goyal, ICML 2013).

    Every row draws weights of its own from the posterior and shows the items that are best under
    them.  The draw is a hash of (seed, updates so far, user, turns, history length), so that
    :meth:`recommend` stays a pure function; without ``explore`` the mean takes its place.  What is
    said of :meth:`observe` in :class:`LinUCBAgent` holds here too.
    """

    kind = "Thompson"

    def _scores(self, observations: Observation, k: int) -> FloatArray:
        tastes = self._tastes(observations)
        if not self.explore or self.settings.width == 0:
            return self._linear(tastes, self._mean)
        draws = self._normal(observations) @ self._half.T
        return self._linear(tastes, self._mean + self.settings.width * draws)

    def _normal(self, observations: Observation) -> FloatArray:
        """``(N, d + 2)`` standard normal numbers."""
        words = hashed_words(observations, self.seed, self.updates)
        return np.stack([np.random.default_rng(int(w)).standard_normal(self.space.d + 2)
                         for w in words])  # fmt: skip
