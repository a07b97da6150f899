"""What several checks read from a card, write into its sentences and draw in its plots."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from usermirror_gym.fidelity.checks.base import Card
from usermirror_gym.report.plots import ACCENT, FG, MUTED, SECOND, interval_line
from usermirror_gym.report.tables import Cell
from usermirror_gym.report.text import MISSING, Block, interval, points, standing

NO_CHANGE = 5e-4
"""A smaller change of a probability would be printed as zero."""
KINDS = {
    "simulator": "this simulator", "swapped": "another's history",
    "base": "base model", "control": "control", "classic": "classic chooser",
    "reference": "upper reference",
}  # fmt: skip
_MARKS: dict[str, tuple[str, str, bool]] = {
    "simulator": ("o", ACCENT, True), "swapped": ("o", ACCENT, False),
    "base": ("s", ACCENT, False), "control": ("o", MUTED, True), "classic": ("D", SECOND, True),
    "reference": ("^", FG, True),
}  # fmt: skip
"""Marker, colour, and whether it is filled: kinds are told apart without colour too."""


def own(card: Card) -> Mapping[str, Any]:
    """The chooser that the card is about."""
    return next(c for c in card["choosers"] if c["kind"] == "simulator")


def sorted_choosers(card: Card) -> list[dict[str, Any]]:
    """Choosers by log-loss, best first; without a value last."""

    def key(chooser: Mapping[str, Any]) -> float:
        loss = chooser["overall"]["forced"]["log_loss"]["mean"]
        return math.inf if loss is None else float(loss)

    return sorted(card["choosers"], key=key)


def pair_standing(pair: Mapping[str, Any]) -> tuple[str, str]:
    """How the chooser stands in accuracy and in log-loss."""
    return standing(pair["accuracy"]), standing(pair["log_loss"], lower_is_better=True)


def pair_cells(pair: Mapping[str, Any] | None) -> tuple[Cell, Cell]:
    """Both differences, marked where their interval excludes zero; empty without a pair."""
    if pair is None:
        return Cell(""), Cell("")
    accuracy, loss = pair_standing(pair)
    return (
        Cell(points(pair["accuracy"], sign=True), accuracy),
        Cell(interval(pair["log_loss"], ".3f", sign=True), loss),
    )


def share(value: float | None) -> str:
    """A share in percent."""
    return MISSING if value is None else f"{100 * value:.1f}"


def number(value: float | None) -> str:
    """Three digits."""
    return MISSING if value is None else f"{value:.3f}"


def percent(axis: Axis, ticks: int | None = None) -> None:
    """Shares along an axis in percent, with at most so many ticks."""
    axis.set_major_formatter(PercentFormatter(1, decimals=0))
    if ticks is not None:
        axis.set_major_locator(MaxNLocator(ticks))


def named_rows(axes: Axes) -> None:
    """Rows with names on the left, and a grid across them."""
    axes.tick_params(axis="y", length=0, labelcolor=FG)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", lw=0.6)


def bar(axes: Axes, block: Block, y: float, kind: str) -> None:
    """A value and its interval in a row, marked as that kind of chooser."""
    if block["mean"] is not None:
        interval_line(axes, block, y, upright=False, color=_MARKS[kind][1], lw=1.8, alpha=0.75)
        axes.plot(block["mean"], y, **_marker(kind))


def handle(kind: str, label: str | None = None) -> Line2D:
    """The entry of a kind in a legend."""
    return Line2D([], [], label=label or KINDS[kind], **_marker(kind))


def _marker(kind: str) -> dict[str, Any]:
    marker, color, filled = _MARKS[kind]
    face = color if filled else "none"
    return {"ls": "", "marker": marker, "color": color, "ms": 5.5, "mfc": face}
