"""Offline accuracy against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from usermirror_gym.benchmark.offline import OFFLINE_METRICS, offline_scores
from usermirror_gym.data import RecDataset, TimeSplit
from usermirror_gym.errors import ConfigError, DataError


class Fixed:
    """Shows the same items to everybody, and remembers what it was shown."""

    name = "fixed"

    def __init__(self, items):
        self.items = items

    def recommend(self, observations, k):
        self.observations = observations
        return np.tile(self.items[:k], (len(observations["user_id"]), 1))


@pytest.fixture
def split():
    events = [
        # a has films 1, 2 before the cut; 2 (again), 3, 4, 6 after it.
        *[("a", i, t) for i, t in [(1, 10), (2, 20), (2, 110), (3, 120), (4, 130), (6, 140)]],
        # b: one before, one after.
        ("b", 3, 30), ("b", 5, 150),
        # c only before, d only after, e nothing new after.
        ("c", 1, 40), ("d", 2, 160), ("e", 1, 50), ("e", 1, 170),
    ]  # fmt: skip
    data = RecDataset.from_tables(
        "hand",
        "movie",
        users=pd.DataFrame({"user_id": list("abcde")}),
        items=pd.DataFrame({"item_id": range(1, 7), "title": [f"f{i}" for i in range(1, 7)]}),
        interactions=pd.DataFrame(events, columns=["user_id", "item_id", "timestamp"]),
    )
    return TimeSplit(data, 100)


def test_scores_by_hand(split):
    scores = offline_scores(Fixed([4, 1, 5]), split, k=3)
    assert scores.users.tolist() == [1, 2]
    # a: relevant {3, 4, 6}, hit at rank 1; ideal has three hits.
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    # b: relevant {5}, hit at rank 3; ideal is one hit at rank 1.
    np.testing.assert_allclose(scores.values["ndcg"], [1 / ideal, 0.5])
    np.testing.assert_allclose(scores.values["recall"], [1 / 3, 1.0])
    assert scores.mean("ndcg") == pytest.approx((1 / ideal + 0.5) / 2)
    assert scores.mean("recall") == pytest.approx(2 / 3)
    assert (scores.agent, scores.k) == ("fixed", 3)


def test_the_ideal_list_is_no_longer_than_k(split):
    scores = offline_scores(Fixed([3, 4]), split, k=2)
    np.testing.assert_allclose(scores.values["ndcg"], [1.0, 0.0])
    np.testing.assert_allclose(scores.values["recall"], [2 / 3, 0.0])


def test_items_seen_before_the_cut_do_not_count(split):
    scores = offline_scores(Fixed([2, 1]), split, k=2)
    np.testing.assert_array_equal(scores.values["recall"], [0, 0])


def test_observations_are_the_memory_at_the_cut(split):
    agent = Fixed([1, 2])
    offline_scores(agent, split, k=2, history_size=4)
    assert agent.observations["history_items"].tolist() == [[1, 2, 0, 0], [3, 0, 0, 0]]
    assert agent.observations["history_length"].tolist() == [2, 1]
    assert agent.observations["last_choice"].tolist() == [2, 2]


def test_only_the_users_asked_for(split):
    assert offline_scores(Fixed([5]), split, k=1, users=np.array([2, 3])).users.tolist() == [2]
    with pytest.raises(DataError, match="after"):
        offline_scores(Fixed([5]), split, k=1, users=np.array([3]))


def test_k_below_one_is_named(split):
    with pytest.raises(ConfigError, match="got 0"):
        offline_scores(Fixed([5]), split, k=0)


def test_metrics_of_several_lists():
    hits = np.array([[True, False, True], [False, False, False]])
    relevant = np.array([2, 9])
    ndcg, recall = OFFLINE_METRICS["ndcg"], OFFLINE_METRICS["recall"]
    np.testing.assert_allclose(ndcg.values(hits, relevant), [1.5 / (1 + 1 / math.log2(3)), 0])
    np.testing.assert_allclose(recall.values(hits, relevant), [1.0, 0])
