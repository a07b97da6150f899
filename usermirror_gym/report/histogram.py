"""Histograms that can be drawn with characters as well as with lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEIGHT = 2.5
_MOST_BINS = 16
_MOST_TICKS = 16
_BAR = 20
_PARTS = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True)
class Histogram:
    """Counts of one or more series over the same bins.

    Attributes:
        title: what is counted.
        unit: what the bins are, e.g. ``"characters"``.
        bins: a label per bin.
        edges: one more than bins, ascending.
        single: every bin is one value, rather than a range.
        series: name -> counts, one per bin.
    """

    title: str
    unit: str
    bins: tuple[str, ...]
    edges: tuple[float, ...]
    single: bool
    series: dict[str, tuple[float, ...]]

    @classmethod
    def of(cls, title: str, unit: str, values: Mapping[str, ArrayLike]) -> Histogram | None:
        """Count values; integers (by dtype) over a short range get a bin each.

        NaN is not counted, and a series without values is left out; ``None`` if none is left.
        """
        arrays = {name: np.asarray(v).ravel() for name, v in values.items()}
        arrays = {name: v[~np.isnan(v)] for name, v in arrays.items() if len(v)}
        arrays = {name: v for name, v in arrays.items() if len(v)}
        if not arrays:
            return None
        pooled = np.concatenate(list(arrays.values()))
        low, high = pooled.min(), pooled.max()
        whole = np.issubdtype(pooled.dtype, np.integer)
        single = bool(whole and high - low < 2 * _MOST_BINS)
        if single:
            edges = np.arange(low, high + 2) - 0.5
        else:
            edges = round_edges(float(low), float(high), smallest=1 if whole else 0)
        return cls(
            title=title,
            unit=unit,
            bins=tuple(
                f"{a + 0.5:g}" if single else f"{a:.6g} to {b:.6g}" for a, b in pairwise(edges)
            ),
            edges=tuple(edges.tolist()),
            single=single,
            series={n: tuple(np.histogram(v, edges)[0].tolist()) for n, v in arrays.items()},
        )

    def shares(self, name: str) -> np.ndarray:
        """Counts of a series divided by their sum."""
        counts = np.array(self.series[name], np.float64)
        return counts / max(counts.sum(), 1e-300)

    @property
    def spoken(self) -> str:
        """Where each series has its largest bin: the text read aloud instead of a plot."""
        tops = []
        for name in self.series:
            shares = self.shares(name)
            top = int(shares.argmax())
            tops.append(f"{name} most often {self.bins[top]} {self.unit} ({shares[top]:.0%})")
        return "; ".join(tops)

    def text(self) -> str:
        """Bars of block characters, one line a bin, one column a series."""
        shares = {name: self.shares(name) for name in self.series}
        longest = max(float(s.max()) for s in shares.values())
        left = max(len(self.unit), *(len(b) for b in self.bins))
        width = max(_BAR + 8, *(len(name) for name in shares))
        lines = [f"{self.unit:>{left}}  " + "  ".join(f"{n:<{width}}" for n in shares)]
        for row, label in enumerate(self.bins):
            cells = (f"{s[row]:>6.1%} {_bar(s[row] / longest)}" for s in shares.values())
            lines.append(f"{label:>{left}}  " + "  ".join(f"{c:<{width}}" for c in cells))
        return "\n".join(line.rstrip() for line in lines)

    def svg(self, prefix: str) -> str:
        """Shares of each series: the first filled, the others as outlines.

        Every id inside begins with ``prefix``, which must be unique on a page.
        """
        from matplotlib.ticker import MaxNLocator, PercentFormatter

        from usermirror_gym.report.plots import ACCENT, MUTED, SECOND, draw_svg, legend_above

        def draw(figure: Figure) -> None:
            axes = figure.subplots()
            styles: list[dict[str, Any]] = [
                {"fill": True, "facecolor": ACCENT, "alpha": 0.45, "lw": 0},
                {"edgecolor": SECOND, "lw": 1.8},
                {"edgecolor": MUTED, "lw": 1.8, "ls": "--"},
            ]
            for number, name in enumerate(self.series):
                style = styles[min(number, len(styles) - 1)]
                axes.stairs(self.shares(name), self.edges, baseline=0, label=name, **style)
            if self.single:
                # Not every bin has room for its label.
                every = -(-len(self.bins) // _MOST_TICKS)
                axes.set_xticks([e + 0.5 for e in self.edges[:-1:every]], self.bins[::every])
            axes.set_xlabel(self.unit)
            axes.set_xlim(self.edges[0], self.edges[-1])
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], min_n_ticks=1))
            axes.grid(axis="y", lw=0.6)
            legend_above(axes, ncols=3, handlelength=1.4)

        return draw_svg(draw, _HEIGHT, prefix)


def round_edges(low: float, high: float, *, smallest: float = 0) -> np.ndarray:
    """Edges from at most ``low`` to at least ``high`` in steps of 1, 2 or 5 times a power of ten.

    Args:
        low: the smallest value.
        high: the largest one.
        smallest: no step is shorter.
    """
    span = max(high - low, abs(high) * 0.01, 1e-3)
    power = 10.0 ** np.floor(np.log10(span / _MOST_BINS))
    step = next(power * m for m in (1, 2, 5, 10, 20) if span / (power * m) <= _MOST_BINS - 1)
    step = max(step, smallest)
    # Counted in steps, so that 0.3 is not 0.30000000000000004.
    first, last = int(np.floor(low / step)), int(np.floor(high / step)) + 1
    digits = max(0, -int(np.floor(np.log10(step))))
    return np.round(np.arange(first, last + 1) * step, digits)


def _bar(share: float) -> str:
    eighths = round(float(share) * _BAR * 8)
    return ("█" * (eighths // 8) + _PARTS[eighths % 8]).rstrip()
