"""Intervals by resampling users: they cover, they pair, and they are absent where they must be."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from usermirror_gym.errors import ConfigError
from usermirror_gym.measures.bootstrap import UserBootstrap, kendall_tau_b, spearman


def one(values: list[float] | np.ndarray, users: np.ndarray | None = None, **more):
    values = np.asarray(values, np.float64)
    users = np.arange(len(values)) if users is None else users
    return UserBootstrap(users, **more).intervals(values[:, None])[0]


def test_intervals_cover_the_true_mean_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    samples = rng.exponential(2.0, size=(400, 40)).T  # 400 experiments with 40 users each
    found = UserBootstrap(np.arange(40), n_resamples=400).intervals(samples)
    hits = np.mean([i.low <= 2.0 <= i.high for i in found])
    assert 0.88 <= hits <= 0.98


def test_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=60)
    ours = one(values, n_resamples=20_000)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=0
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.mean == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_all_episodes_of_a_user_are_drawn_together() -> None:
    values = np.random.default_rng(2).normal(size=30)
    once = one(values)
    # Ten copies of each user's episode are no new evidence.
    repeated = one(np.repeat(values, 10), users=np.repeat(np.arange(30), 10))
    assert repeated == pytest.approx(once)


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(3).normal(size=25)
    assert one(values, seed=4) == one(values, seed=4)
    assert one(values, seed=4) != one(values, seed=5)


@pytest.mark.parametrize(
    "values",
    [[0.3], [0.4, 0.4, 0.4], [0.1 + 0.2, 0.3, 0.3], [np.nan, np.nan], [np.nan, 0.7, np.nan]],
)
def test_no_interval_without_variation_between_users(values: list[float]) -> None:
    found = one(values)
    assert np.isnan(found.low)
    assert np.isnan(found.high)
    assert not found.excludes_zero
    assert found.mean == pytest.approx(np.nanmean(values) if np.isfinite(values).any() else np.nan,
                                       nan_ok=True)  # fmt: skip


def test_two_episodes_of_one_user_give_no_interval() -> None:
    assert np.isnan(one([0.1, 0.9], users=np.array([7, 7])).low)


def test_missing_values_are_left_out() -> None:
    values = np.random.default_rng(4).normal(size=40)
    holes = np.concatenate([values, [np.nan] * 10])
    found = one(holes)
    assert found.mean == pytest.approx(values.mean())
    assert found.low < values.mean() < found.high


def test_value_known_for_too_few_users_has_no_interval() -> None:
    # Two of 60 users: a seventh of the resamples has neither.
    assert np.isnan(one([1.0, 2.0] + [np.nan] * 58).low)


def test_what_users_have_in_common_cancels_in_differences() -> None:
    rng = np.random.default_rng(6)
    taste = rng.normal(0, 1.0, size=50)
    a, b = taste + rng.normal(0.3, 0.1, size=50), taste + rng.normal(0, 0.1, size=50)
    difference, alone = one(a - b), one(a)
    assert difference.excludes_zero
    assert difference.high - difference.low < (alone.high - alone.low) / 4


def test_rank_correlations_equal_scipy_with_ties() -> None:
    rng = np.random.default_rng(5)
    x = rng.integers(0, 4, size=9).astype(float)
    y = rng.integers(0, 5, size=(30, 9)).astype(float)
    tau = [stats.kendalltau(x, row).statistic for row in y]
    rho = [stats.spearmanr(x, row).statistic for row in y]
    assert kendall_tau_b(x, y) == pytest.approx(np.array(tau))
    assert spearman(x, y) == pytest.approx(np.array(rho))
    constant = np.ones((1, 9))
    assert np.isnan(kendall_tau_b(x, constant)).all()
    assert np.isnan(spearman(x, constant)).all()


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="n_resamples must be at least 1, got 0"):
        UserBootstrap(np.arange(3), n_resamples=0)
    with pytest.raises(ConfigError, match=r"confidence must be between 0 and 1, got 95"):
        UserBootstrap(np.arange(3), confidence=95)
