"""Upper bound: an agent that asks the simulated user itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from usermirror_gym.agents.base import Agent, Transition
from usermirror_gym.agents.ranking import check_k, not_fitted, observed_items
from usermirror_gym.agents.simple import PopAgent
from usermirror_gym.data import Memory, TimeSplit
from usermirror_gym.errors import ConfigError
from usermirror_gym.scenes import SceneBatch
from usermirror_gym.simulators.base import UserSimulator
from usermirror_gym.types import PAD, FloatArray, IntArray, Observation


@dataclass(eq=False)
class OracleAgent:
    """Shows the k of a candidate set that the simulator finds most probable.

    Among agents restricted to the same candidates no one-step policy is clearly better; it costs
    one simulator call for all users and lists.

    Args:
        simulator: the user to be asked.
        candidates: size of the candidate set (at least k is taken).
        source: where candidates come from; default :class:`PopAgent`.  It is fitted by
            :meth:`fit`.
        list_size: the most items per question.  ``None`` asks about all candidates in one list;
            simulators with lettered options take at most 26.  With several lists the candidates
            are dealt out in turn, and items of different lists are compared by their odds against
            *none of these*, which do not depend on the rest of the list under a conditional logit
            (McFadden 1974); where *none of these* has no probability, by the probability itself.
    """

    simulator: UserSimulator
    candidates: int = 50
    source: Agent = field(default_factory=PopAgent)
    list_size: int | None = field(default=None, kw_only=True)
    _n_items: int | None = field(default=None, init=False)
    name = "Oracle"

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ConfigError(f"candidates must be at least 1, got {self.candidates}")
        if self.list_size is not None and self.list_size < 1:
            raise ConfigError(f"list_size must be at least 1 or None, got {self.list_size}")

    def fit(self, data: TimeSplit) -> Self:
        """Fit the source of candidates."""
        self.source.fit(data)
        self._n_items = data.dataset.n_items
        return self

    def observe(self, transition: Transition) -> None:
        """Passed on to the source of candidates."""
        self.source.observe(transition)

    def recommend(self, observations: Observation, k: int) -> IntArray:
        """See :class:`usermirror_gym.agents.Agent`."""
        if self._n_items is None:
            raise not_fitted(self.name)
        check_k(self.name, k, self._n_items)
        wanted = min(max(self.candidates, k), self._n_items)
        items = self.source.recommend(observations, wanted)
        utility = self._utility(observations, items)
        order = np.argsort(-utility, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(items, order, axis=1)

    def _utility(self, observations: Observation, items: IntArray) -> FloatArray:
        """``(N, C)`` log-odds against *none of these*, or log-probabilities without it."""
        n, c = items.shape
        lists = 1 if self.list_size is None else -(-c // self.list_size)
        width = -(-c // lists)
        slates = np.zeros((n, width * lists), np.int64)
        slates[:, :c] = items
        # Deal in turn: list j gets candidates j, j + lists, ..., so that no list is all strong.
        dealt = slates.reshape(n, width, lists).transpose(0, 2, 1).reshape(n * lists, width)
        probs = self.simulator.choose(_scenes(observations, dealt, lists)).probs
        none = np.broadcast_to(probs[:, -1:], (n * lists, width))
        with np.errstate(divide="ignore"):
            log_p, log_none = np.log(probs[:, :width]), np.log(none)
        log_p, log_none = (
            a.reshape(n, lists, width).transpose(0, 2, 1).reshape(n, -1)[:, :c]
            for a in (log_p, log_none)
        )
        outside = np.isfinite(log_none).all(axis=1, keepdims=True)
        return log_p - np.where(outside, log_none, 0.0)


def _scenes(observations: Observation, slates: IntArray, repeats: int) -> SceneBatch:
    """One scene per row of ``slates``; each observation row is used ``repeats`` times in a row."""
    rows = np.repeat(np.arange(len(observations["user_id"])), repeats)
    history = observed_items(observations)[rows]
    users = np.asarray(observations["user_id"]).astype(np.int64)[rows]
    ratings = np.asarray(observations["history_ratings"]).astype(np.float32)[rows]
    memory = Memory(history, ratings, np.zeros_like(history), (history != PAD).sum(axis=1))
    return SceneBatch.first_lists(users, memory, slates)
