"""Offline accuracy: do the recommendations at T0 contain what the users really did next?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from usermirror_gym.agents.base import Agent
from usermirror_gym.agents.observations import observations_from_split
from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import ConfigError, DataError
from usermirror_gym.types import ITEM_ID, USER_ID, BoolArray, FloatArray, IntArray

_BATCH = 512


@dataclass(frozen=True)
class OfflineScores:
    """Accuracy of one agent over U users.

    Attributes:
        agent: its name.
        k: length of the recommended list.
        users: ``(U,)`` ids, ascending.
        ndcg: ``(U,)`` NDCG@k with binary relevance (Jarvelin & Kekalainen, TOIS 2002).
        recall: ``(U,)`` share of the user's relevant items that were recommended.
    """

    agent: str
    k: int
    users: IntArray
    ndcg: FloatArray
    recall: FloatArray

    @property
    def mean_ndcg(self) -> float:
        return float(self.ndcg.mean())

    @property
    def mean_recall(self) -> float:
        return float(self.recall.mean())


def offline_scores(
    agent: Agent,
    split: TimeSplit,
    *,
    k: int = 10,
    users: IntArray | None = None,
    history_size: int = 50,
) -> OfflineScores:
    """Rank at T0 for users seen on both sides of the cut, and compare with what came after it.

    Relevant are the items a user had after T0 and never before.

    Args:
        agent: fitted on ``split``.
        users: who is asked; default all that qualify.  Those who do not qualify are left out.
        history_size: how many of their last interactions the observations hold.

    Raises:
        DataError: no user qualifies.
        ConfigError: ``k`` is below 1.
    """
    if k < 1:
        raise ConfigError(f"k must be at least 1, got {k}")
    relevant = _relevant(split)
    if users is not None:
        relevant = {u: r for u in np.unique(users).tolist() if (r := relevant.get(u)) is not None}
    if not relevant:
        raise DataError("no user has interactions before T0 and new items after it; move the cut")
    ids = np.array(sorted(relevant), np.int64)
    shown = np.concatenate(
        [_recommend(agent, split, ids[i : i + _BATCH], k, history_size)
         for i in range(0, len(ids), _BATCH)]
    )  # fmt: skip
    hits = np.array([np.isin(row, relevant[u]) for u, row in zip(ids.tolist(), shown, strict=True)])
    counts = np.array([len(relevant[u]) for u in ids.tolist()])
    return OfflineScores(agent.name, k, ids, ndcg_at_k(hits, counts), recall_at_k(hits, counts))


def ndcg_at_k(hits: BoolArray, n_relevant: IntArray) -> FloatArray:
    """NDCG of U ranked lists.

    Args:
        hits: ``(U, k)`` whether the item at each rank is relevant.
        n_relevant: ``(U,)`` number of relevant items, at least 1.
    """
    k = hits.shape[1]
    gains = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(gains)[np.minimum(n_relevant, k) - 1]
    return np.asarray((hits * gains).sum(axis=1) / ideal, np.float64)


def recall_at_k(hits: BoolArray, n_relevant: IntArray) -> FloatArray:
    """``(U,)`` relevant items in the list, divided by all relevant items of the user."""
    return np.asarray(hits.sum(axis=1) / n_relevant, np.float64)


def mrr_at_k(hits: BoolArray) -> FloatArray:
    """``(U,)`` one divided by the rank of the first relevant item of the list; 0 if it has none."""
    first = hits.argmax(axis=1)
    return np.where(hits.any(axis=1), 1.0 / (first + 1), 0.0)


def _recommend(
    agent: Agent, split: TimeSplit, users: IntArray, k: int, history_size: int
) -> IntArray:
    seen = observations_from_split(split, users, history_size=history_size, slate_size=k)
    return agent.recommend(seen, k)


def _relevant(split: TimeSplit) -> dict[int, IntArray]:
    """New items after T0 by user, for users who have some and were there before T0."""
    relevant = {}
    for user, events in split.after.groupby(USER_ID)[ITEM_ID]:
        before = split.histories.get(int(str(user)))
        if before is None:
            continue
        new = np.setdiff1d(events.to_numpy(), before.items)
        if len(new):
            relevant[int(str(user))] = new
    return relevant
