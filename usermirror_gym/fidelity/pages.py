"""The fidelity card on disk and on the terminal: ``card.json``, ``card.md``, ``card.html``.

``card.json`` holds every number (the schema is in docs/fidelity.md); the other two are made from
it and from nothing else, so a card can be shown again at any time::

    write_card(read_card("runs/evaluate/mine"), "runs/evaluate/mine")
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from usermirror_gym.errors import RunError
from usermirror_gym.fidelity.checks import CHECKS
from usermirror_gym.fidelity.checks.base import Card, Criterion
from usermirror_gym.fidelity.checks.parts import (
    KINDS,
    number,
    own,
    pair_standing,
    share,
    sorted_choosers,
)
from usermirror_gym.fidelity.checks.populations import headline
from usermirror_gym.files import read_json, write_json, write_text
from usermirror_gym.report.page import render
from usermirror_gym.report.plots import Plot
from usermirror_gym.report.tables import MET, MISSED, Cell, View, marked, plain_table
from usermirror_gym.report.text import MISSING, date, flatten, interval, plus_minus

FORMAT = 2
_SHORT_KINDS = KINDS | {"swapped": "swapped"}
_STYLES = {"simulator": "bold cyan", "base": "cyan", "reference": "dim"}


def write_card(card: Card, folder: str | Path) -> list[Path]:
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


def render_html(card: Card) -> str:
    """One self-contained page without scripts."""
    return render("fidelity.html", _view(card) | {"plots": card_plots(card)})


def render_markdown(card: Card) -> str:
    """The same content without plots."""
    return render("fidelity.md", _view(card))


def summary_table(card: Card) -> Table:
    """Choosers as rows, best log-loss first, for the terminal."""
    scenes = card["scenes"]
    table = plain_table(
        title=f"{card['simulator']['name']} on {scenes['with_target']:,} real choices of "
        f"{scenes['source']}",
        caption="± half a 95% interval over users. Δ simulator minus chooser; ▲ the simulator is "
        "better, ▼ worse: the paired interval excludes zero.",
    )
    table.add_column("Chooser", overflow="fold", min_width=12, max_width=28)
    table.add_column("Kind", no_wrap=True)
    for name in ("Accuracy %", "Log-loss", "Δ points", "Δ nats"):
        table.add_column(name, justify="right", no_wrap=True)
    paired = {pair["against"]: pair for pair in card["paired"] or ()}
    for chooser in sorted_choosers(card):
        block, pair = chooser["overall"]["forced"], paired.get(chooser["name"])
        differences = [Text(""), Text("")]
        if pair is not None:
            accuracy, loss = pair_standing(pair)
            differences = [
                marked(plus_minus(pair["accuracy"], "+.1f", scale=100), accuracy),
                marked(plus_minus(pair["log_loss"], "+.3f"), loss),
            ]
        table.add_row(
            Text(chooser["name"], style=_STYLES.get(chooser["kind"], "")),
            Text(_SHORT_KINDS[chooser["kind"]], style="dim"),
            plus_minus(block["accuracy"], ".1f", scale=100), plus_minus(block["log_loss"], ".3f"),
            *differences,
        )  # fmt: skip
    return table


def criteria_lines(card: Card) -> list[Text]:
    """What must hold and whether it does, for the terminal."""
    found = _read_criteria(card)
    width = max(len(criterion.answer) for criterion in found)
    colours = {True: "green", False: "red", None: "dim"}
    lines = [Text(f"What must hold: {count(card)} do", style="bold")]
    for one in found:
        line = Text.assemble((one.answer.rjust(width), colours[one.met]), f"  {one.name}")
        lines.append(line.append(f": {one.measured}" if one.measured else "", style="dim"))
    return lines


def count(card: Card) -> str:
    """``5 of 8``: how many criteria hold, of all that must."""
    found = _read_criteria(card)
    return f"{sum(criterion.met is True for criterion in found)} of {len(found)}"


def criteria_table(card: Card) -> View | None:
    """What must hold, what was measured, and whether it holds."""
    marks = {True: MET, False: MISSED, None: ""}
    columns: dict[str, Any] = {
        "": "name",
        "holds": lambda one: Cell(Criterion(**one).answer, marks[one["met"]]),
        "measured": lambda one: one["measured"] or MISSING,
    }
    note = (
        "Beats: the paired 95% intervals of both differences exclude zero. Not certain: the 95% "
        "interval reaches over the bar, or there is none."
    )
    return View.of(f"What must hold: {count(card)} do", card["bars"], columns, note)


def card_plots(card: Card) -> list[Plot]:
    """The plots that the card can fill."""
    return [plot for check in CHECKS if (plot := check.plot(card)) is not None]


def figures(card: Card) -> list[tuple[str, str]]:
    """The line of large numbers at the top: first of users whom the environment plays."""
    me, scenes = own(card), card["scenes"]
    forced, gap = me["overall"]["forced"], card["history"]
    found = [
        *headline(card),
        ("real choices", f"{scenes['with_target']:,}"),
        ("accuracy, all of them", f"{share(forced['accuracy']['mean'])} %"),
        ("log-loss, all of them", number(forced["log_loss"]["mean"])),
        ("of what must hold", count(card)),
    ]
    if gap:
        worth = f"{100 * gap['accuracy']['mean']:+.1f} points, {gap['log_loss']['mean']:+.3f} nats"
        found.append(("own minus swapped history, all", worth))
    further = (
        ("calibration error", me["calibration"], "ece"),
        ("AUC of none of these", card["outside"], "auc"),
        ("change under a permutation", card["order"], "mean_change"),
    )
    found += [
        (label, number(part[key]["mean"])) for label, part, key in further if part and part[key]
    ]
    return found


def _facts(card: Card) -> list[tuple[str, str]]:
    """What was measured on what, as name and value."""
    scenes, popular = card["scenes"], card["scenes"]["most_popular"]
    after = None if scenes["t0"] is None else date(scenes["t0"], "%Y-%m-%d %H:%M UTC")
    drawn = ", ".join(f"{name} {part:.0%}" for name, part in scenes["company"].items())
    pairs: list[tuple[str, Any]] = [
        ("scenes", f"{scenes['source']}, hash {scenes['hash']}"),
        ("after", after),
        ("lists with the true item", scenes["with_target"]),
        ("lists without it", scenes["removed"]),
        ("options in a list", scenes["k"]),
        ("company drawn by", drawn),
        ("true item is the most popular of its list",
         None if popular is None else f"{popular:.1%} of the lists"),
        ("users", scenes["users"]),
        ("of them seen before T0", scenes["seen_users"]),
        ("seed", str(scenes["seed"])),
        ("configurations tried on validation", card["simulator"].get("tried") or "unknown"),
        *(fact for check in CHECKS for fact in check.facts(card)),
        ("seconds to answer", own(card).get("seconds")),
        ("seconds in all", card.get("seconds")),
    ]  # fmt: skip
    return [(name, _fact(value)) for name, value in pairs if value is not None]


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return interval(value, ".3f")
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return " to ".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _read_criteria(card: Card) -> list[Criterion]:
    """The criteria as a card holds them."""
    return [Criterion(**found) for found in card["bars"]]


def _view(card: Card) -> dict[str, Any]:
    return {
        "card": card, "figures": figures(card), "facts": _facts(card),
        "bars": criteria_table(card), "verdict": card["verdict"],
        "tables": [table for check in CHECKS for table in check.tables(card) if table],
        "options": flatten(card["simulator"].get("options") or {}),
        "versions": card["versions"].items(),
    }  # fmt: skip
