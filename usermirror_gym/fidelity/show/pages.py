"""The fidelity card on disk and on the terminal: ``card.json``, ``card.md``, ``card.html``.

``card.json`` holds every number (the schema is in docs/fidelity.md); the other two are made from
it and from nothing else, so a card can be shown again at any time::

    write_card(read_card("runs/evaluate/mine"), "runs/evaluate/mine")
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from usermirror_gym.errors import RunError
from usermirror_gym.fidelity.show.criteria import count, read_bars
from usermirror_gym.fidelity.show.plots import card_plots
from usermirror_gym.fidelity.show.sentences import pair_standing
from usermirror_gym.fidelity.show.tables import (
    KINDS,
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
from usermirror_gym.files import read_json, write_json, write_text
from usermirror_gym.report.page import render
from usermirror_gym.report.tables import marked
from usermirror_gym.report.text import flatten, plus_minus

FORMAT = 2
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
    return render("fidelity.html", _view(card) | {"plots": card_plots(card)})


def render_markdown(card: Mapping[str, Any]) -> str:
    """The same content without plots."""
    return render("fidelity.md", _view(card))


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


def _differences(pair: Mapping[str, Any] | None) -> tuple[Text, Text]:
    """Both differences to the simulator, marked where their interval excludes zero."""
    if pair is None:
        return Text(""), Text("")
    accuracy, loss = pair_standing(pair)
    return (
        marked(plus_minus(pair["accuracy"], "+.1f", scale=100), accuracy),
        marked(plus_minus(pair["log_loss"], "+.3f"), loss),
    )
