"""Words of reports: values as one line of text, numbers with intervals, what a comparison says."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

Block = Mapping[str, Any]
"""``{"mean", "low", "high"}``; the last two are ``None`` where no interval can be given."""

MISSING = "–"  # noqa: RUF001 (an en dash is what a typographer puts in an empty cell)
BETTER, WORSE, DIFFERENT, OPEN = "better", "worse", "different", ""


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


def interval(
    block: Block | None,
    spec: str = ".3f",
    *,
    scale: float = 1.0,
    sign: bool = False,
    missing: str = MISSING,
) -> str:
    """``0.512 [0.480, 0.541]``, or the value alone where there is no interval."""
    value = None if not block else block["mean" if "mean" in block else "value"]
    if not block or value is None:
        return missing

    def text(number: float) -> str:
        shown = format(scale * number + 0.0, ("+" if sign else "") + spec)
        return shown if float(shown) else shown.replace("-", "+" if sign else "")

    if block["low"] is None or block["high"] is None:
        return text(value)
    return f"{text(value)} [{text(block['low'])}, {text(block['high'])}]"


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


def shorten(text: str, limit: int) -> str:
    """At most ``limit`` characters, the last one a sign that there were more."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def date(seconds: float, form: str = "%Y-%m-%d") -> str:
    """A time in seconds since 1970, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime(form)


def cell(value: Any) -> str:
    """One line without control or direction-changing characters.

    Counts get thousands separators, other numbers four digits; nothing, and NaN, is a dash.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{cell(k)}: {cell(v)}" for k, v in value.items()) or MISSING
    if isinstance(value, list | tuple):
        return ", ".join(map(cell, value)) or MISSING
    text = "".join(" " if c.isspace() else c for c in str(value) if c.isspace() or not _hidden(c))
    return " ".join(text.split()) or MISSING


def _hidden(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn")


def flatten(settings: Mapping[Any, Any], spec: str = "", prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as ``("a.b", "value")``, places in lists of groups as ``("a.0.b", "value")``.

    Numbers stay as they are, for seeds and times, unless ``spec`` formats what is not whole.
    """
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        name = f"{prefix}{cell(str(key))}"
        if isinstance(value, list | tuple) and any(isinstance(v, Mapping) for v in value):
            value = dict(enumerate(value))
        if isinstance(value, Mapping) and value:
            rows += flatten(value, spec, f"{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            rows.append((name, format(value, spec) if isinstance(value, float) else str(value)))
        elif isinstance(value, list | tuple):
            rows.append((name, cell([str(v) for v in value])))
        else:
            rows.append((name, cell(value)))
    return rows
