"""``report.html``: one self-contained page with the results of a benchmark."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from usermirror_gym.benchmark.metrics import METRICS, Metric
from usermirror_gym.benchmark.plots import all_plots
from usermirror_gym.benchmark.summary import OFFLINE_METRIC, offline_value, summarise
from usermirror_gym.benchmark.table import ranked, results_table, verdict_vs_baseline
from usermirror_gym.benchmark.viewer import embed_json, viewer_data
from usermirror_gym.data import TimeSplit
from usermirror_gym.files import write_text
from usermirror_gym.report.text import MISSING

__all__ = ["render_report", "results_table", "summarise", "write_report"]

# The share of steps without a choice is the complement of the click rate.
_COLUMNS = [m for m in METRICS.values() if m.key != "no_choice_rate"]
_OFFLINE = (("ndcg@10", "NDCG@10"), ("recall@10", "Recall@10"))
_VERDICTS = {
    "better": "better than {0}", "worse": "worse than {0}", "different": "different from {0}",
    "": "no difference from {0} established",
}  # fmt: skip


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
    page = render_report(results, steps, split, max_episodes=max_episodes)
    # Titles may hold lone surrogates, which no file can.
    return write_text(Path(path), page.encode("utf-8", "replace").decode("utf-8"))


def render_report(
    results: Mapping[str, Any],
    steps: pd.DataFrame,
    split: TimeSplit,
    *,
    max_episodes: int = 20,
) -> str:
    """The page as text; arguments as :func:`write_report`."""
    agents = ranked(results["agents"])
    data = viewer_data(steps, split, max_episodes)
    # The viewer opens with the best agent, beside the baseline where there is room.
    data["agents"] = [agent["name"] for agent in agents]
    data["baseline"] = results["intervals"]["baseline"]
    script = _asset("report.js")
    return _environment().get_template("report.html").render(
        results=results,
        agents=agents,
        baseline=results["intervals"]["baseline"],
        cut=datetime.fromtimestamp(results["dataset"]["t0"], UTC).strftime("%Y-%m-%d %H:%M UTC"),
        columns=_COLUMNS,
        offline_columns=_OFFLINE,
        rows=[_table_row(agent, agents, results) for agent in agents],
        headline=headline(results),
        engine_notes=engine_notes((results["timing"] or {}).get("engine")),
        fidelity=results["fidelity"] and fidelity_panel(results["fidelity"]),
        plots=[(p, Markup(p.svg)) for p in all_plots(results, steps)],
        metrics=METRICS.values(),
        settings=flatten(results["config"]),
        versions=results["versions"],
        timing=flatten(results["timing"] or {}),
        viewer_json=embed_json(data),
        embedded=len(data["episodes"]),
        style=Markup(_asset("report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip


def headline(results: Mapping[str, Any]) -> str:
    """Which agents are above the baseline in expected click, beyond the noise between users."""
    metric, baseline = METRICS["expected_click"], results["intervals"]["baseline"]
    others = [a for a in ranked(results["agents"]) if a["name"] != baseline]
    if not others:
        return f"Only {baseline} was run; there is nothing to compare it with."

    parts = []
    for verdict, text in (
        ("better", "above it "), ("worse", "below it "), ("", "not told apart by these users: ")
    ):  # fmt: skip
        names = [a["name"] for a in others if verdict_vs_baseline(a, metric) == verdict]
        if names:
            parts.append(text + ", ".join(names))
    return f"Expected click against {baseline}: {'; '.join(parts)}."


def engine_notes(engine: Mapping[str, Any] | None) -> list[str]:
    """What a reader must know of the engine behind the simulator; nothing if all is as usual.

    Args:
        engine: its report: ``answers`` of a store, ``replicas`` of a server.
    """
    report = engine or {}
    notes = [
        f"The server {host} failed {replica['failed']:,} times ({replica['last_error']}) and "
        f"answered {replica['answered']:,} questions; the others answered its questions."
        for host, replica in report.get("replicas", {}).items()
        if replica["failed"]
    ]
    if "unreadable_samples" in report:
        notes.append(
            "Choice probabilities are estimates from sampled answers; "
            f"{report['unreadable_samples']:,} of these named no option."
        )
    rate = report.get("answers", {}).get("hit_rate")
    if rate is not None:
        notes.append(f"{rate:.1%} of the model's answers came from the answer store.")
    return notes


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


def flatten(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as ``("a.b", "value")`` rows."""
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            rows += flatten(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)):
            rows.append((f"{prefix}{key}", ", ".join(map(str, value))))
        else:
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            rows.append((f"{prefix}{key}", MISSING if value is None else text))
    return rows


def _table_row(
    agent: Mapping[str, Any], agents: list[dict[str, Any]], results: Mapping[str, Any]
) -> dict[str, Any]:
    baseline = results["intervals"]["baseline"]
    return {
        "name": agent["name"],
        "is_baseline": agent["name"] == baseline,
        "cells": [_cell(agent, metric, agents, baseline) for metric in _COLUMNS],
        "offline": [offline_value(agent["offline"], key) for key, _ in _OFFLINE],
        "fit_seconds": agent["fit_seconds"],
    }


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
        return bool(others) and all(verdict_vs_baseline(a, metric) == "worse" for a in others)
    values = [v for a in agents if (v := a["metrics"][metric.key]["mean"]) is not None]
    top = (max if metric.direction == "higher" else min)(values, default=None)
    established = verdict_vs_baseline(agent, metric) == "better"
    return established and agent["metrics"][metric.key]["mean"] == top


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("usermirror_gym.report"),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.globals |= {"missing": MISSING, "offline_metric": OFFLINE_METRIC}
    return environment


def _asset(name: str) -> str:
    return files("usermirror_gym.report").joinpath("templates", name).read_text(encoding="utf-8")
