"""The results as a terminal table of at most 100 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from usermirror_gym.benchmark.metrics import METRICS, Metric
from usermirror_gym.benchmark.summary import OFFLINE_METRIC, offline_value
from usermirror_gym.report.tables import MARKS, plain_table
from usermirror_gym.report.text import (
    BETTER,
    DIFFERENT,
    MISSING,
    WORSE,
    interval,
    plus_minus,
    standing,
)


def results_table(results: Mapping[str, Any]) -> Table:
    """Agents as rows, best expected click first; ± is half the width of the 95% interval.

    ▲ / ▼ mark values that are better / worse than the baseline's by a paired interval that
    excludes zero.  Takes the content of ``results.json``.
    """
    run, baseline = results["run"], results["intervals"]["baseline"]
    table = plain_table(
        title=f"{run['users']} users x {len(results['agents'])} agents on "
        f"{results['dataset']['name']}, simulated by {results['simulator'] or 'unknown'}",
        caption=_caption(results),
    )
    table.add_column("Agent", overflow="fold", max_width=16)
    shown = {metric: metric.column for metric in METRICS.values() if metric.column is not None}
    for header in (*(header for header, _ in shown.values()), "NDCG@10"):
        table.add_column(header, justify="right", no_wrap=True)
    for agent in ranked(results["agents"]):
        cells = [_cell(agent, metric, digits) for metric, (_, digits) in shown.items()]
        offline = offline_value(agent["offline"], OFFLINE_METRIC)
        name = Text(agent["name"], style="bold" if agent["name"] != baseline else "bold cyan")
        table.add_row(name, *cells, MISSING if offline is None else f"{offline:.4f}")
    return table


def ranked(agents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Agents by falling expected click; without a value last."""
    return sorted(agents, key=lambda a: -(a["metrics"]["expected_click"]["mean"] or 0.0))


def verdict_vs_baseline(agent: Mapping[str, Any], metric: Metric) -> str:
    """``"better"``, ``"worse"``, ``"different"`` (a neutral metric) or ``""`` (not established)."""
    block = (agent["vs_baseline"] or {}).get(metric.key)
    found = standing(block, lower_is_better=metric.direction == "lower")
    return DIFFERENT if found and metric.direction == "neutral" else found


def _cell(agent: Mapping[str, Any], metric: Metric, digits: int) -> Text:
    block, verdict = agent["metrics"][metric.key], verdict_vs_baseline(agent, metric)
    if block["mean"] is None:
        return Text(MISSING)
    scale = 100 if metric.format.endswith("%") else 1
    value, sign, half = plus_minus(block, f".{digits}f", scale=scale).partition("±")
    mark = MARKS[verdict] if verdict in (BETTER, WORSE) else " "
    return Text.assemble(value, (sign + half, "dim"), (mark, "green" if mark == "▲" else "red"))


def _caption(results: Mapping[str, Any]) -> Text:
    baseline = results["intervals"]["baseline"]
    lines = [
        "Exp. = expected click. ± half a 95% interval over users; "
        f"▲▼ better / worse than {baseline} (paired interval excludes zero)."
    ]
    correlation = results["rank_correlation"]
    if correlation is not None:
        tau = correlation["expected_click"]["kendall_tau_b"]
        lines.append(
            f"Kendall tau-b of offline NDCG@10 and expected click over {correlation['n_agents']} "
            f"agents: {interval(tau, '.2f', missing='undefined')}."
        )
    return Text("\n".join([*lines, fidelity_sentence(results["fidelity"])]), style="not italic")


def fidelity_sentence(fidelity: Mapping[str, Any] | None) -> str:
    """How far the simulated user can be trusted, in one sentence."""
    if fidelity is None:
        return "Fidelity was not checked: nothing here ties this ranking to real users."
    return f"Fidelity ({fidelity['scenes']} real choices): {fidelity['verdict']}"
