"""Labels of scatter points that cover neither each other nor a point."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Directions in the order tried, and distances in points.
_DIRECTIONS = [(1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1)]
_DISTANCES = (7, 14, 24, 36, 50, 66)
_POINT_RADIUS = 5.0

Box = tuple[float, float, float, float]
"""Left, bottom, right, top, in points."""


def place_labels(
    axes: Axes, x: Sequence[float], y: Sequence[float], names: Sequence[str], colors: Sequence[str],
    line_color: str,
) -> list[Box]:  # fmt: skip
    """Write each name beside its point, at the nearest place that is still free.

    A greedy search over eight directions and growing distances (Imhof's rules, in the order of
    :data:`_DIRECTIONS`); a label that had to move away gets a thin line to its point.  Call it
    when the limits of ``axes`` are final.  Returns the boxes of the labels.
    """
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)  # an Axes that was drawn on always has one
    points = axes.transData.transform(np.column_stack([x, y])) * 72 / figure.dpi
    frame = axes.get_window_extent()
    bounds = tuple(v * 72 / figure.dpi for v in (frame.x0, frame.y0, frame.x1, frame.y1))
    taken: list[Box] = [
        (px - _POINT_RADIUS, py - _POINT_RADIUS, px + _POINT_RADIUS, py + _POINT_RADIUS)
        for px, py in points
    ]
    labels = []
    for (px, py), name, color, px_data, py_data in zip(points, names, colors, x, y, strict=True):
        width, height = _size(figure, name)
        offset, box = _free_place(px, py, width, height, taken, bounds)
        taken.append(box)
        labels.append(box)
        far = max(abs(offset[0]), abs(offset[1])) > _DISTANCES[1]
        axes.annotate(
            name, (px_data, py_data), (box[0] - px, (box[1] + box[3]) / 2 - py),
            textcoords="offset points", ha="left", va="center", color=color, parse_math=False,
            arrowprops={"arrowstyle": "-", "color": line_color, "lw": 0.6} if far else None,
        )  # fmt: skip
    return labels


def _free_place(
    px: float, py: float, width: float, height: float, taken: Sequence[Box], bounds: Box
) -> tuple[tuple[float, float], Box]:
    """The first free place around a point, else the one with the least overlap."""
    best: tuple[float, tuple[float, float], Box] | None = None
    for distance in _DISTANCES:
        for dx, dy in _DIRECTIONS:
            ox, oy = dx * distance, dy * distance
            left = px + ox - (0.5 - dx / 2) * width
            box = (left, py + oy - height / 2, left + width, py + oy + height / 2)
            cost = sum(_overlap(box, other) for other in taken) + _outside(box, bounds)
            if cost == 0:
                return (ox, oy), box
            if best is None or cost < best[0]:
                best = cost, (ox, oy), box
    assert best is not None  # the loops above are not empty
    return best[1], best[2]


def _size(figure: Figure, name: str) -> tuple[float, float]:
    """Width and height of a text in points, in matplotlib's own font (wider than most)."""
    text = figure.text(0, 0, name, parse_math=False)
    extent = text.get_window_extent(FigureCanvasAgg(figure).get_renderer())
    text.remove()
    return extent.width * 72 / figure.dpi, extent.height * 72 / figure.dpi


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _outside(box: Box, bounds: Box) -> float:
    area = (box[2] - box[0]) * (box[3] - box[1])
    return area - _overlap(box, bounds)
