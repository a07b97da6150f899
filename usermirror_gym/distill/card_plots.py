"""Histograms of a data card as inline SVG, in the style of the benchmark report."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from usermirror_gym.distill.histogram import Histogram
from usermirror_gym.evaluate.plots import ACCENT, MUTED, SECOND, draw_svg

_HEIGHT = 2.5
_MOST_TICKS = 16


def histogram_svg(histogram: Histogram, prefix: str) -> str:
    """Shares of each series: the first filled, the others as outlines.

    Args:
        histogram: what to draw.
        prefix: begins every id inside the SVG; must be unique on a page.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        styles: list[dict[str, Any]] = [
            {"fill": True, "facecolor": ACCENT, "alpha": 0.45, "lw": 0},
            {"edgecolor": SECOND, "lw": 1.8},
            {"edgecolor": MUTED, "lw": 1.8, "ls": "--"},
        ]
        for number, name in enumerate(histogram.series):
            shares, style = histogram.shares(name), styles[min(number, len(styles) - 1)]
            axes.stairs(shares, histogram.edges, baseline=0, label=name, **style)
        if histogram.single:
            # Not every bin has room for its label.
            every = -(-len(histogram.bins) // _MOST_TICKS)
            axes.set_xticks(
                [edge + 0.5 for edge in histogram.edges[:-1:every]], histogram.bins[::every]
            )
        axes.set_xlabel(histogram.unit)
        axes.set_xlim(histogram.edges[0], histogram.edges[-1])
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], min_n_ticks=1))
        axes.grid(axis="y", lw=0.6)
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, borderaxespad=0,
            handlelength=1.4,
        )  # fmt: skip

    return draw_svg(draw, _HEIGHT, prefix)
