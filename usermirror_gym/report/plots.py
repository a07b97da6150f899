"""Plots as SVG that follow the page they stand in."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

# Stand-ins for CSS variables: drawn in these colours, then replaced in the SVG text.
FG, MUTED, GRID, ACCENT, SECOND = "#010101", "#020202", "#030303", "#040404", "#050505"


_VARIABLES = {FG: "--fg", MUTED: "--muted", GRID: "--line", ACCENT: "--accent", SECOND: "--second"}


_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "font.size": 10.5, "axes.edgecolor": GRID, "axes.labelcolor": MUTED,
    "axes.spines.top": False, "axes.spines.right": False, "text.color": FG, "grid.color": GRID,
    "xtick.color": MUTED, "ytick.color": MUTED, "axes.titlesize": 10.5, "text.parse_math": False,
    "axes.titlecolor": FG, "axes.axisbelow": True, "figure.dpi": 72, "path.simplify": False,
    "axes.titleweight": "bold",
}  # fmt: skip


_WIDTH = 5.7


@dataclass(frozen=True)
class Plot:
    """An SVG with its title, what it shows, and the text read aloud instead of it."""

    title: str
    caption: str
    alt: str
    svg: str


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
