"""Words of reports: numbers with intervals, sentences of comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Block = Mapping[str, Any]
"""``{"mean", "low", "high"}``; the last two are ``None`` where no interval can be given."""


BETTER, WORSE, OPEN = "better", "worse", ""


def standing(difference: Block | None, *, lower_is_better: bool = False) -> str:
    """:data:`BETTER` or :data:`WORSE` where the interval excludes zero, else :data:`OPEN`."""
    if not difference or difference["low"] is None or difference["high"] is None:
        return OPEN
    if difference["low"] > 0:
        return WORSE if lower_is_better else BETTER
    if difference["high"] < 0:
        return BETTER if lower_is_better else WORSE
    return OPEN


def points(block: Block, *, sign: bool = False) -> str:
    """A share as ``12.3 [10.1, 14.6]`` percentage points."""
    return interval(block, ".1f", scale=100, sign=sign)


def interval(block: Block | None, spec: str, *, scale: float = 1.0, sign: bool = False) -> str:
    """``0.512 [0.480, 0.541]``, or the value alone where there is no interval."""
    if not block or block["mean"] is None:
        return MISSING

    def text(key: str) -> str:
        shown = format(scale * block[key] + 0.0, ("+" if sign else "") + spec)
        return shown if float(shown) else shown.replace("-", "+" if sign else "")

    if block["low"] is None or block["high"] is None:
        return text("mean")
    return f"{text('mean')} [{text('low')}, {text('high')}]"


def plus_minus(block: Block | None, spec: str, *, scale: float = 1.0) -> str:
    """``0.512±0.031``, the second number half the width of the interval."""
    if not block or block["mean"] is None:
        return MISSING
    value = format(scale * block["mean"], spec)
    if block["low"] is None or block["high"] is None:
        return value
    return f"{value}±{format(scale * (block['high'] - block['low']) / 2, spec.lstrip('+'))}"


def listing(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


MISSING = "–"  # noqa: RUF001 (an en dash is what a typographer puts in an empty cell)


def interval_text(block: Mapping[str, Any], key: str = "mean", spec: str = ".3f") -> str:
    """``0.42 [0.37, 0.47]``, or the value alone where there is no interval."""
    if block[key] is None:
        return "undefined"
    value = format(block[key], spec)
    if block["low"] is None:
        return value
    return f"{value} [{block['low']:{spec}}, {block['high']:{spec}}]"
