"""Tables of reports, as HTML, Markdown and terminal text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from usermirror_gym.report.markdown import escape
from usermirror_gym.report.text import BETTER, WORSE

MET, MISSED = "met", "missed"


MARKS = {BETTER: "▲", WORSE: "▼", MET: "✓", MISSED: "✗", "": ""}


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


_INTERVAL = re.compile(r"\\\[([-+\d., ]+)\\\](?![(:\[])")
"""Escaped brackets around numbers alone, where they cannot begin a link."""


def view_table(view: View) -> Table:
    """Any table of a card for the terminal; intervals stand below their values."""
    table = Table(
        caption=view.note, caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    table.add_column(view.columns[0], overflow="fold", min_width=12)
    for column, name in enumerate(view.columns[1:], start=1):
        table.add_column(name, justify="left" if is_words(view, column) else "right")
    for first, *cells in view.rows:
        table.add_row(Text(first.text), *(_stacked(cell) for cell in cells))
    return table


def _stacked(cell: Cell) -> Text:
    value, bracket, rest = cell.text.partition(" [")
    text = marked(value, cell.mark)
    return text.append(f"\n[{rest}", style="dim") if bracket else text


def markdown_table(view: View) -> Markup:
    """A pipe table, padded so that it reads well as plain text."""
    heads = [str(escape(name)) for name in view.columns]
    texts = [[_plain_intervals(str(escape(cell.marked))) for cell in row] for row in view.rows]
    if view.strong is not None:
        texts[view.strong][0] = f"**{texts[view.strong][0]}**"
    left = [_is_words(column) for column in zip(*view.rows, strict=True)]
    widths = [
        max(3, *(cell_len(text) for text in column)) for column in zip(heads, *texts, strict=True)
    ]
    rule = [
        "-" * w if words else "-" * (w - 1) + ":" for w, words in zip(widths, left, strict=True)
    ]
    lines = []
    for texts_of_line in (heads, rule, *texts):
        cells = (
            text + " " * (w - cell_len(text)) if words else " " * (w - cell_len(text)) + text
            for text, w, words in zip(texts_of_line, widths, left, strict=True)
        )
        lines.append(f"| {' | '.join(cells)} |")
    return Markup("\n".join(lines))


def is_words(view: View, column: int) -> bool:
    """Whether a column holds words, which stand on the left."""
    return _is_words([row[column] for row in view.rows])


def _is_words(cells: Sequence[Cell]) -> bool:
    return any(cell.text[:1].isalpha() for cell in cells)


def marked(text: str, mark: str) -> Text:
    """Green or red, with the sign that says the same without colours."""
    style = {"better": "green", "worse": "red"}.get(mark, "")
    return Text.assemble((f"{text} {MARKS[mark] or ' '}", style))


def _plain_intervals(text: str) -> str:
    return _INTERVAL.sub(r"[\1]", text)
