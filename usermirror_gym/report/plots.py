"""Plots as SVG that follow the page they stand in, and what several of them have in common."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from usermirror_gym.report.text import Block
from usermirror_gym.types import FloatArray

# Stand-ins for CSS variables: drawn in these colours, then replaced in the SVG text.
FG, MUTED, GRID, ACCENT, SECOND = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {FG: "--fg", MUTED: "--muted", GRID: "--line", ACCENT: "--accent", SECOND: "--second"}
_LIGHT = {"--fg": "#151a21", "--muted": "#566070", "--line": "#dde1e7", "--accent": "#2158c9",
          "--second": "#b8530a"}  # fmt: skip
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "font.size": 10.5, "axes.edgecolor": GRID, "axes.labelcolor": MUTED,
    "axes.spines.top": False, "axes.spines.right": False, "text.color": FG, "grid.color": GRID,
    "xtick.color": MUTED, "ytick.color": MUTED, "axes.titlesize": 10.5, "text.parse_math": False,
    "axes.titlecolor": FG, "axes.axisbelow": True, "figure.dpi": 72, "path.simplify": False,
    "axes.titleweight": "bold",
}  # fmt: skip
_WIDTH = 5.7
# Directions in the order tried, and distances in points.
_DIRECTIONS = np.array([(1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1)])
_DISTANCES = np.array([7, 14, 24, 36, 50, 66])
_POINT_RADIUS = 5.0


@dataclass(frozen=True)
class Plot:
    """An SVG with its title, what it shows, and the text read aloud instead of it."""

    title: str
    caption: str
    alt: str
    svg: str

    @property
    def standalone(self) -> str:
        """The SVG as a file of its own, in the light colours of the page."""
        svg = self.svg
        for variable, color in _LIGHT.items():
            svg = svg.replace(f"var({variable})", color)
        return svg.replace("<svg ", '<svg style="background:#fff;font-family:sans-serif" ', 1)


def draw_svg(draw: Callable[[Figure], None], height: float, prefix: str) -> str:
    """SVG without metadata; its ids begin with ``prefix``, its colours are the page's variables.

    ``height`` is in inches; the width is the same for all plots.
    """
    with mpl.rc_context(_STYLE | {"svg.hashsalt": prefix}):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        figure.patch.set_alpha(0)
        draw(figure)
        for axes in figure.axes:
            axes.patch.set_alpha(0)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _inline(buffer.getvalue(), prefix)


def _inline(svg: str, prefix: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    # A style element would apply to the whole page; the page's own style sheet says the same.
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    # The size comes from the page; the view box keeps the proportions.
    size = re.compile(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"')
    return size.sub(r'<svg aria-hidden="true" \1', svg, count=1)


def legend_above(axes: Axes, ncols: int = 2, **options: Any) -> None:
    """The legend on the left above the frame."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=ncols, frameon=False, borderaxespad=0,
        **options,
    )  # fmt: skip


def interval_line(axes: Axes, block: Block, at: float, *, upright: bool, **style: Any) -> None:
    """The interval of a block as a line at a height, or upright at a place; none if it has none."""
    if block["low"] is not None:
        ends, place = [block["low"], block["high"]], [at, at]
        axes.plot(*((place, ends) if upright else (ends, place)), **style)


def scatter(
    axes: Axes,
    x: Sequence[Block],
    y: Sequence[Block],
    names: Sequence[str],
    colors: str | Sequence[str] = ACCENT,
    margin: float = 0.14,
) -> None:
    """Points with their intervals in both directions and a label each; call it last."""
    for xi, yi in zip(x, y, strict=True):
        interval_line(axes, xi, yi["mean"], upright=False, color=GRID, lw=1.5, zorder=1)
        interval_line(axes, yi, xi["mean"], upright=True, color=GRID, lw=1.5, zorder=1)
    places = [b["mean"] for b in x], [b["mean"] for b in y]
    axes.scatter(*places, c=colors, s=34, zorder=3)
    axes.margins(x=margin, y=0.1)
    axes.grid(lw=0.6)
    # The layout must be final before labels are placed.
    FigureCanvasAgg(axes.get_figure(root=True)).draw()
    place_labels(axes, *places, names)


def place_labels(
    axes: Axes, x: Sequence[float], y: Sequence[float], names: Sequence[str]
) -> list[FloatArray]:
    """Write each name beside its point, at the nearest place that is still free.

    A greedy search over eight directions and growing distances (Imhof's rules, in the order of
    :data:`_DIRECTIONS`); where none is free, the place with the least overlap.  A label that had
    to move away gets a thin line to its point.  Call it when the limits of ``axes`` are final.

    Returns:
        left, bottom, right and top of each label, in points.
    """
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)  # an Axes that was drawn on always has one
    points = axes.transData.transform(np.column_stack([x, y])) * 72 / figure.dpi
    bounds = np.array(axes.get_window_extent().extents) * 72 / figure.dpi
    taken = np.hstack([points - _POINT_RADIUS, points + _POINT_RADIUS])
    offsets = (_DISTANCES[:, None, None] * _DIRECTIONS).reshape(-1, 2)
    # A label stands beside its point, and is level with the middle of its own height.
    shares = np.tile(_DIRECTIONS / [2, np.inf] - 0.5, (len(_DISTANCES), 1))
    labels = []
    for point, name, place in zip(points, names, zip(x, y, strict=True), strict=True):
        size = _size(figure, name)
        low = point + offsets + shares * size
        boxes = np.hstack([low, low + size])
        overlap = _overlap(boxes[:, None], taken).sum(axis=1)
        best = int((overlap + size.prod() - _overlap(boxes, bounds)).round(6).argmin())
        box, far = boxes[best], np.abs(offsets[best]).max() > _DISTANCES[1]
        taken = np.vstack([taken, box])
        labels.append(box)
        axes.annotate(
            name, place, (box[0] - point[0], (box[1] + box[3]) / 2 - point[1]),
            textcoords="offset points", ha="left", va="center", color=FG, parse_math=False,
            arrowprops={"arrowstyle": "-", "color": MUTED, "lw": 0.6} if far else None,
        )  # fmt: skip
    return labels


def _size(figure: Figure, name: str) -> FloatArray:
    """Width and height of a text in points, in matplotlib's own font (wider than most)."""
    text = figure.text(0, 0, name, parse_math=False)
    extent = text.get_window_extent(FigureCanvasAgg(figure).get_renderer())
    text.remove()
    return np.array(extent.size) * 72 / figure.dpi


def _overlap(a: FloatArray, b: FloatArray) -> FloatArray:
    """Areas that boxes ``(..., 4)`` have in common."""
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    return np.array(np.maximum(sides, 0.0).prod(axis=-1))
