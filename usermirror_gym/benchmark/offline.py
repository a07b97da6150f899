"""Offline accuracy: do the recommendations at T0 contain what the users really did next?"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from usermirror_gym.agents.base import Agent
from usermirror_gym.agents.observations import observations_from_split
from usermirror_gym.benchmark.metrics import Metric
from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import ConfigError, DataError
from usermirror_gym.types import ITEM_ID, USER_ID, BoolArray, FloatArray, IntArray

_BATCH = 512


class OfflineMetric(Metric):
    """A metric of U ranked lists; its key in files is ``key@k``."""

    @abstractmethod
    def values(self, hits: BoolArray, n_relevant: IntArray) -> FloatArray:
        """``(U,)`` of the users.

        Args:
            hits: ``(U, k)`` whether the item at each rank is relevant.
            n_relevant: ``(U,)`` number of relevant items, at least 1.
        """


class NDCG(OfflineMetric, key="ndcg", label="NDCG"):
    """Normalised discounted cumulative gain with binary relevance (Jarvelin & Kekalainen, TOIS
    2002)."""

    def values(self, hits: BoolArray, n_relevant: IntArray) -> FloatArray:
        k = hits.shape[1]
        gains = 1.0 / np.log2(np.arange(2, k + 2))
        ideal = np.cumsum(gains)[np.minimum(n_relevant, k) - 1]
        return np.asarray((hits * gains).sum(axis=1) / ideal, np.float64)


class Recall(OfflineMetric, key="recall", label="Recall"):
    """Share of the user's relevant items that were recommended."""

    def values(self, hits: BoolArray, n_relevant: IntArray) -> FloatArray:
        return np.asarray(hits.sum(axis=1) / n_relevant, np.float64)


class MRR(OfflineMetric, key="mrr", label="MRR"):
    """One divided by the rank of the first relevant item of the list; 0 if it has none."""

    def values(self, hits: BoolArray, n_relevant: IntArray) -> FloatArray:
        return np.where(hits.any(axis=1), 1.0 / (hits.argmax(axis=1) + 1), 0.0)


OFFLINE_METRICS: dict[str, OfflineMetric] = {m.key: m for m in (NDCG(), Recall(), MRR())}


@dataclass(frozen=True)
class OfflineScores:
    """Accuracy of one agent over U users.

    Attributes:
        agent: its name.
        k: length of the recommended list.
        users: ``(U,)`` ids, ascending.
        values: ``(U,)`` by key of the metric.
    """

    agent: str
    k: int
    users: IntArray
    values: dict[str, FloatArray]

    def mean(self, key: str) -> float:
        """Of one metric over the users."""
        return float(self.values[key].mean())


def offline_scores(
    agent: Agent,
    split: TimeSplit,
    *,
    k: int = 10,
    users: IntArray | None = None,
    history_size: int = 50,
    metrics: Sequence[str] = ("ndcg", "recall"),
) -> OfflineScores:
    """Rank at T0 for users seen on both sides of the cut, and compare with what came after it.

    Relevant are the items a user had after T0 and never before.

    Args:
        agent: fitted on ``split``.
        users: who is asked; default all that qualify.  Those who do not qualify are left out.
        history_size: how many of their last interactions the observations hold.
        metrics: keys of :data:`OFFLINE_METRICS`.

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
        [agent.recommend(observations_from_split(split, ids[i : i + _BATCH],
                                                 history_size=history_size, slate_size=k), k)
         for i in range(0, len(ids), _BATCH)]
    )  # fmt: skip
    values = list_scores(shown, [relevant[user] for user in ids.tolist()], metrics)
    return OfflineScores(agent.name, k, ids, values)


def list_scores(
    shown: IntArray, relevant: Sequence[IntArray], metrics: Sequence[str]
) -> dict[str, FloatArray]:
    """Metrics by key, ``(U,)``, of lists ``(U, k)`` and the relevant items of each user."""
    hits = np.array([np.isin(row, items) for row, items in zip(shown, relevant, strict=True)])
    counts = np.array([len(items) for items in relevant])
    return {key: OFFLINE_METRICS[key].values(hits, counts) for key in metrics}


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
