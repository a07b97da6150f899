"""Baselines without a model: uniform random and popularity."""

from __future__ import annotations

from typing import Self

import numpy as np

from usermirror_gym.agents.base import Transition
from usermirror_gym.agents.ranking import SeenItems, check_k, not_fitted, top_k
from usermirror_gym.data import TimeSplit
from usermirror_gym.types import IntArray, Observation


class _SimpleAgent:
    """Shared by agents that keep only who has seen what."""

    _name: str
    _seen: SeenItems | None = None

    @property
    def name(self) -> str:
        return self._name

    def observe(self, transition: Transition) -> None:
        """Does nothing: the agent learns from :meth:`fit` alone."""

    def _checked(self, k: int) -> SeenItems:
        if self._seen is None:
            raise not_fitted(self.name)
        check_k(self.name, k, self._seen.n_items)
        return self._seen


class RandomAgent(_SimpleAgent):
    """Uniform among the items that the user has not had.

    The draw is a hash of (seed, user, turns, history length, item), so a row is the same whatever
    the batch, and a user gets another slate at every step.
    """

    _name = "Random"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, data: TimeSplit) -> Self:
        """Remember the number of items and what each user had before T0."""
        self._seen = SeenItems.of(data)
        return self

    def recommend(self, observations: Observation, k: int) -> IntArray:
        """See :class:`usermirror_gym.agents.Agent`."""
        seen = self._checked(k)
        rows = np.zeros(len(observations["user_id"]), np.uint64) + np.uint64(self.seed % 2**64)
        for key in ("user_id", "turns", "history_length"):
            rows = _mix(rows ^ np.asarray(observations[key]).reshape(-1).astype(np.uint64))
        items = _mix(np.arange(seen.n_items + 1, dtype=np.uint64))
        # The upper 53 bits become an exact float64 in [0, 1).
        scores = (_mix(rows[:, None] ^ items) >> np.uint64(11)).astype(np.float64) / 2.0**53
        return top_k(scores, seen.mask(observations), k)


class PopAgent(_SimpleAgent):
    """The most often consumed items before T0 that the user has not had."""

    _name = "Pop"

    def fit(self, data: TimeSplit) -> Self:
        """Count interactions before T0."""
        self._seen = SeenItems.of(data)
        self._scores = data.popularity.astype(np.float64)
        return self

    def recommend(self, observations: Observation, k: int) -> IntArray:
        """See :class:`usermirror_gym.agents.Agent`."""
        seen = self._checked(k).mask(observations)
        return top_k(np.broadcast_to(self._scores, seen.shape), seen, k)


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64 finaliser (Steele, Lea & Flood, OOPSLA 2014): a bijection of 64-bit words."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
