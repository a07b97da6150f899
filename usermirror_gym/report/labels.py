"""Labels of scatter points that cover neither each other nor a point."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from usermirror_gym.types import FloatArray

# Directions in the order tried, and distances in points.
_DIRECTIONS = np.array([(1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1)])
_DISTANCES = np.array([7, 14, 24, 36, 50, 66])
_POINT_RADIUS = 5.0


def place_labels(
    axes: Axes, x: Sequence[float], y: Sequence[float], names: Sequence[str], colors: Sequence[str],
    line_color: str,
) -> list[FloatArray]:  # fmt: skip
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
    for point, name, color, place in zip(
        points, names, colors, zip(x, y, strict=True), strict=True
    ):
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
            textcoords="offset points", ha="left", va="center", color=color, parse_math=False,
            arrowprops={"arrowstyle": "-", "color": line_color, "lw": 0.6} if far else None,
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
