"""Plots of a fidelity card, in the style of the benchmark report (:mod:`.plots`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from usermirror_gym.fidelity.show.sentences import own
from usermirror_gym.fidelity.show.tables import KINDS, rival, slice_groups, sorted_choosers
from usermirror_gym.report.plots import ACCENT, FG, MUTED, SECOND, Plot, draw_svg
from usermirror_gym.report.text import interval, points

_MARKS: dict[str, tuple[str, str, bool]] = {
    "simulator": ("o", ACCENT, True), "swapped": ("o", ACCENT, False),
    "base": ("s", ACCENT, False), "control": ("o", MUTED, True), "classic": ("D", SECOND, True),
    "reference": ("^", FG, True),
}  # fmt: skip
"""Marker, colour, and whether it is filled: kinds are told apart without colour too."""


def card_plots(card: Mapping[str, Any]) -> dict[str, Plot]:
    """The plots that the card can fill, by section: ``choosers``, ``calibration`` ..."""
    made = {
        "choosers": choosers_plot(card),
        "calibration": reliability_plot(card),
        "slices": slices_plot(card),
        "outside": ladder_plot(card),
        "positions": positions_plot(card),
    }
    return {name: plot for name, plot in made.items() if plot is not None}


def choosers_plot(card: Mapping[str, Any]) -> Plot:
    """Accuracy and log-loss of every chooser with intervals, best log-loss first."""
    choosers = sorted_choosers(card)[::-1]
    kinds = [kind for kind in KINDS if any(c["kind"] == kind for c in choosers)]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.08})
        for axes, metric in ((left, "accuracy"), (right, "log_loss")):
            _intervals(axes, choosers, metric)
            axes.set_xlabel(
                {"accuracy": "Accuracy", "log_loss": "Log-loss (less is better)"}[metric]
            )
            axes.tick_params(axis="y", length=0, labelcolor=FG)
            axes.spines["left"].set_visible(False)
            axes.grid(axis="x", lw=0.6)
            axes.xaxis.set_major_locator(MaxNLocator(4))
        left.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        left.set_yticks(range(len(choosers)), [_short(c["name"]) for c in choosers])
        handles = [_handle(kind) for kind in kinds]
        figure.legend(
            handles=handles, loc="outside upper left", ncols=3, frameon=False, handletextpad=0.2
        )

    blocks = [(c["name"], c["overall"]["forced"]) for c in choosers[::-1]]
    best = ", ".join(
        f"{name} {points(block['accuracy'])} % and {interval(block['log_loss'], '.3f')}"
        for name, block in blocks
    )
    return Plot(
        "Who predicts the real choice",
        "Lists that hold the true item, none of these left out. Bars are 95% intervals over users; "
        "whether two choosers differ is said by the paired differences in the table, not by "
        "whether their bars overlap.",
        f"Accuracy and log-loss, best log-loss first: {best}.",
        draw_svg(draw, 0.27 * len(choosers) + 1.5, "choosers"),
    )


def reliability_plot(card: Mapping[str, Any]) -> Plot | None:
    """How often the likeliest item is right, by the probability it was given."""
    calibration = own(card)["calibration"]
    bins = [row for row in (calibration or {}).get("bins", []) if row["n"]]
    if not bins:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls="--")
        x, y = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
        axes.plot(x, y, color=ACCENT, lw=1.4)
        axes.scatter(x, y, color=ACCENT, s=26, zorder=3)
        top = min(1.0, max([*x, *y]) + 0.08)
        low = max(0.0, min([*x, *y]) - 0.08)
        axes.set_xlim(low, top)
        axes.set_ylim(low, top)
        axes.set_xlabel("Probability of the likeliest item")
        axes.set_ylabel("How often it is right")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
            axis.set_major_locator(MaxNLocator(5))
        axes.grid(lw=0.6)

    ece = calibration["ece"]
    sizes = sorted({row["n"] for row in bins})
    each = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return Plot(
        "Do its probabilities mean what they say?",
        f"Each point is {each} lists; on the dashed line, an item given 40% is right in 40%. "
        f"Expected calibration error {interval(ece, '.3f')}.",
        "Reliability: " + ", ".join(f"{b['confidence']:.0%} given, {b['accuracy']:.0%} right"
                                    for b in bins),
        draw_svg(draw, 3.6, "reliability"),
    )  # fmt: skip


def slices_plot(card: Mapping[str, Any]) -> Plot | None:
    """Accuracy of the simulator and of its strongest rival, slice by slice."""
    # A few lists have intervals as wide as the axis: they are in the table.
    found = slice_groups(own(card))
    groups = [(name, [row for row in rows if not row["few"]]) for name, rows in found]
    groups = [(name, rows) for name, rows in groups if rows]
    if not groups:
        return None
    other = rival(card)
    known = {(g, r["value"]): r for g, rows in slice_groups(other) for r in rows} if other else {}
    heights: list[float] = []
    labels: list[tuple[float, str, bool]] = []
    rows: list[tuple[float, str, Mapping[str, Any]]] = []
    at = 0.0
    for group, members in groups:
        labels.append((at, group, True))
        for row in members:
            at -= 1
            labels.append((at, f"{row['value']} ({row['n']:,})", False))
            rows.append((at, group, row))
        at -= 1.4
    heights.append(-at)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for y, group, row in rows:
            _bar(axes, row["accuracy"], y + 0.12, "simulator")
            if (rival_row := known.get((group, row["value"]))) is not None and other is not None:
                _bar(axes, rival_row["accuracy"], y - 0.2, other["kind"])
        axes.set_yticks([y for y, _, _ in labels], [_short(t, 30) for _, t, _ in labels])
        for tick, (_, _, head) in zip(axes.get_yticklabels(), labels, strict=True):
            tick.set_fontweight("bold" if head else "normal")
        axes.tick_params(axis="y", length=0, labelcolor=FG)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(at + 0.8, 0.7)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.grid(axis="x", lw=0.6)
        handles = [_handle("simulator", "this simulator")]
        if other is not None:
            handles.append(_handle(other["kind"], _short(other["name"], 30)))
        axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=2,
                    frameon=False, borderaxespad=0, handletextpad=0.2)  # fmt: skip

    against = f", beside {other['name']}, the rival with the least log-loss" if other else ""
    return Plot(
        "Accuracy by kind of list and user",
        f"This simulator{against}. In brackets the number of lists; slices of less than 30 are in "
        "the table alone. Bars are 95% intervals over users.",
        "Accuracy by slice: "
        + "; ".join(f"{group} {row['value']} {points(row['accuracy'])} %"
                    for _, group, row in rows),
        draw_svg(draw, 0.215 * heights[0] + 0.9, "slices"),
    )  # fmt: skip


def ladder_plot(card: Mapping[str, Any]) -> Plot | None:
    """Mean probability of *none of these*, from worse lists to better ones."""
    steps = (card["outside"] or {}).get("ladder") or []
    if not steps:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        at = range(len(steps))
        axes.plot(at, [s["p_none"]["mean"] for s in steps], color=ACCENT, lw=1.2)
        for x, step in zip(at, steps, strict=True):
            block = step["p_none"]
            if block["low"] is not None:
                axes.plot([x, x], [block["low"], block["high"]], color=ACCENT, lw=2)
            axes.plot(x, block["mean"], "o", color=ACCENT, ms=6)
        axes.set_xticks(at, [fill(_short(s["lists"], 44), 15) for s in steps])
        axes.set_xlim(-0.4, len(steps) - 0.6)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_ylabel("Probability of none of these")
        axes.grid(axis="y", lw=0.6)

    return Plot(
        "Does it leave worse lists?",
        "Mean probability of none of these for the same users and moments, from worse lists (left) "
        "to better ones. It should fall.",
        "Probability of none of these: "
        + ", ".join(f"{s['lists']} {points(s['p_none'])} %" for s in steps),
        draw_svg(draw, 3.0, "ladder"),
    )


def positions_plot(card: Mapping[str, Any]) -> Plot | None:
    """The mean probability of each place of the list."""
    blocks = own(card)["positions"]
    if not blocks:
        return None
    shares = [block["mean"] for block in blocks]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.bar(range(1, len(shares) + 1), shares, color=ACCENT, alpha=0.55, width=0.72)
        for place, block in enumerate(blocks, start=1):
            if block["low"] is not None:
                axes.plot([place, place], [block["low"], block["high"]], color=FG, lw=1.4)
        axes.axhline(1 / len(shares), color=MUTED, lw=1, ls="--")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel("Place in the list")
        axes.set_ylabel("Mean probability")
        axes.grid(axis="y", lw=0.6)

    return Plot(
        "Does it like certain places?",
        "Mean probability of the item at each place. Dashed: even shares. True items stand at "
        "every place alike, so all places should get the same.",
        "Mean probability by place: "
        + ", ".join(f"{i} {share:.1%}" for i, share in enumerate(shares, start=1)),
        draw_svg(draw, 2.5, "positions"),
    )


def _intervals(axes: Axes, choosers: Sequence[Mapping[str, Any]], metric: str) -> None:
    for y, chooser in enumerate(choosers):
        _bar(axes, _forced(chooser)[metric], y, chooser["kind"])
    guessing = next((c for c in choosers if c["name"] == "uniform"), None)
    if guessing is not None:
        axes.axvline(_forced(guessing)[metric]["mean"], color=MUTED, lw=1, ls="--", zorder=0)


def _bar(axes: Axes, block: Mapping[str, Any], y: float, kind: str) -> None:
    marker, color, filled = _MARKS[kind]
    if block["mean"] is None:
        return
    if block["low"] is not None:
        axes.plot([block["low"], block["high"]], [y, y], color=color, lw=1.8, alpha=0.75)
    axes.plot(block["mean"], y, marker, color=color, ms=5.5, mfc=color if filled else "none")


def _handle(kind: str, label: str | None = None) -> Line2D:
    marker, color, filled = _MARKS[kind]
    return Line2D([], [], ls="", marker=marker, color=color, ms=5.5,
                  mfc=color if filled else "none", label=label or KINDS[kind])  # fmt: skip


def _forced(chooser: Mapping[str, Any]) -> Mapping[str, Any]:
    forced: Mapping[str, Any] = chooser["overall"]["forced"]
    return forced


def _short(name: str, limit: int = 24) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"
