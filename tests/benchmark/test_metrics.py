"""Metrics of sessions: numbers worked out by hand, and logs that cannot be used."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from usermirror_gym.benchmark import metrics
from usermirror_gym.benchmark.metrics import (
    CATALOGUE_METRICS,
    EPISODE_METRICS,
    METRICS,
    SessionMetric,
    StepLog,
    agent_metrics,
    episode_metrics,
    gini,
    popularity_percentile,
    register,
    slate_diversity,
)
from usermirror_gym.benchmark.table import verdict_vs_baseline
from usermirror_gym.errors import ConfigError, DataError


@pytest.fixture
def log(make_step) -> pd.DataFrame:
    """Two agents, two users: A clicks twice on user 1, B never clicks and user 2 leaves."""
    rows = [
        make_step("A", 0, 0, [1, 3], 1, probabilities=[0.2, 0.6, 0.2], rating=5.0, reward=1.0),
        make_step("A", 0, 1, [1, 2], 2, probabilities=[0.1, 0.1, 0.8], rating=3.0, reward=0.0),
        make_step("A", 0, 2, [4, 2], 0, probabilities=[0.5, 0.3, 0.2], rating=2.0, reward=1.0,
                  truncated=True),
        make_step("A", 1, 0, [1, 7], 2, probabilities=[0.3, 0.3, 0.4], terminated=True),
        make_step("B", 0, 0, [1, 6], 2, probabilities=[0.0, 0.0, 1.0], truncated=True),
        make_step("B", 1, 0, [8, 7], 2, probabilities=[0.25, 0.25, 0.5], reward=-0.5),
        make_step("B", 1, 1, [8, 7], 2, probabilities=[0.05, 0.05, 0.9], reward=-0.5,
                  terminated=True),
    ]  # fmt: skip
    return pd.DataFrame(rows)


def row(frame: pd.DataFrame, agent: str, episode: int) -> pd.Series:
    return frame[(frame["agent"] == agent) & (frame["episode"] == episode)].iloc[0]


def test_session_metrics_equal_hand_computed_values(log, split) -> None:
    a0 = row(episode_metrics(log, split), "A", 0)
    assert a0["user_id"] == 1
    assert a0["ctr"] == pytest.approx(2 / 3)
    assert a0["no_choice_rate"] == pytest.approx(1 / 3)
    assert a0["expected_click"] == pytest.approx((0.8 + 0.2 + 0.8) / 3)
    assert a0["return"] == 2.0
    assert a0["session_length"] == 3
    assert a0["left"] == 0
    # The rating of the step without a choice does not count.
    assert a0["satisfaction"] == pytest.approx((5 + 2) / 2)


def test_exposure_metrics_equal_hand_computed_values(log, split) -> None:
    # Interactions before the cut: film 1 has 6, film 2 has 5, ... film 6 has 1, films 7 and 8 none.
    assert split.popularity.tolist() == [0, 6, 5, 4, 3, 2, 1, 0, 0]
    a0 = row(episode_metrics(log, split), "A", 0)
    shares = np.array([7, 5, 7, 6, 4, 6]) / (21 + 8)  # films 1 3 1 2 4 2, add-one smoothed
    assert a0["novelty"] == pytest.approx(-np.log2(shares).mean())
    percentile = np.array([7.5, 5.5, 7.5, 6.5, 4.5, 6.5]) / 8
    assert a0["popularity"] == pytest.approx(percentile.mean())
    # {Drama}-{Action, Drama}: 1/2; {Drama}-{Comedy}: 1; {Comedy, Romance}-{Comedy}: 1/2.
    assert a0["intra_list_diversity"] == pytest.approx((0.5 + 1 + 0.5) / 3)
    # Film 1 again in step 1, film 2 again in step 2.
    assert a0["repeat_rate"] == pytest.approx(2 / 6)


def test_episode_without_choice_has_no_satisfaction_and_counts_as_left(log, split) -> None:
    b1 = row(episode_metrics(log, split), "B", 1)
    assert np.isnan(b1["satisfaction"])
    assert b1["ctr"] == 0
    assert b1["left"] == 1
    assert b1["return"] == -1.0
    assert b1["repeat_rate"] == 0.5


def test_diversity_ignores_items_without_genres(log, split) -> None:
    frame = episode_metrics(log, split)
    assert np.isnan(row(frame, "B", 0)["intra_list_diversity"])  # film 6 has no genre
    assert row(frame, "A", 1)["intra_list_diversity"] == 0  # films 1 and 7: Drama twice


def test_diversity_equals_python_sets_on_random_slates(split) -> None:
    rng = np.random.default_rng(0)
    slates = np.array([rng.choice(8, size=4, replace=False) + 1 for _ in range(50)])
    slates[0, 2:] = 0  # a short slate
    genres = {i: set(filter(None, g.split(", "))) for i, g in split.dataset.items["genres"].items()}
    for slate, value in zip(slates, slate_diversity(slates, split), strict=True):
        pairs = [(genres[a], genres[b]) for a, b in combinations(slate[slate > 0].tolist(), 2)]
        known = [1 - len(a & b) / len(a | b) for a, b in pairs if a and b]
        assert value == pytest.approx(np.mean(known))


def test_coverage_and_gini_by_hand(log, split) -> None:
    frame = agent_metrics(log, split)
    # A shows films 1 (3x), 2 (2x), 3, 4, 7; B shows 1, 6, and 7 and 8 twice each.
    assert frame.loc["A", "coverage"] == 5 / 8
    assert frame.loc["B", "coverage"] == 4 / 8
    counts = np.array([0, 0, 0, 1, 1, 1, 2, 3])
    mean_difference = np.abs(counts[:, None] - counts[None, :]).mean()
    assert frame.loc["A", "gini"] == pytest.approx(mean_difference / (2 * counts.mean()))


def test_gini_of_equal_single_and_no_exposure() -> None:
    values = gini(np.array([[3, 3, 3, 3], [0, 12, 0, 0], [0, 0, 0, 0]]))
    assert values[:2] == pytest.approx([0.0, 0.75])
    assert np.isnan(values[2])


def test_popularity_percentile_averages_one_half(split) -> None:
    percentile = popularity_percentile(split)
    assert np.isnan(percentile[0])
    assert percentile[1:].mean() == pytest.approx(0.5)
    assert percentile[7] == percentile[8]  # tied


def test_result_does_not_depend_on_the_order_of_lines(log, split) -> None:
    expected = episode_metrics(log, split).set_index(["agent", "episode"]).sort_index()
    shuffled = log.sample(frac=1, random_state=3).reset_index(drop=True)
    found = episode_metrics(shuffled, split).set_index(["agent", "episode"]).sort_index()
    pd.testing.assert_frame_equal(found, expected)


def test_log_read_back_from_json_lines_gives_the_same(log, split, tmp_path) -> None:
    path = tmp_path / "episodes.jsonl"
    log.to_json(path, orient="records", lines=True)
    back = pd.read_json(path, orient="records", lines=True)
    pd.testing.assert_frame_equal(episode_metrics(back, split), episode_metrics(log, split))


def test_shorter_slates_are_read_by_their_own_length(make_step, split) -> None:
    rows = [make_step("A", 0, 0, [1, 2, 3], 2), make_step("A", 0, 1, [4], 1)]
    frame = episode_metrics(pd.DataFrame(rows), split)
    assert frame["ctr"].tolist() == [0.5]  # choice 1 of a slate of one item is none of these
    assert agent_metrics(pd.DataFrame(rows), split).loc["A", "coverage"] == 4 / 8


def test_unusable_logs_are_named(log, split) -> None:
    with pytest.raises(DataError, match=r"lacks the column\(s\) \['reward'\]"):
        episode_metrics(log.drop(columns="reward"), split)
    with pytest.raises(DataError, match="has no steps"):
        episode_metrics(log.iloc[:0], split)
    with pytest.raises(DataError, match=r"episode 1 belongs to several users \[2, 5\]"):
        agent_metrics(log.assign(user_id=[1, 1, 1, 2, 1, 5, 5]), split)


def standing_of(metric: str, difference: float) -> str:
    block = {"mean": difference, "low": difference, "high": difference}
    return verdict_vs_baseline({"vs_baseline": {metric: block}}, METRICS[metric])


def test_metric_table_names_every_computed_metric(log, split) -> None:
    assert set(EPISODE_METRICS) <= set(episode_metrics(log, split).columns)
    assert list(agent_metrics(log, split).columns) == list(CATALOGUE_METRICS)
    assert standing_of("left", -0.1) == "better"
    assert standing_of("left", 0.1) != "better"
    assert standing_of("novelty", 0.1) != "better"
    assert METRICS["ctr"].text(0.1234) == "12.3%"
    assert METRICS["ctr"].text(None) == METRICS["ctr"].text(float("nan")) == "–"
    assert METRICS["return"].range(-0.5, 0.25) == "-0.50 to 0.25"


class Clicks(SessionMetric, key="clicks", label="Clicks", format=".1f"):
    """Lists from which
    something was taken.

    More for who reads the code.
    """

    def values(self, log: StepLog):
        return log.total(log.clicked)


class Again(Clicks, key="ctr", label="Again", format=".1f"):
    """Has the key of another."""


@pytest.mark.parametrize("metric", [Clicks, f"{__name__}:Clicks"])
def test_a_metric_of_ones_own_stands_beside_the_others(log, split, monkeypatch, metric) -> None:
    for name in ("METRICS", "EPISODE_METRICS"):
        monkeypatch.setattr(metrics, name, dict(getattr(metrics, name)))
    register(metric)
    assert list(metrics.METRICS)[-1] == "clicks"
    assert metrics.METRICS["clicks"].meaning == "Lists from which something was taken."
    assert row(episode_metrics(log, split), "A", 0)["clicks"] == 2.0
    with pytest.raises(ConfigError, match="there is a metric 'ctr'"):
        register(Again)
    with pytest.raises(ConfigError, match="write module:Class"):
        register("nowhere:Clicks")
