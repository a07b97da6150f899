"""Baselines without a model: uniform random and popularity."""

from __future__ import annotations

from typing import Self

import numpy as np

from usermirror_gym.agents.base import Transition
from usermirror_gym.agents.ranking import (
    SeenItems,
    check_k,
    hashed_uniforms,
    hashed_words,
    not_fitted,
    top_k,
)
from usermirror_gym.data import TimeSplit
from usermirror_gym.types import FloatArray, IntArray, Observation


class SimpleAgent:
    """Shared by agents that keep only who has seen what."""

    name: str
    _seen: SeenItems | None = None

    def observe(self, transition: Transition) -> None:
        """Does nothing: the agent learns from :meth:`fit` alone."""

    def _checked(self, k: int) -> SeenItems:
        if self._seen is None:
            raise not_fitted(self.name)
        check_k(self.name, k, self._seen.n_items)
        return self._seen


class RandomAgent(SimpleAgent):
    """Uniform among the items that the user has not had.

    The draw is a hash of (seed, user, turns, history length, item), so a row is the same whatever
    the batch, and a user gets another slate at every step.
    """

    name = "Random"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, data: TimeSplit) -> Self:
        """Remember the number of items and what each user had before T0."""
        self._seen = SeenItems.of(data)
        return self

    def recommend(self, observations: Observation, k: int) -> IntArray:
        """See :class:`usermirror_gym.agents.Agent`."""
        seen = self._checked(k)
        scores = hashed_uniforms(hashed_words(observations, self.seed), seen.n_items)
        return top_k(scores, seen.mask(observations), k)


class SameForAll(SimpleAgent):
    """Shared by agents that show everybody the items of the largest scores not had yet."""

    _scores: FloatArray

    def recommend(self, observations: Observation, k: int) -> IntArray:
        """See :class:`usermirror_gym.agents.Agent`."""
        seen = self._checked(k).mask(observations)
        return top_k(np.broadcast_to(self._scores, seen.shape), seen, k)


class PopAgent(SameForAll):
    """The most often consumed items before T0 that the user has not had."""

    name = "Pop"

    def fit(self, data: TimeSplit) -> Self:
        """Count interactions before T0."""
        self._seen = SeenItems.of(data)
        self._scores = data.popularity.astype(np.float64)
        return self

    @classmethod
    def of(cls, popularity: IntArray, seen: SeenItems) -> Self:
        """Fitted already: interactions by item id, and who had what."""
        agent = cls()
        agent._seen, agent._scores = seen, popularity.astype(np.float64)
        return agent
