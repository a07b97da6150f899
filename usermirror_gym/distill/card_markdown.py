"""Markdown that shows foreign text as text, in tables that line up in a terminal."""

from __future__ import annotations

import re
from typing import Any

from markupsafe import Markup
from rich.cells import cell_len

from usermirror_gym.distill.card_facts import Rows
from usermirror_gym.distill.card_text import columns, heading, is_numeric, table_cell
from usermirror_gym.distill.histogram import Histogram

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
