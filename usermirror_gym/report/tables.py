"""Tables of reports, as HTML, Markdown and terminal text."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from usermirror_gym.foreign import for_terminal
from usermirror_gym.report.text import BETTER, DIFFERENT, WORSE, cell, interval

MET, MISSED = "met", "missed"
MARKS = {BETTER: "▲", WORSE: "▼", MET: "✓", MISSED: "✗", DIFFERENT: "◆", "": ""}
Rows = list[dict[str, Any]]
"""Plain values by column; a row may lack some."""

_SHARES = {"accuracy", "chance", "high", "low", "scenes of seen users", "share"}
_WIDEST = 60
"""Longer cells of plain rows stick out instead of widening their column."""
_MARKUP = re.compile(r"[\\`*\[\]|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_BREAK = re.compile(r"\s*[\r\n\v\f\x85\u2028\u2029]\s*")
"""What would end a row of a table, or begin a heading."""
_ENTITY = re.compile(r"&(?=#?\w+;)")
_INTERVAL = re.compile(r"\\\[([-+\d., ]+)\\\](?![(:\[])")
"""Escaped brackets around numbers alone, where they cannot begin a link."""


@dataclass(frozen=True)
class Cell:
    """A value as printed, and its mark, a key of :data:`MARKS`."""

    text: str
    mark: str = ""

    @property
    def marked(self) -> str:
        """The text with its mark."""
        return f"{self.text} {MARKS[self.mark]}".rstrip()

    @property
    def parts(self) -> tuple[str, str]:
        """``12.3 [10.1, 14.6]`` as ``12.3`` and ``10.1 to 14.6``; other text as it is."""
        value, bracket, ends = self.text.partition(" [")
        if not bracket or not ends.endswith("]") or "[" in ends:
            return self.text, ""
        return value, ends[:-1].replace(", ", " to ")


@dataclass(frozen=True)
class View:
    """A table: column names, rows of cells (the first names the row), and what it says."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    strong: int | None = None
    """The row to stress."""
    numeric: Sequence[bool] = ()
    """Whether columns stand on the right; by default those in which no cell begins a word."""

    def __post_init__(self) -> None:
        if not self.numeric:
            words = [
                any(c.text[:1].isalpha() for c in column) for column in zip(*self.rows, strict=True)
            ]
            object.__setattr__(self, "numeric", [not found for found in words])

    @classmethod
    def of(
        cls,
        title: str,
        records: Sequence[Mapping[str, Any]],
        columns: Mapping[str, str | Callable[[Any], str | Cell]],
        note: str = "",
        strong: int | None = None,
        *,
        spec: str = ".2f",
        sign: bool = False,
    ) -> View | None:
        """A row for each record, ``None`` without records.

        Args:
            columns: by name what stands in them: a function of the record, or the key of a word or
                of an interval, which is formatted by ``spec`` and ``sign``.
        """

        def shown(value: Any) -> str:
            return interval(value, spec, sign=sign) if isinstance(value, Mapping) else str(value)

        rows = []
        for record in records:
            found = [
                shown(record[c]) if isinstance(c, str) else c(record) for c in columns.values()
            ]
            rows.append([c if isinstance(c, Cell) else Cell(c) for c in found])
        return cls(title, list(columns), rows, note, strong) if rows else None

    @classmethod
    def of_rows(cls, rows: Rows) -> View:
        """Plain values: every key of any row is a column, shares by their name in percent."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        return cls(
            "",
            [cell(name.replace("_", " ")) for name in names],
            [[Cell(_plain(name, row.get(name))) for name in names] for row in rows],
            numeric=[all(_is_number(row.get(name)) for row in rows) for name in names],
        )


def _plain(column: str, value: Any) -> str:
    if column in _SHARES and isinstance(value, float) and not math.isnan(value):
        return f"{value:.1%}"
    return cell(value)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def plain_table(**options: Any) -> Table:
    """An empty table for the terminal, its caption on the left."""
    return Table(
        caption_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0),
        **options,
    )  # fmt: skip


def view_table(view: View) -> Table:
    """Any table of a card for the terminal; intervals stand below their values."""
    table = plain_table(caption=view.note)
    table.add_column(view.columns[0], overflow="fold", min_width=12)
    for name, number in zip(view.columns[1:], view.numeric[1:], strict=True):
        table.add_column(name, justify="right" if number else "left")
    for first, *cells in view.rows:
        table.add_row(Text(first.text), *(_stacked(cell) for cell in cells))
    return table


def _stacked(cell: Cell) -> Text:
    value, bracket, rest = cell.text.partition(" [")
    text = marked(value, cell.mark)
    return text.append(f"\n[{rest}", style="dim") if bracket else text


def marked(text: str, mark: str) -> Text:
    """Green or red, with the sign that says the same without colours."""
    style = {BETTER: "green", WORSE: "red"}.get(mark, "")
    return Text.assemble((f"{text} {MARKS[mark] or ' '}", style))


def escape(value: Any) -> Any:
    """Text with whatever Markdown, HTML or a formula would read in it disarmed."""
    if isinstance(value, Markup):
        return value
    text = for_terminal(_BREAK.sub(" ", str(value)))
    text = _ENTITY.sub("&amp;", _MARKUP.sub(r"\\\g<0>", text))
    for char, entity in (("<", "&lt;"), (">", "&gt;"), ("$", "&#36;")):
        text = text.replace(char, entity)
    return Markup(_INTERVAL.sub(r"[\1]", text))


def markdown_table(table: View | Rows) -> Markup:
    """A pipe table, padded so that it reads well as plain text: numbers to the right."""
    view = table if isinstance(table, View) else View.of_rows(table)
    widest = math.inf if isinstance(table, View) else _WIDEST
    heads = [str(escape(name)) for name in view.columns]
    texts = [[str(escape(cell.marked)) for cell in row] for row in view.rows]
    if view.strong is not None:
        texts[view.strong][0] = f"**{texts[view.strong][0]}**"
    widths = [
        max([3, *(w for w in map(cell_len, column) if w <= widest)])
        for column in zip(heads, *texts, strict=True)
    ]
    rule = [
        "-" * (w - 1) + ":" if number else "-" * w
        for w, number in zip(widths, view.numeric, strict=True)
    ]
    lines = []
    for line in (heads, rule, *texts):
        padded = []
        for text, width, number in zip(line, widths, view.numeric, strict=True):
            space = " " * max(0, width - cell_len(text))
            padded.append(space + text if number else text + space)
        lines.append(f"| {' | '.join(padded)} |")
    return Markup("\n".join(lines))
