"""results.json and the terminal table."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from usermirror_gym.benchmark.metrics import EPISODE_METRICS, METRICS, episode_metrics
from usermirror_gym.benchmark.summary import summarise
from usermirror_gym.benchmark.table import results_table, verdict_vs_baseline
from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import UnknownNameError

QUALITY = {"Random": 0.15, "Pop": 0.45, "EASE": 0.75}
OFFLINE = {name: {"ndcg@10": value / 2} for name, value in QUALITY.items()}


def agent(results: dict, name: str) -> dict:
    return next(a for a in results["agents"] if a["name"] == name)


def render(results: dict, width: int = 100) -> str:
    console = Console(width=width, record=True, file=StringIO())
    console.print(results_table(results))
    return console.export_text()


def test_results_survive_strict_json(make_log, split, fidelity) -> None:
    log = make_log(split, QUALITY)
    results = summarise(
        log, split, OFFLINE | {"Random": {"ndcg@10": float("nan")}},
        config={"users": np.int64(12), "grid": (1, 2)}, fidelity=fidelity, timing={"fit": 1.5},
        fit_seconds={"EASE": np.float64(2.0)},
    )  # fmt: skip
    back = json.loads(json.dumps(results, allow_nan=False))
    assert back == results
    assert back["schema_version"] == 1
    assert back["config"] == {"users": 12, "grid": [1, 2]}
    assert agent(back, "Random")["offline"] == {"ndcg@10": None}
    assert agent(back, "EASE")["fit_seconds"] == 2.0
    assert agent(back, "Pop")["vs_baseline"] is None
    assert back["simulator"] == "stub user"
    assert back["run"]["episodes"] == 12
    assert back["run"]["users"] == 6
    for block in (agent(back, "EASE")["metrics"], agent(back, "EASE")["vs_baseline"]):
        assert set(block) == set(METRICS)
        assert all(set(value) == {"mean", "low", "high"} for value in block.values())


def test_differences_are_paired_by_episode(make_log, split) -> None:
    log = make_log(split, QUALITY)
    results = summarise(log, split)
    table = episode_metrics(log, split).pivot(index="episode", columns="agent", values="return")
    found = agent(results, "EASE")["vs_baseline"]["return"]
    assert found["mean"] == pytest.approx((table["EASE"] - table["Pop"]).mean())
    assert found["low"] < found["mean"] < found["high"]


def test_baseline_is_pop_else_the_first_or_the_one_named(make_log, split) -> None:
    log = make_log(split, QUALITY, episodes=3)
    assert summarise(log, split)["intervals"]["baseline"] == "Pop"
    assert summarise(log, split, baseline="EASE")["intervals"]["baseline"] == "EASE"
    without = log[log["agent"] != "Pop"]
    assert summarise(without, split)["intervals"]["baseline"] == "Random"
    with pytest.raises(UnknownNameError, match="Did you mean 'Pop'"):
        summarise(log, split, baseline="pop ")


def test_rank_correlation_needs_three_agents_with_offline_numbers(make_log, split) -> None:
    log = make_log(split, QUALITY)
    two = {k: OFFLINE[k] for k in ("Random", "Pop")}
    assert summarise(log, split, two)["rank_correlation"] is None
    found = summarise(log, split, OFFLINE)["rank_correlation"]
    assert found["n_agents"] == 3
    assert found["expected_click"]["kendall_tau_b"]["value"] == pytest.approx(1.0)
    reverse = {name: {"NDCG@10": -value} for name, value in QUALITY.items()}
    found = summarise(log, split, reverse)["rank_correlation"]
    assert found["expected_click"]["spearman"]["value"] == pytest.approx(-1.0)


def test_one_user_gets_numbers_but_no_interval(make_log, split) -> None:
    results = summarise(make_log(split, QUALITY, episodes=1), split, OFFLINE)
    for row in results["agents"]:
        for key in EPISODE_METRICS:
            assert row["metrics"][key]["low"] is None
            assert verdict_vs_baseline(row, METRICS[key]) == ""
    tau = results["rank_correlation"]["ctr"]["kendall_tau_b"]
    assert tau["low"] is None
    assert "▲ " not in render(results).split("Exp. =")[0]


def test_an_episode_missing_for_one_agent_is_left_out_of_its_pair_only(make_log, split) -> None:
    log = make_log(split, QUALITY)
    part = log[(log["agent"] != "EASE") | (log["episode"] != 0)]
    results = summarise(part, split)
    assert agent(results, "EASE")["episodes"] == 11
    table = episode_metrics(part, split).pivot(index="episode", columns="agent", values="ctr")
    expected = (table["EASE"] - table["Pop"]).dropna().mean()
    assert agent(results, "EASE")["vs_baseline"]["ctr"]["mean"] == pytest.approx(expected)


def test_table_fits_100_columns_and_marks_what_is_established(make_log, split, fidelity) -> None:
    log = make_log(split, QUALITY | {"A model with a rather long name": 0.5}, episodes=30)
    text = render(summarise(log, split, OFFLINE, fidelity=fidelity))
    lines = {line.split()[0]: line for line in text.splitlines() if line.split()}
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert "▲" in lines["EASE"]
    assert "▼" in lines["Random"]
    assert not re.search("[▲▼]", lines["Pop"])
    assert text.index("EASE") < text.index("Pop ") < text.index("Random")
    assert "0.3750" in lines["EASE"]
    assert fidelity["verdict"] in " ".join(text.split())


def test_table_says_when_fidelity_was_not_checked(make_log, split) -> None:
    text = " ".join(render(summarise(make_log(split, QUALITY, episodes=3), split)).split())
    assert "Fidelity was not checked" in text


def test_same_log_same_results(make_log, split) -> None:
    log = make_log(split, QUALITY)
    assert summarise(log, split, OFFLINE) == summarise(log, split, OFFLINE)


def test_items_without_genres_leave_diversity_empty(make_log, split) -> None:
    bare = replace(split.dataset, items=split.dataset.items.drop(columns="genres"))
    split = TimeSplit(bare, split.t0)
    results = summarise(make_log(split, QUALITY, episodes=3), split)
    assert agent(results, "EASE")["metrics"]["intra_list_diversity"]["mean"] is None
    json.dumps(results, allow_nan=False)
