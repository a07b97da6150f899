"""The report's plots as inline SVG that follows the page's colours, light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from usermirror_gym.benchmark.summary import OFFLINE_METRIC, offline_value
from usermirror_gym.benchmark.table import ranked
from usermirror_gym.report.plots import (
    ACCENT,
    FG,
    MUTED,
    SECOND,
    Plot,
    draw_svg,
    interval_line,
    legend_above,
    scatter,
)
from usermirror_gym.report.text import Block, interval, shorten

_LABEL = 18
"""Characters of a name beside a point or an axis."""


def all_plots(results: Mapping[str, Any], steps: pd.DataFrame) -> list[Plot]:
    """Every plot that the results can fill, in the report's order."""
    plots = [click_plot(results), offline_plot(results), session_plot(results, steps),
             exposure_plot(results)]  # fmt: skip
    return [plot for plot in plots if plot is not None]


def click_plot(results: Mapping[str, Any]) -> Plot:
    """Click rate and expected click of each agent with intervals."""
    agents = ranked(results["agents"])[::-1]
    names = [a["name"] for a in agents]
    baseline = results["intervals"]["baseline"]
    pop = agents[names.index(baseline)]["metrics"]["expected_click"]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for key, shift, color, label in (
            ("ctr", -0.14, SECOND, "Click rate"), ("expected_click", 0.14, ACCENT, "Expected click")
        ):  # fmt: skip
            blocks, at = [a["metrics"][key] for a in agents], np.arange(len(agents)) + shift
            for block, y in zip(blocks, at, strict=True):
                interval_line(axes, block, y, upright=False, color=color, lw=2)
            values = [np.nan if b["mean"] is None else b["mean"] for b in blocks]
            axes.plot(values, at, "o", color=color, ms=5.5, label=label)
        if pop["mean"] is not None:
            axes.axvline(pop["mean"], color=MUTED, lw=1, ls="--", zorder=0)
        axes.set_yticks(range(len(names)), [shorten(name, _LABEL) for name in names])
        axes.tick_params(axis="y", length=0, labelcolor=FG)
        axes.spines["left"].set_visible(False)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(axis="x", lw=0.6)
        legend_above(axes, handletextpad=0.2)

    return Plot(
        "How often the user clicks",
        f"Bars are 95% intervals over users. The dashed line is the expected click of {baseline}.",
        "Expected click probability by agent, best first: "
        + _listing(agents[::-1], "expected_click"),
        draw_svg(draw, 0.34 * len(agents) + 1.2, "clicks"),
    )


def offline_plot(results: Mapping[str, Any]) -> Plot | None:
    """Offline accuracy against the simulated sessions; ``None`` without offline numbers."""
    pairs = [
        (offline, a["metrics"]["expected_click"], a["name"])
        for a in results["agents"]
        if (offline := offline_value(a["offline"], OFFLINE_METRIC)) is not None
        and a["metrics"]["expected_click"]["mean"] is not None
    ]
    if len(pairs) < 2:
        return None
    x, blocks, names = zip(*pairs, strict=True)
    correlation = results["rank_correlation"]
    agreement = "Too few agents for a rank correlation."
    if correlation is not None:
        tau, rho = (
            interval(correlation["expected_click"][kind], ".2f", missing="undefined")
            for kind in ("kendall_tau_b", "spearman")
        )
        agreement = (
            f"Rank agreement over {correlation['n_agents']} agents: Kendall tau-b {tau}, Spearman "
            f"{rho}; the intervals resample simulated users and hold the offline numbers fixed."
        )

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xlabel("Offline NDCG@10 on real choices after the cut")
        axes.set_ylabel("Expected click in sessions")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        _scatter(axes, x, blocks, names, results)

    return Plot(
        "Does offline accuracy predict the sessions?", agreement,
        "Scatter of offline NDCG@10 and expected click for " + ", ".join(names) + ". " + agreement,
        draw_svg(draw, 4.1, "offline"),
    )  # fmt: skip


def session_plot(results: Mapping[str, Any], steps: pd.DataFrame) -> Plot:
    """Share of the started sessions that click at each step, one small panel per agent."""
    names = [a["name"] for a in ranked(results["agents"])]
    baseline = results["intervals"]["baseline"]
    curves = click_curves(steps)
    columns = min(3, len(names))
    rows = -(-len(names) // columns)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes, name in zip(panels.flat, names, strict=False):
            at = np.arange(1, curves.shape[1] + 1)
            marker = "o" if len(at) < 3 else None
            if name != baseline:
                axes.plot(at, curves.loc[baseline], color=MUTED, lw=1, ls="--", marker=marker, ms=3)
            axes.plot(at, curves.loc[name], color=ACCENT, lw=1.8, marker=marker, ms=4)
            axes.set_title(shorten(name, 13), loc="left")
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.yaxis.set_major_locator(MaxNLocator(3))
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
            axes.grid(lw=0.6)
            axes.set_ylim(bottom=0)
        for unused in range(len(names), rows * columns):
            panels.flat[unused].set_visible(False)
            if unused >= columns:
                panels.flat[unused - columns].tick_params(labelbottom=True)
        figure.supxlabel("Step of the session", color=MUTED, fontsize=10.5)

    ends = (f"{n} from {c.iloc[0]:.0%} to {c.iloc[-1]:.0%}" for n in names for c in [curves.loc[n]])
    return Plot(
        "Clicks over the session",
        "Share of all started sessions with a click at each step; a user who has left counts as no "
        f"click, so a curve falls when users tire or leave. Dashed: {baseline}.",
        "Click rate by step for each agent: "
        + "; ".join(ends),
        draw_svg(draw, 1.42 * rows + 0.4, "session"),
    )  # fmt: skip


def exposure_plot(results: Mapping[str, Any]) -> Plot | None:
    """Popularity of what was shown against the variety inside a slate."""
    agents = [
        a for a in results["agents"]
        if a["metrics"]["intra_list_diversity"]["mean"] is not None
        and a["metrics"]["popularity"]["mean"] is not None
    ]  # fmt: skip
    if len(agents) < 2:
        return None
    x = [a["metrics"]["popularity"]["mean"] for a in agents]
    names = [a["name"] for a in agents]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        # The axis runs on past 100 % to make room for labels.
        axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}" if share <= 1 else "")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel("Popularity percentile of the items shown")
        axes.set_ylabel("Genre diversity inside a slate")
        _scatter(axes, x, [a["metrics"]["intra_list_diversity"] for a in agents], names, results)

    return Plot(
        "What the user gets to see",
        "To the right: better-known items. Upwards: slates that mix more genres.",
        "Popularity percentile by agent: " + _listing(agents, "popularity"),
        draw_svg(draw, 4.1, "exposure"),
    )


def click_curves(steps: pd.DataFrame) -> pd.DataFrame:
    """Clicks at each step divided by the sessions started: agents as rows, steps as columns."""
    clicked = (steps["choice"] < steps["slate"].map(len)).astype(float)
    table = steps.assign(clicked=clicked)
    clicks = table.pivot_table(index="agent", columns="step", values="clicked", aggfunc="sum")
    started = steps.groupby("agent")["episode"].nunique()
    return clicks.fillna(0.0).div(started, axis=0)


def _scatter(
    axes: Axes, x: Sequence[float], y: Sequence[Block], names: Sequence[str],
    results: Mapping[str, Any],
) -> None:  # fmt: skip
    baseline = results["intervals"]["baseline"]
    colors = [MUTED if name == baseline else ACCENT for name in names]
    places: list[Block] = [{"mean": value, "low": None} for value in x]
    scatter(axes, places, y, [shorten(name, _LABEL) for name in names], colors)


def _listing(agents: Sequence[Mapping[str, Any]], key: str) -> str:
    return ", ".join(
        f"{a['name']} {interval(a['metrics'][key], missing='undefined')}" for a in agents
    )
