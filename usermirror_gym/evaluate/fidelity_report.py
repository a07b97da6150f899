"""The fidelity card on disk and on the terminal: ``card.json``, ``card.md``, ``card.html``.

``card.json`` holds every number (the schema is in docs/fidelity.md); the other two are made from
it and from nothing else, so a card can be shown again at any time::

    write_card(read_card("runs/evaluate/mine"), "runs/evaluate/mine")
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from usermirror_gym.distill.card_markdown import escape
from usermirror_gym.distill.card_text import flatten
from usermirror_gym.errors import RunError
from usermirror_gym.evaluate.bars import count, read_bars
from usermirror_gym.evaluate.fidelity_plots import card_plots
from usermirror_gym.evaluate.fidelity_view import (
    KINDS,
    MARKS,
    Cell,
    View,
    averaged_table,
    bar_table,
    chooser_table,
    facts,
    figures,
    ladder_table,
    outside_table,
    probe_table,
    slice_table,
    sorted_choosers,
)
from usermirror_gym.evaluate.plots import Plot
from usermirror_gym.evaluate.verdict import pair_standing, plus_minus
from usermirror_gym.files import read_json, write_json, write_text

FORMAT = 2
_INTERVAL = re.compile(r"\\\[([-+\d., ]+)\\\](?![(:\[])")
"""Escaped brackets around numbers alone, where they cannot begin a link."""
_SHORT_KINDS = KINDS | {"swapped": "swapped"}
_STYLES = {"simulator": "bold cyan", "base": "cyan", "reference": "dim"}


def write_card(card: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """Write the three forms; each old file stays until the new one is whole.

    Args:
        card: the content of ``card.json``.
        folder: made if absent.

    Returns:
        The paths, the page first.
    """
    folder = Path(folder)
    html = write_text(folder / "card.html", render_html(card))
    markdown = write_text(folder / "card.md", render_markdown(card))
    # Last: its presence says that the card is whole.
    return [html, markdown, write_json(folder / "card.json", card)]


def read_card(path: str | Path) -> dict[str, Any]:
    """The content of a card.

    Args:
        path: ``card.json``, or the folder that holds it.

    Raises:
        RunError: there is no card, or one of another format.
    """
    path = Path(path)
    path = path / "card.json" if path.is_dir() else path
    if not path.is_file():
        raise RunError(f"there is no {path}: run 'usermirror evaluate' to its end first")
    card = read_json(path)
    found = card.get("format") if isinstance(card, dict) else None
    if found != FORMAT or not {"bars", "choosers", "scenes", "simulator"} <= card.keys():
        raise RunError(
            f"{path} is no fidelity card of format {FORMAT} (format {found!r}); make it again"
        )
    return dict(card)


def render_html(card: Mapping[str, Any]) -> str:
    """One self-contained page without scripts."""
    plots = {name: DrawnPlot(plot) for name, plot in card_plots(card).items()}
    return render("fidelity.html", _view(card) | {"plots": plots})


def render_markdown(card: Mapping[str, Any]) -> str:
    """The same content without plots."""
    return render("fidelity.md", _view(card))


def render(template: str, view: Mapping[str, Any]) -> str:
    """A template of this room, whatever it prints escaped for Markdown or HTML by its ending."""
    kind = template.rpartition(".")[2]
    style = Markup(_asset("report.css") + _asset("fidelity.css"))
    text = _environment(kind).get_template(template).render(dict(view) | {"style": style})
    # Names may hold lone surrogates, which no file can.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return _plain_intervals(text) if kind == "md" else text


def summary_table(card: Mapping[str, Any]) -> Table:
    """Choosers as rows, best log-loss first, for the terminal."""
    scenes = card["scenes"]
    table = Table(
        title=f"{card['simulator']['name']} on {scenes['with_target']:,} real choices of "
        f"{scenes['source']}",
        caption="± half a 95% interval over users. Δ simulator minus chooser; ▲ the simulator is "
        "better, ▼ worse: the paired interval excludes zero.",
        caption_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0),
    )  # fmt: skip
    table.add_column("Chooser", overflow="fold", min_width=12, max_width=28)
    table.add_column("Kind", no_wrap=True)
    for name in ("Accuracy %", "Log-loss", "Δ points", "Δ nats"):
        table.add_column(name, justify="right", no_wrap=True)
    paired = {pair["against"]: pair for pair in card["paired"] or ()}
    for chooser in sorted_choosers(card):
        block, style = chooser["overall"]["forced"], _STYLES.get(chooser["kind"], "")
        table.add_row(
            Text(chooser["name"], style=style), Text(_SHORT_KINDS[chooser["kind"]], style="dim"),
            plus_minus(block["accuracy"], ".1f", scale=100), plus_minus(block["log_loss"], ".3f"),
            *_differences(paired.get(chooser["name"])),
        )  # fmt: skip
    return table


def bar_lines(card: Mapping[str, Any]) -> list[Text]:
    """What must hold and whether it does, for the terminal."""
    found = read_bars(card)
    width = max(len(bar.answer) for bar in found)
    colours = {True: "green", False: "red", None: "dim"}
    lines = [Text(f"What must hold: {count(card)} do", style="bold")]
    for bar in found:
        line = Text.assemble((bar.answer.rjust(width), colours[bar.met]), f"  {bar.name}")
        lines.append(line.append(f": {bar.measured}" if bar.measured else "", style="dim"))
    return lines


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
    text = _marked(value, cell.mark)
    return text.append(f"\n[{rest}", style="dim") if bracket else text


class DrawnPlot:
    """A plot for a template that escapes whatever is not marked as safe."""

    def __init__(self, plot: Plot) -> None:
        self.title, self.caption, self.alt = plot.title, plot.caption, plot.alt
        self.svg = Markup(plot.svg)


def _view(card: Mapping[str, Any]) -> dict[str, Any]:
    versions = card["versions"].items()
    options = flatten(card["simulator"].get("options") or {})
    return {
        "card": card, "kinds": KINDS, "figures": figures(card), "facts": facts(card),
        "bars": bar_table(card), "verdict": card["verdict"], "choosers": chooser_table(card),
        "outside": outside_table(card), "slices": slice_table(card),
        "ladder": ladder_table(card), "averaged": averaged_table(card),
        "probes": probe_table(card), "options": options, "versions": versions,
    }  # fmt: skip


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


def _differences(pair: Mapping[str, Any] | None) -> tuple[Text, Text]:
    """Both differences to the simulator, marked where their interval excludes zero."""
    if pair is None:
        return Text(""), Text("")
    accuracy, loss = pair_standing(pair)
    return (
        _marked(plus_minus(pair["accuracy"], "+.1f", scale=100), accuracy),
        _marked(plus_minus(pair["log_loss"], "+.3f"), loss),
    )


def _marked(text: str, mark: str) -> Text:
    style = {"better": "green", "worse": "red"}.get(mark, "")
    return Text.assemble((f"{text} {MARKS[mark] or ' '}", style))


def _plain_intervals(text: str) -> str:
    return _INTERVAL.sub(r"[\1]", text)


@cache
def _environment(kind: str) -> Environment:
    """Whatever a template prints is escaped for its language."""
    environment = Environment(
        loader=PackageLoader("usermirror_gym.evaluate", "templates"),
        autoescape=kind == "html", undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=escape if kind == "md" else None,
    )  # fmt: skip
    environment.filters |= {"markdown_table": markdown_table}
    environment.globals |= {"is_words": is_words, "marks": MARKS}
    return environment


def _asset(name: str) -> str:
    return files("usermirror_gym.evaluate").joinpath("templates", name).read_text(encoding="utf-8")
