"""What every recommender needs: who has seen what, and the best k of a row of scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import AgentError
from usermirror_gym.scenes.randomness import mix, uniforms
from usermirror_gym.types import ITEM_ID, PAD, USER_ID, BoolArray, FloatArray, IntArray, Observation

_ITEMS = -1  # the stream whose numbers belong to items by their ids


@dataclass(eq=False)
class SeenItems:
    """The items each user had before T0, in compressed rows, joined with an observed history.

    Users that were not there before T0 (any other id) simply have no row.
    """

    indptr: IntArray  # (n_users + 2,)
    items: IntArray  # oldest first within a user
    n_items: int

    @classmethod
    def of(cls, split: TimeSplit) -> Self:
        """Read ``split.before``, which is sorted by time."""
        users, items = (split.before[c].to_numpy() for c in (USER_ID, ITEM_ID))
        return cls.from_events(users, items, split.dataset.n_users, split.dataset.n_items)

    @classmethod
    def from_events(cls, users: IntArray, items: IntArray, n_users: int, n_items: int) -> Self:
        """Events sorted by time, as two arrays of equal length."""
        order = np.argsort(users, kind="stable")
        counts = np.bincount(users, minlength=n_users + 1)
        indptr = np.r_[0, np.cumsum(counts)].astype(np.int64)
        return cls(indptr, items[order].astype(np.int64), n_items)

    def rows(self, user_ids: IntArray) -> tuple[IntArray, IntArray]:
        """``(row, item)`` of every interaction before T0 of the users in the rows, in order."""
        known = np.where((user_ids > 0) & (user_ids < len(self.indptr) - 1), user_ids, 0)
        starts = self.indptr[known]
        counts = self.indptr[known + 1] - starts
        row = np.repeat(np.arange(len(user_ids)), counts)
        within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        return row, self.items[starts[row] + within]

    def mask(self, observations: Observation) -> BoolArray:
        """``(N, n_items + 1)`` true for padding, everything before T0, and the observed history."""
        users = np.asarray(observations["user_id"])
        seen = np.zeros((len(users), self.n_items + 1), bool)
        seen[self.rows(users)] = True
        history = observed_items(observations)
        seen[np.arange(len(users))[:, None], history] = True
        seen[:, PAD] = True
        return seen


def observed_items(observations: Observation) -> IntArray:
    """``(N, H)`` the observed history with everything past its length set to 0."""
    items = np.asarray(observations["history_items"]).astype(np.int64, copy=False)
    lengths = np.asarray(observations["history_length"]).reshape(-1)
    return np.where(np.arange(items.shape[1]) < lengths[:, None], items, PAD)


def top_k(scores: np.ndarray, seen: BoolArray, k: int) -> IntArray:
    """The k best item ids of each row, best first: unseen items, then seen ones if too few remain.

    Args:
        scores: ``(N, n_items + 1)``; ``-inf`` marks what the agent cannot recommend.
        seen: ``(N, n_items + 1)``; column 0 is padding and never an answer.

    Returns:
        ``(N, k)`` int64.  A row depends on that row alone; equal scores go to the smaller id
        among those selected.
    """
    masked = np.where(seen, -np.inf, scores)
    few = np.isfinite(masked).sum(1) < k
    best = np.argpartition(-masked, k - 1, axis=1)[:, :k]
    best.sort(axis=1)
    order = np.argsort(-np.take_along_axis(masked, best, axis=1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1).astype(np.int64)
    for row in np.flatnonzero(few):
        best[row] = _with_seen(scores[row], seen[row], k)
    return best


def _with_seen(scores: np.ndarray, seen: BoolArray, k: int) -> IntArray:
    usable = np.flatnonzero(np.isfinite(scores))
    usable = usable[usable != PAD]
    order = np.lexsort((usable, -scores[usable], seen[usable]))
    return usable[order[:k]].astype(np.int64)


def hashed_words(observations: Observation, *seeds: int) -> np.ndarray:
    """``(N,)`` uint64: a hash of the seeds and of (user, turns, history length) of each row.

    What is drawn from it is the same whatever the batch, and another at every step.
    """
    first, *further = seeds
    rows = np.full(len(observations["user_id"]), first % 2**64, np.uint64)
    for seed in further:
        rows = mix(rows) ^ np.uint64(seed % 2**64)
    for key in ("user_id", "turns", "history_length"):
        rows = mix(rows ^ np.asarray(observations[key]).reshape(-1).astype(np.uint64))
    return rows


def hashed_uniforms(words: np.ndarray, n_items: int) -> FloatArray:
    """``(N, n_items + 1)`` in [0, 1): one number per row and item."""
    return uniforms(words, _ITEMS, n_items + 1)


def hashed_gumbel(words: np.ndarray, n_items: int) -> FloatArray:
    """``(N, n_items + 1)`` Gumbel noise: the k best of scores with it are a draw by their softmax
    without replacement."""
    numbers = np.clip(hashed_uniforms(words, n_items), 1e-12, 1 - 1e-12)
    noise: FloatArray = -np.log(-np.log(numbers))
    return noise


def check_k(name: str, k: int, available: int, why: str = "items exist") -> None:
    """Refuse a slate size that cannot be filled.

    Raises:
        AgentError: ``k`` is below 1 or above ``available``.
    """
    if not 1 <= k <= available:
        raise AgentError(
            f"{name} was asked for k = {k} items, but {available} {why}; use 1 <= k <= {available}"
        )


def not_fitted(name: str) -> AgentError:
    """The error for an agent that is used before :meth:`fit`."""
    return AgentError(f"{name} is not fitted; call agent.fit(split) (or load a saved one) first")
