"""Values as one line of text, for both forms of the data card."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup
from rich.cells import cell_len

from usermirror_gym.report.histogram import Histogram

MISSING = "–"  # noqa: RUF001 (an en dash is what a typographer puts in an empty cell)
_SHARES = {"accuracy", "chance", "high", "low", "scenes of seen users", "share"}


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


def table_cell(column: str, value: Any) -> str:
    """As :func:`cell`; shares, by the name of their column, in percent."""
    if column in _SHARES and isinstance(value, float) and not math.isnan(value):
        return f"{value:.1%}"
    return cell(value)


def columns(rows: Rows) -> list[str]:
    """Every key of any row, in the order of appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def heading(column: str) -> str:
    """A key as a column header."""
    return cell(column.replace("_", " "))


def is_numeric(rows: Rows, column: str) -> bool:
    """Whether a column holds nothing but numbers."""
    values = [row.get(column) for row in rows]
    return all(
        v is None or (isinstance(v, int | float) and not isinstance(v, bool)) for v in values
    )


def flatten(settings: Mapping[Any, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as ``("a.b", "value")``, places in lists of groups as ``("a.0.b", "value")``.

    Numbers stay as they are, for seeds and times.
    """
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        name = f"{prefix}{cell(str(key))}"
        if isinstance(value, list | tuple) and any(isinstance(v, Mapping) for v in value):
            value = dict(enumerate(value))
        if isinstance(value, Mapping) and value:
            rows += flatten(value, f"{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            rows.append((name, str(value)))
        elif isinstance(value, list | tuple):
            rows.append((name, cell([str(v) for v in value])))
        else:
            rows.append((name, cell(value)))
    return rows


def _hidden(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn")


Rows = list[dict[str, Any]]
"""A table: every row has the same keys."""


_MARKUP = re.compile(r"[\\`*\[\]|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_ENTITY = re.compile(r"&(?=#?\w+;)")
_WIDEST = 60
"""Longer cells stick out instead of widening their column."""


def escape(value: Any) -> Any:
    """Text with whatever Markdown, HTML or a formula would read in it disarmed."""
    if isinstance(value, Markup):
        return value
    text = _ENTITY.sub("&amp;", _MARKUP.sub(r"\\\g<0>", str(value)))
    for char, entity in (("<", "&lt;"), (">", "&gt;"), ("$", "&#36;")):
        text = text.replace(char, entity)
    return Markup(text)


def markdown_table(rows: Rows) -> Markup:
    """A pipe table: numbers to the right, all columns padded to one width."""
    names = columns(rows)
    texts = [[str(escape(table_cell(name, row.get(name)))) for name in names] for row in rows]
    heads = [str(escape(heading(name))) for name in names]
    numeric = [is_numeric(rows, name) for name in names]
    widths = [
        max([3, *(w for w in map(cell_len, column) if w <= _WIDEST)])
        for column in zip(heads, *texts, strict=True)
    ]
    rule = [("-" * (w - 1) + ":") if n else "-" * w for w, n in zip(widths, numeric, strict=True)]
    lines = [_line(heads, widths, numeric), _line(rule, widths, numeric)]
    lines += [_line(line, widths, numeric) for line in texts]
    return Markup("\n".join(lines))


def code_block(histogram: Histogram) -> Markup:
    """A histogram in characters; everything in it comes from this library."""
    return Markup(f"```text\n{histogram.text()}\n```")


def _line(texts: list[str], widths: list[int], numeric: list[bool]) -> str:
    cells = []
    for text, width, number in zip(texts, widths, numeric, strict=True):
        space = " " * max(0, width - cell_len(text))
        cells.append(space + text if number else text + space)
    return "| " + " | ".join(cells) + " |"
