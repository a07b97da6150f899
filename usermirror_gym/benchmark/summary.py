"""From the step log to the content of ``results.json``.

Schema (version 1; plain JSON types, ``null`` where there is no value)::

    schema_version: 1
    simulator: str
    config, timing, fidelity: as given (``fidelity`` and ``timing`` may be null)
    versions: {package: version}
    dataset: {name, domain, n_users, n_items, n_interactions, n_before, t0}
    run: {episodes, users, steps, slate_size, seconds_per_step, prompt_tokens_per_step,
          cached_share}
    intervals: {method, confidence, n_resamples, seed, baseline}
    agents: [{name, episodes, steps, fit_seconds,
              metrics:     {metric: {mean, low, high}},
              vs_baseline: {metric: {mean, low, high}} or null for the baseline itself,
              offline:     {metric: float}}]
    rank_correlation: null or {offline, n_agents,
              ctr | expected_click: {kendall_tau_b | spearman: {value, low, high}}}

``vs_baseline`` is the mean over episodes of the paired difference (agent minus baseline); for
metrics of the whole catalogue it is the plain difference.  Those have no interval: the number of
different items in a resample of users is biased downwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from usermirror_gym.benchmark.metrics import (
    CATALOGUE_METRICS,
    EPISODE_METRICS,
    agent_metrics,
    episode_metrics,
)
from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import UnknownNameError
from usermirror_gym.files import to_json_types
from usermirror_gym.measures.bootstrap import Interval, UserBootstrap, kendall_tau_b, spearman
from usermirror_gym.run_folder import package_versions
from usermirror_gym.types import FloatArray

SCHEMA_VERSION = 1
OFFLINE_METRIC = "ndcg@10"


def summarise(
    steps: pd.DataFrame,
    split: TimeSplit,
    offline: Mapping[str, Mapping[str, float]] | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    fidelity: Mapping[str, Any] | None = None,
    timing: Mapping[str, Any] | None = None,
    fit_seconds: Mapping[str, float] | None = None,
    baseline: str | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Every number of a benchmark, as the plain types of the schema above.

    Args:
        steps: the step log, one row per step (see :mod:`usermirror_gym.benchmark.metrics`).
        split: the data the agents were fitted on.
        offline: offline metrics by agent, for example ``{"EASE": {"ndcg@10": 0.31}}``.
        config: the settings of the run, shown in the report.
        fidelity: the check of the simulator against real choices; ``None`` if it was not run.
        timing: seconds by phase.
        fit_seconds: training time by agent.
        baseline: the agent that others are compared with; by default ``"Pop"``, else the first.
        n_resamples: bootstrap resamples of users.
        seed: of the resampling.

    Raises:
        DataError: the step log cannot be used.
        UnknownNameError: ``baseline`` is not among the agents.
    """
    episodes = episode_metrics(steps, split)
    table = agent_metrics(steps, split)
    catalogue = {str(name): dict(row) for name, row in table.iterrows()}
    names = list(catalogue)
    if baseline is None:
        baseline = "Pop" if "Pop" in names else names[0]
    if baseline not in names:
        raise UnknownNameError("baseline agent", baseline, names)
    owner = episodes.drop_duplicates("episode").set_index("episode")["user_id"].sort_index()
    bootstrap = UserBootstrap(owner.to_numpy(), n_resamples, seed)
    # (E, M) of each agent, rows in the order of the owners; NaN where an episode is absent.
    columns = list(EPISODE_METRICS)
    values = {
        str(name): rows.set_index("episode")[columns].reindex(owner.index).to_numpy(np.float64)
        for name, rows in episodes.groupby("agent", sort=False)
    }
    offline = offline or {}

    def versus(name: str) -> dict[str, dict[str, float]] | None:
        if name == baseline:
            return None
        difference = {k: v - catalogue[baseline][k] for k, v in catalogue[name].items()}
        return _mean_block(values[name] - values[baseline], difference, bootstrap)

    rows = [
        {
            "name": name,
            "episodes": int((episodes["agent"] == name).sum()),
            "steps": int((steps["agent"] == name).sum()),
            "fit_seconds": (fit_seconds or {}).get(name),
            "metrics": _mean_block(values[name], catalogue[name], bootstrap),
            "vs_baseline": versus(name),
            "offline": dict(offline.get(name, {})),
        }
        for name in names
    ]
    results = {
        "schema_version": SCHEMA_VERSION,
        "simulator": ", ".join(dict.fromkeys(map(str, steps.get("simulator", [])))) or None,
        "config": dict(config or {}),
        "versions": package_versions(),
        "dataset": _describe(split),
        "run": _run(steps),
        "intervals": {
            "method": "percentile bootstrap over users, paired across agents",
            "confidence": bootstrap.confidence,
            "n_resamples": n_resamples,
            "seed": seed,
            "baseline": baseline,
        },
        "fidelity": fidelity,
        "agents": rows,
        "rank_correlation": rank_correlation(values, offline, bootstrap),
        "timing": timing,
    }
    return to_json_types(results)


def rank_correlation(
    values: Mapping[str, FloatArray],
    offline: Mapping[str, Mapping[str, float]],
    bootstrap: UserBootstrap,
) -> dict[str, Any] | None:
    """How far the offline NDCG@10 and the simulated sessions rank the agents alike.

    Kendall's tau-b and Spearman's rank correlation.  The intervals resample the simulated users;
    the offline metric is held fixed.  ``None`` with fewer than three agents that have both.
    """
    scores = {name: offline_value(offline.get(name, {}), OFFLINE_METRIC) for name in values}
    names = [name for name, score in scores.items() if score is not None]
    if len(names) < 3:
        return None
    x = np.array([scores[name] for name in names], np.float64)
    out: dict[str, Any] = {"offline": OFFLINE_METRIC, "n_agents": len(names)}
    for metric in ("ctr", "expected_click"):
        column = list(EPISODE_METRICS).index(metric)
        table = np.column_stack([values[name][:, column] for name in names])
        means, resampled = np.nanmean(table, axis=0, keepdims=True), bootstrap.means(table)
        enough = len(np.unique(bootstrap.user_ids)) > 1
        out[metric] = {}
        for label, f in (("kendall_tau_b", kendall_tau_b), ("spearman", spearman)):
            value = float(f(x, means)[0])
            found = bootstrap.interval(value, f(x, resampled) if enough else None)
            out[metric][label] = {"value": value, "low": found.low, "high": found.high}
    return out


def offline_value(metrics: Mapping[str, Any], name: str) -> float | None:
    """A finite offline metric by name, whatever its capitals; ``None`` if absent."""
    found = {str(k).lower(): v for k, v in metrics.items()}.get(name.lower())
    return None if found is None or not math.isfinite(found) else float(found)


def _mean_block(
    values: FloatArray, catalogue: Mapping[Any, float], bootstrap: UserBootstrap
) -> dict[str, dict[str, float]]:
    """``{metric: {mean, low, high}}`` of ``(E, M)`` episode values and the catalogue metrics."""
    blocks = dict(zip(EPISODE_METRICS, bootstrap.intervals(values), strict=True))
    blocks |= {k: Interval(float(catalogue[k]), math.nan, math.nan) for k in CATALOGUE_METRICS}
    return {key: interval._asdict() for key, interval in blocks.items()}


def _describe(split: TimeSplit) -> dict[str, Any]:
    data = split.dataset
    return {
        "name": data.name,
        "domain": data.domain,
        "n_users": data.n_users,
        "n_items": data.n_items,
        "n_interactions": len(data.interactions),
        "n_before": len(split.before),
        "t0": split.t0,
    }


def _run(steps: pd.DataFrame) -> dict[str, Any]:
    counts = steps.reindex(columns=["seconds", "prompt_tokens", "cached_tokens"])
    seconds, prompt, cached = counts.apply(pd.to_numeric).sum(min_count=1).tolist()
    return {
        "episodes": int(steps["episode"].nunique()),
        "users": int(steps["user_id"].nunique()),
        "steps": len(steps),
        "slate_size": int(steps["slate"].map(len).max()),
        "seconds_per_step": seconds / len(steps),
        "prompt_tokens_per_step": prompt / len(steps),
        "cached_share": cached / prompt if prompt else math.nan,
    }
