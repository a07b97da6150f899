"""The default recommenders on real data: how well and how fast they learn."""

from __future__ import annotations

import time

import numpy as np
import pytest

from usermirror_gym.agents import make_agent, observations_from_split
from usermirror_gym.benchmark.offline import offline_scores
from usermirror_gym.data import load_dataset, time_cut

pytestmark = pytest.mark.slow

DEFAULT = ("ItemKNN", "EASE", "BPR", "LightGCN", "MultiVAE", "GRU4Rec")


@pytest.fixture(scope="module")
def split():
    return time_cut(load_dataset("ml-100k"))


@pytest.fixture(scope="module")
def results(split):
    """``{name: (NDCG@10, fit CPU seconds, agent)}``."""
    found = {}
    for name in ("Random", "Pop", *DEFAULT):
        start = time.process_time()
        agent = make_agent(name, progress=False).fit(split)
        seconds = time.process_time() - start
        found[name] = offline_scores(agent, split).mean("ndcg"), seconds, agent
    return found


def test_every_model_learns_and_most_beat_popularity(results):
    ndcg = {name: score for name, (score, _, _) in results.items()}
    assert all(ndcg[name] > 5 * ndcg["Random"] for name in DEFAULT), ndcg
    assert sum(ndcg[name] > ndcg["Pop"] for name in DEFAULT) >= 4, ndcg


def test_training_all_of_them_fits_the_budget(results):
    """2.5 minutes on two cores: 300 seconds of CPU time."""
    seconds = {name: round(cpu, 1) for name, (_, cpu, _) in results.items()}
    assert sum(seconds.values()) < 300, seconds


def test_a_step_for_64_users_takes_well_under_a_second(results, split):
    users = split.users_with_history(1)[:64]
    seen = observations_from_split(split, users, history_size=50, slate_size=10)
    for name, (_, _, agent) in results.items():
        agent.recommend(seen, 10)
        start = time.process_time()
        slates = agent.recommend({**seen, "turns": seen["turns"] + 1}, 10)
        assert time.process_time() - start < 1.0, name
        assert np.isin(slates, np.arange(1, split.dataset.n_items + 1)).all()


def test_folded_in_users_are_close_to_trained_ones(results, split):
    """Served as if they were new, users still get better than popular items from BPR."""
    agent = results["BPR"][2]
    users = split.users_with_history(1)
    seen = observations_from_split(split, users, history_size=500, slate_size=10)
    trained = agent.scores(seen)
    stranger = agent.scores({**seen, "user_id": np.zeros_like(seen["user_id"])})
    ranked = np.isfinite(trained[0])
    same = [np.corrcoef(a[ranked], b[ranked])[0, 1] for a, b in zip(trained, stranger, strict=True)]
    assert np.mean(same) > 0.9
