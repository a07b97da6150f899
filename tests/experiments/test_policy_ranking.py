"""Rankings in two worlds: Kendall's tau with ties, signs, and a popularity scorer beside it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from usermirror_gym.agents.returns import Sessions
from usermirror_gym.errors import ConfigError
from usermirror_gym.experiments.transfer.ranking import compare_rankings, ranked_policies
from usermirror_gym.measures.bootstrap import kendall_tau_b
from usermirror_gym.testing.data import tiny_split

USERS = np.arange(80)


def world(levels, *, noise: float = 0.3, popularity=None, seed: int = 0) -> dict[str, Sessions]:
    """Policies p0, p1 ... that return about the given level."""
    popularity = levels if popularity is None else popularity
    rng = np.random.default_rng(seed)
    zeros = np.zeros(len(USERS))
    return {
        f"p{i}": Sessions(
            level + noise * rng.normal(size=len(USERS)),
            zeros,
            zeros.astype(int),
            zeros.astype(int),
            zeros + shown,
        )
        for i, (level, shown) in enumerate(zip(levels, popularity, strict=True))
    }


def test_kendall_equals_scipy_row_by_row_with_ties() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.integers(0, 4, size=(2, 30, 9)).astype(float)
    wanted = [stats.kendalltau(a, b).statistic for a, b in zip(x, y, strict=True)]
    assert kendall_tau_b(x, y) == pytest.approx(np.array(wanted))
    assert np.isnan(kendall_tau_b(np.ones((1, 4)), np.arange(4.0)[None])).all()


@pytest.mark.parametrize(
    ("simulated", "tau"),
    [([1, 2, 3, 4, 5], 1.0), ([5, 4, 3, 2, 1], -1.0), ([2, 1, 3, 4, 5], 0.8),
     ([1, 1, 3, 4, 5], stats.kendalltau([1, 1, 3, 4, 5], [1, 2, 3, 4, 5]).statistic)],
)  # fmt: skip
def test_known_rankings(simulated: list[float], tau: float) -> None:
    true = world([1, 2, 3, 4, 5], noise=0.0)
    found = compare_rankings(world(simulated, noise=0.0), true, true, USERS, n_resamples=50)
    assert found["simulator"]["tau_b"]["mean"] == pytest.approx(tau)
    assert found["difference"]["mean"] == pytest.approx(tau - 1.0)
    assert found["popularity_user"]["tau_b"]["mean"] == pytest.approx(1.0)


def test_intervals_widen_where_policies_are_nearly_equal() -> None:
    clear, close = [0, 2, 4, 6, 8, 10], [0.0, 0.02, 0.04, 0.06, 0.08, 0.1]
    widths = []
    for levels in (clear, close):
        true, simulated = world(levels), world(levels, seed=1)
        found = compare_rankings(simulated, true, true, USERS, n_resamples=400)
        block = found["simulator"]["tau_b"]
        widths.append(block["high"] - block["low"])
    assert widths[0] == 0
    assert widths[1] > 0.3


def test_signs_count_only_pairs_that_the_truth_tells_apart() -> None:
    true = world([0, 0.0, 5, 10])  # the first two are equal but for noise
    simulated = world([1, 0, 10, 5], noise=0.01, seed=1)  # the last two are swapped
    found = compare_rankings(simulated, true, true, USERS, n_resamples=200)
    assert (found["pairs"], found["decided"]) == (6, 5)
    assert found["simulator"]["sign_accuracy"]["mean"] == pytest.approx(4 / 5)


def test_policies_scored_by_what_they_show() -> None:
    true = world([1, 2, 3, 4], noise=0.01, popularity=[40, 30, 20, 10])
    found = compare_rankings(true, true, world([1, 2, 4, 3], noise=0.01), USERS, n_resamples=50)
    assert found["popularity_scorer"]["tau_b"]["mean"] == pytest.approx(-1.0)
    assert found["popularity_user"]["tau_b"]["mean"] == pytest.approx(2 / 3)
    assert [row["name"] for row in found["policies"]] == ["p3", "p2", "p1", "p0"]
    assert found["policies"][0]["popularity_scorer"]["mean"] == 10


def test_what_cannot_be_compared_is_refused() -> None:
    two = world([1, 2])
    with pytest.raises(ConfigError, match="at least 3 policies"):
        compare_rankings(two, two, two, USERS)
    with pytest.raises(ConfigError, match="the same ones in all worlds"):
        compare_rankings(world([1, 2, 3]), world([1, 2, 3, 4]), world([1, 2, 3]), USERS)


def test_at_least_ten_different_policies_good_and_bad() -> None:
    split = tiny_split(n_users=30, n_items=60)
    asked = []

    def fit(name: str):
        from usermirror_gym.agents import PopAgent, RandomAgent

        asked.append(name)
        agent = RandomAgent() if name == "Random" else PopAgent()
        agent.name = name
        return agent.fit(split)

    policies = ranked_policies(split, fit=fit)
    names = [policy.name for policy in policies]
    assert len(names) == len(set(names)) >= 10
    assert asked == ["Random", "Pop", "ItemKNN", "EASE", "BPR", "LightGCN"]
    assert {"EASE~0.02", "EASE~0.5", "Pop~0.02", "Repeat", "AllBad"} <= set(names)
    with pytest.raises(ConfigError, match="models is empty"):
        ranked_policies(split, models=(), fit=fit)
