"""``report.html``: one self-contained page with the results of a benchmark."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from usermirror_gym.benchmark.metrics import METRICS, Metric
from usermirror_gym.benchmark.plots import all_plots
from usermirror_gym.benchmark.summary import OFFLINE_METRIC, offline_value, summarise
from usermirror_gym.benchmark.table import ranked, results_table, verdict_vs_baseline
from usermirror_gym.benchmark.viewer import viewer_data
from usermirror_gym.data import TimeSplit
from usermirror_gym.files import write_text
from usermirror_gym.report.page import render
from usermirror_gym.report.text import BETTER, DIFFERENT, OPEN, WORSE, flatten

__all__ = ["results_table", "summarise", "write_report"]

_OFFLINE = (("ndcg@10", "NDCG@10"), ("recall@10", "Recall@10"))
_VERDICTS = {
    BETTER: "better than {0}",
    WORSE: "worse than {0}",
    DIFFERENT: "different from {0}",
    OPEN: "no difference from {0} established",
}


def write_report(
    results: Mapping[str, Any],
    steps: pd.DataFrame,
    split: TimeSplit,
    path: str | os.PathLike[str],
    *,
    max_episodes: int = 20,
) -> Path:
    """Write the page to ``path``; an existing file is replaced in one move or left as it was.

    Args:
        results: the content of ``results.json`` (see :mod:`usermirror_gym.benchmark.summary`).
        steps: the step log, of which ``max_episodes`` episodes per agent are embedded.
        split: titles, profiles and histories for the viewer.
        path: where to write; its folder is made if absent.
        max_episodes: how many episodes per agent the viewer holds.
    """
    agents, baseline = ranked(results["agents"]), results["intervals"]["baseline"]
    viewer = viewer_data(steps, split, max_episodes)
    # The viewer opens with the best agent, beside the baseline where there is room.
    viewer |= {"agents": [agent["name"] for agent in agents], "baseline": baseline}
    # What has no options of its own has no row.
    config = {name: value for name, value in results["config"].items() if value != {}}
    view = {
        "results": results,
        "agents": agents,
        "baseline": baseline,
        # The share of steps without a choice is the complement of the click rate.
        "columns": [m for m in METRICS.values() if m.key != "no_choice_rate"],
        "offline_columns": _OFFLINE,
        "offline_metric": OFFLINE_METRIC,
        "cell_of": partial(_cell, agents=agents, baseline=baseline),
        "offline_value": offline_value,
        "headline": headline(results),
        "engine": (results["timing"] or {}).get("engine") or {},
        "fidelity": results["fidelity"] and fidelity_panel(results["fidelity"]),
        "plots": all_plots(results, steps),
        "metrics": METRICS.values(),
        "settings": flatten(config, ".4g"),
        "timing": flatten(results["timing"] or {}, ".4g"),
        "viewer": viewer,
        "embedded": len(viewer["episodes"]),
    }
    return write_text(Path(path), render("report.html", view))


def headline(results: Mapping[str, Any]) -> str:
    """Which agents are above the baseline in expected click, beyond the noise between users."""
    metric, baseline = METRICS["expected_click"], results["intervals"]["baseline"]
    others = [a for a in ranked(results["agents"]) if a["name"] != baseline]
    if not others:
        return f"Only {baseline} was run; there is nothing to compare it with."

    words = {BETTER: "above it ", WORSE: "below it ", OPEN: "no difference beyond chance: "}
    named = {
        verdict: [a["name"] for a in others if verdict_vs_baseline(a, metric) == verdict]
        for verdict in words
    }
    parts = [words[verdict] + ", ".join(names) for verdict, names in named.items() if names]
    return f"Expected click against {baseline}: {'; '.join(parts)}."


def fidelity_panel(fidelity: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One block per way of drawing the other options: its rows and the own-minus-swapped gap.

    The gap comes with its paired interval where the check wrote one (``gaps``).
    """
    gaps = fidelity.get("gaps") or {}
    blocks = []
    for sampler in dict.fromkeys(row["sampler"] for row in fidelity["rows"]):
        rows = [row for row in fidelity["rows"] if row["sampler"] == sampler]
        accuracy = {row["chooser"]: row["accuracy"]["mean"] for row in rows}
        own, swapped = accuracy.get("simulator"), accuracy.get("swapped history")
        gap = gaps.get(sampler)
        if gap is None and own is not None and swapped is not None:
            gap = {"mean": own - swapped, "low": None, "high": None}
        blocks.append({"sampler": sampler, "rows": rows, "gap": gap})
    return blocks


def _cell(
    agent: Mapping[str, Any], metric: Metric, agents: list[dict[str, Any]], baseline: str
) -> dict[str, Any]:
    block = agent["metrics"][metric.key]
    difference = (agent["vs_baseline"] or {}).get(metric.key)
    verdict = verdict_vs_baseline(agent, metric)
    title = ""
    if difference is not None and difference["low"] is not None:
        parts = (metric.text(difference[k], sign=True) for k in ("mean", "low", "high"))
        title = "{} [{}, {}]: ".format(*parts) + _VERDICTS[verdict].format(baseline)
    return {
        "value": block["mean"],
        "text": metric.text(block["mean"]),
        "interval": None if block["low"] is None else metric.range(block["low"], block["high"]),
        "verdict": verdict,
        "title": title,
        "best": is_best(agent, metric, agents, baseline),
    }


def is_best(
    agent: Mapping[str, Any], metric: Metric, agents: list[dict[str, Any]], baseline: str
) -> bool:
    """The best value of a column, if a paired interval establishes it against the baseline.

    The baseline itself is best only if every other agent is established as worse.
    """
    if metric.direction == "neutral":
        return False
    if agent["name"] == baseline:
        others = [a for a in agents if a["name"] != baseline]
        return bool(others) and all(verdict_vs_baseline(a, metric) == WORSE for a in others)
    values = [v for a in agents if (v := a["metrics"][metric.key]["mean"]) is not None]
    top = (max if metric.direction == "higher" else min)(values, default=None)
    established = verdict_vs_baseline(agent, metric) == BETTER
    return established and agent["metrics"][metric.key]["mean"] == top
