"""Rankings in several worlds: who is ranked, by what, for whom, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from usermirror_gym.agents.returns import SHOWN_BEFORE, Sessions
from usermirror_gym.errors import ConfigError
from usermirror_gym.experiments.transfer.ranking import compare_rankings, ranked_policies
from usermirror_gym.experiments.transfer.report import sentences
from usermirror_gym.measures.bootstrap import kendall_tau_b
from usermirror_gym.testing.data import tiny_split

USERS = np.arange(80)
UNSEEN = USERS % 2 == 0
Played = dict[str, Sessions]


def sessions(expected: np.ndarray, first: np.ndarray, popularity: float = 0.0) -> Sessions:
    """Of two lists; items are taken a tenth of the time, and half as often when shown again."""
    zeros = np.zeros(len(USERS))
    shown = np.zeros((len(USERS), SHOWN_BEFORE))
    shown[:, :2] = 5.0
    return Sessions(
        zeros, zeros, zeros.astype(int) + 2, zeros.astype(int), zeros + popularity,
        np.column_stack([first, expected - first]), shown * [0.1, 0.05, 0, 0, 0, 0], shown,
    )  # fmt: skip


def world(
    levels: Sequence[Any], *, first: Sequence[Any] | None = None, noise: float = 0.3,
    popularity: Sequence[float] | None = None, seed: int = 0,
) -> Played:  # fmt: skip
    """Policies p0, p1 ... from which about so much is taken, of which in the first list a tenth."""
    rng = np.random.default_rng(seed)
    firsts = [np.asarray(level) / 10 for level in levels] if first is None else first
    shown = [0.0] * len(levels) if popularity is None else popularity
    return {
        f"p{i}": sessions(
            level + noise * rng.normal(size=len(USERS)),
            firsts[i] + np.zeros(len(USERS)), shown[i],
        )
        for i, level in enumerate(levels)
    }  # fmt: skip


def compare(
    true: Played, *simulated: Played, popular: Played | None = None, names: int = 0,
    unseen: np.ndarray = UNSEEN, n_resamples: int = 100,
) -> dict[str, Any]:  # fmt: skip
    others = {"simulator": list(simulated), "popularity_user": [popular or true]}
    distinct = list(true)[: names or None]
    return compare_rankings(true, others, distinct, USERS, unseen, n_resamples=n_resamples)


def taus(found: dict[str, Any], measure: str = "sessions", who: str = "simulator") -> list[float]:
    """For unseen users, and for the others."""
    return [found["scorers"][who][measure][group]["mean"] for group in ("out", "in")]


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
    found = compare(true, world(simulated, noise=0.0))
    assert taus(found) == pytest.approx([tau, tau])
    assert found["difference"]["sessions"]["out"]["mean"] == pytest.approx(tau - 1.0)
    assert taus(found, who="popularity_user") == pytest.approx([1.0, 1.0])


def test_first_lists_are_ranked_beside_sessions() -> None:
    true = world([1, 2, 3, 4], noise=0.0)
    found = compare(true, world([1, 2, 3, 4], first=[0.4, 0.3, 0.2, 0.1], noise=0.0))
    assert taus(found) == [1.0, 1.0]
    assert taus(found, "first_lists") == [-1.0, -1.0]
    assert found["difference"]["first_lists"]["in"]["mean"] == -2.0


def test_policies_that_are_degraded_count_nothing_among_those_that_differ() -> None:
    """Four degraded ones in the right order do not make up for three in the wrong one."""
    true = world([7, 6, 5, 4, 3, 2, 1], noise=0.01)
    simulated = world([5, 6, 7, 4, 3, 2, 1], noise=0.01)
    found = compare(true, simulated, names=3)
    assert taus(found) == [-1.0, -1.0]
    assert [row["name"] for row in found["policies"]] == ["p0", "p1", "p2"]
    assert found["scorers"]["simulator"]["signs"]["mean"] == 0.0
    assert found["pairs"] == 3
    apart = found["degraded"]
    assert [row["name"] for row in apart["policies"]] == ["p3", "p4", "p5", "p6"]
    assert apart["simulator"]["mean"] == 1.0
    assert compare(true, simulated)["degraded"] is None


def test_users_in_and_out_of_training_are_told_apart() -> None:
    true = world([1, 2, 3, 4], noise=0.0)
    upside_down = [np.where(UNSEEN, 5 - level, level) for level in (1, 2, 3, 4)]
    found = compare(true, world(upside_down, noise=0.0), unseen=UNSEEN)
    assert taus(found) == [-1.0, 1.0]
    assert found["episodes"] == {"out": 40, "in": 40}
    alone = compare(true, true, unseen=np.zeros(80, bool))
    assert alone["episodes"] == {"in": 80}
    assert set(alone["scorers"]["simulator"]["bias"]) == {"in"}


def test_intervals_hold_over_trainings_too() -> None:
    true = world([1, 2, 3, 4], noise=0.0)
    two = compare(true, true, world([6, 5, 4, 3], noise=0.0))
    block = two["scorers"]["simulator"]["sessions"]["out"]
    assert (block["mean"], block["low"], block["high"]) == (0.0, -1.0, 1.0)
    bias = two["scorers"]["simulator"]["bias"]["out"]
    assert [bias[e] for e in ("mean", "low", "high")] == pytest.approx([1.0, 0.0, 2.0])
    one = compare(true, true)
    assert one["scorers"]["simulator"]["sessions"]["out"]["low"] == 1.0
    assert [block["mean"] for block in two["trainings"]["out"]] == [1.0, -1.0]
    assert [block["mean"] for block in one["trainings"]["in"]] == [1.0]
    assert two["policies"][0]["simulator"]["mean"] == pytest.approx(3.5)  # of both


def test_intervals_widen_where_policies_are_nearly_equal() -> None:
    clear, close = [0, 2, 4, 6, 8, 10], [0.0, 0.02, 0.04, 0.06, 0.08, 0.1]
    widths = []
    for levels in (clear, close):
        found = compare(world(levels), world(levels, seed=1), n_resamples=400)
        block = found["scorers"]["simulator"]["sessions"]["out"]
        widths.append(block["high"] - block["low"])
    assert widths[0] == 0
    assert widths[1] > 0.3


def test_signs_count_only_pairs_that_the_truth_tells_apart() -> None:
    true = world([0, 0.0, 5, 10])  # the first two are equal but for noise
    simulated = world([1, 0, 10, 5], noise=0.01, seed=1)  # the last two are swapped
    found = compare(true, simulated, n_resamples=200)
    assert (found["pairs"], found["decided"]) == (6, 5)
    assert found["scorers"]["simulator"]["signs"]["mean"] == pytest.approx(4 / 5)


def test_policies_scored_by_what_they_show() -> None:
    true = world([1, 2, 3, 4], noise=0.01, popularity=[40, 30, 20, 10])
    found = compare(true, true, popular=world([1, 2, 4, 3], noise=0.01))
    assert taus(found, who="popularity_scorer") == pytest.approx([-1.0, -1.0])
    assert taus(found, who="popularity_user") == pytest.approx([2 / 3, 2 / 3])
    assert [row["name"] for row in found["policies"]] == ["p3", "p2", "p1", "p0"]


def test_takes_by_list_and_by_how_often_an_item_was_shown() -> None:
    true = world([1.0, 1.0, 1.0], first=[0.6] * 3, noise=0.0)
    gone = {name: played.takes.copy() for name, played in true.items()}
    for takes in gone.values():
        takes[::2, 1] = np.nan  # every other user left after one list
    simulated = {
        name: Sessions(*list(vars(played).values())[:5], gone[name], 3 * played.item_takes,
                       played.item_lists)
        for name, played in true.items()
    }  # fmt: skip
    found = compare(true, simulated)
    assert [row["list"] for row in found["by_list"]] == [1, 2]
    for row, share in zip(found["by_list"], (0.6, 0.4), strict=True):
        assert row["true"]["mean"] == pytest.approx(share)
        assert row["simulator"]["mean"] == pytest.approx(share)  # of those who saw the list
    assert [row["shown"] for row in found["by_shown"]] == [0, 1]  # nothing was shown oftener
    assert [row["true"]["mean"] for row in found["by_shown"]] == pytest.approx([0.1, 0.05])
    assert [row["simulator"]["mean"] for row in found["by_shown"]] == pytest.approx([0.3, 0.15])


@pytest.mark.parametrize(
    ("simulated", "words"),
    [([1, 2, 3, 4, 5], "orders them as the truth does"),
     ([5, 4, 3, 2, 1], "turns their order upside down"),
     ([3, 3.01, 3, 3.01, 3], "does not order them better than chance")],
)  # fmt: skip
def test_sentences_say_which_way_round_the_order_is(simulated: list[float], words: str) -> None:
    true = world([1, 2, 3, 4, 5])
    found = compare(true, world(simulated, seed=1), popular=world([5, 4, 3, 2, 1], seed=2))
    nothing: dict[str, Any] = {"worlds": {}, "curves": {}, "probes": [], "probe_base": ""}
    said = sentences({"ranking": found} | nothing)
    assert said[0].startswith(f"5 recommenders, unseen users: the simulator {words}")
    less = "which by sessions is less like the truth" in said[0]
    assert less == (simulated != [5, 4, 3, 2, 1])


def test_what_cannot_be_compared_is_refused() -> None:
    two = world([1, 2])
    with pytest.raises(ConfigError, match="at least 3 different policies"):
        compare(two, two)
    with pytest.raises(ConfigError, match="the same ones in all worlds"):
        compare(world([1, 2, 3]), world([1, 2, 3, 4]))


def test_ten_recommenders_differ_and_degraded_ones_stand_apart() -> None:
    split = tiny_split(n_users=30, n_items=60)
    asked = []

    def fit(name: str):
        from usermirror_gym.agents import PopAgent, RandomAgent

        asked.append(name)
        agent = RandomAgent() if name == "Random" else PopAgent()
        agent.name = name
        return agent.fit(split)

    policies = ranked_policies(split, fit=fit)
    distinct, degraded = ([policy.name for policy in group] for group in policies)
    assert len(set(distinct)) == len(distinct) >= 10
    assert set(asked) == {"Random", *distinct}
    assert "Pop" in distinct
    assert {"ItemKNN", "ItemKNN(k=20, shrink=0)", "MultiVAE"} <= set(distinct)
    assert set(degraded) >= {"Random", "EASE~0.02", "EASE~0.5", "Pop~0.02", "Repeat", "AllBad"}
    assert not set(degraded) & set(distinct)
    with pytest.raises(ConfigError, match="models is empty"):
        ranked_policies(split, models=("Pop",), fit=fit)
