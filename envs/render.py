"""What a person sees of a step: ANSI text for terminals, HTML for notebooks."""

from __future__ import annotations

import html
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from usermirror_gym.envs.core import SessionCore, StepResult

_HISTORY_SHOWN = 8
NONE_OF_THESE = "none of these"


@dataclass(frozen=True)
class Option:
    """One line of a list: its text, its probability, and whether it was chosen."""

    text: str
    probability: float
    chosen: bool


@dataclass(frozen=True)
class StepView:
    """One step in words.  ``options`` is empty before the first list; its last entry is *none*."""

    user_id: int
    profile: str
    history: tuple[str, ...]
    """Before this session, oldest first."""
    session: tuple[str, ...]
    """Chosen earlier in this session."""
    turn: int
    options: tuple[Option, ...] = ()
    rating: float | None = None
    reward: float = 0.0
    total: float = 0.0
    left: bool = False
    rationale: str | None = None

    def words(self) -> dict[str, Any]:
        """The texts as plain Python, for ``info["text"]``."""
        return {
            "profile": self.profile,
            "history": list(self.history),
            "session": list(self.session),
            "slate": [option.text for option in self.options[:-1]],
        }

    def verdict(self) -> str:
        """One sentence on what the user did."""
        if not self.options:
            return "The session begins."
        chosen = next(option for option in self.options if option.chosen)
        rated = f", rated {self.rating:g}" if self.rating is not None else ""
        return f"Chosen: {chosen.text}{rated}." + (" The user leaves." if self.left else "")


def step_view(core: SessionCore, row: int, result: StepResult | None, total: float) -> StepView:
    """The present state of one row in words; ``result`` is its last step (as its only row)."""
    text = core.world.text
    known = int(core.start_lengths[row])
    user = int(core.user_ids[row])
    turn = int(core.turns[row])
    earlier = core.turn_chosen[row, : max(turn - 1, 0)]
    history = tuple(
        text.past_item(int(item), float(rating))
        for item, rating in zip(
            core.start_items[row, :known], core.start_ratings[row, :known], strict=True
        )
    )
    session = tuple(text.title(int(item)) for item in earlier if item)
    view = StepView(user, text.profile(user), history, session, turn)
    return view if result is None else _with_step(view, core, result, total)


def _with_step(view: StepView, core: SessionCore, result: StepResult, total: float) -> StepView:
    text, outcome = core.world.text, result.outcome
    probs, choice = outcome.probs[0], int(outcome.choices[0])
    options = [
        Option(text.option(int(item)), float(probs[position]), position == choice)
        for position, item in enumerate(outcome.slates[0])
        if item
    ]
    options.append(Option(NONE_OF_THESE, float(probs[-1]), choice == core.slate_size))
    rating = float(outcome.ratings[0])
    rationales = result.batch.rationales
    return StepView(
        view.user_id, view.profile, view.history, view.session, view.turn, tuple(options),
        None if np.isnan(rating) else rating, float(result.rewards[0]), total,
        bool(result.terminated[0]), None if rationales is None else rationales[0],
    )  # fmt: skip


def render_ansi(view: StepView, width: int = 88) -> str:
    """The step as coloured terminal text."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(
        file=io.StringIO(), width=width, force_terminal=True, color_system="standard",
        legacy_windows=False,
    )  # fmt: skip
    console.print(Text(f"User {view.user_id}  ", style="bold") + Text(view.profile))
    for label, lines in (("watched before", view.history), ("this session", view.session)):
        if lines:
            console.print(Text(f"{label}: ", style="dim") + Text(_last(lines)))
    if view.options:
        table = Table(title=f"List {view.turn}", title_justify="left", box=None, pad_edge=False)
        table.add_column("", width=1)
        table.add_column("option", ratio=1, overflow="fold")
        table.add_column("probability", width=27)
        for option in view.options:
            bar = "█" * round(20 * option.probability)
            table.add_row(
                ">" if option.chosen else "",
                Text(option.text),
                Text(f"{bar:<20} {option.probability:6.1%}"),
                style="bold green" if option.chosen else "",
            )
        console.print(table)
    console.print(Text(view.verdict(), style="bold"), end="")
    if view.options:
        console.print(f"  Reward {view.reward:.2f}, return {view.total:.2f}.", end="")
    if view.rationale:
        console.print(Text(f"\nWhy: {view.rationale}", style="italic"), end="")
    return console.file.getvalue() + "\n"  # type: ignore[attr-defined]


def _last(lines: tuple[str, ...]) -> str:
    shown = "; ".join(lines[-_HISTORY_SHOWN:])
    more = len(lines) - _HISTORY_SHOWN
    return f"({more} earlier) {shown}" if more > 0 else shown


_STYLE = """
.um-step{font:14px/1.45 system-ui,sans-serif;max-width:46em;border:1px solid #8885;border-radius:10px;
padding:12px 16px;margin:8px 0}
.um-step h4{margin:0 0 4px;font-size:15px}.um-step p{margin:4px 0}
.um-step .um-dim{opacity:.75;font-size:13px}
.um-step .um-row{display:grid;grid-template-columns:minmax(0,1fr) 130px 56px;gap:10px;
align-items:center;padding:3px 8px;border-radius:6px}
.um-step .um-chosen{background:#2e9e5b2e;font-weight:600}
.um-step .um-bar{height:9px;border-radius:5px;background:#8883;overflow:hidden}
.um-step .um-bar i{display:block;height:100%;background:#2e7dd1}
.um-step .um-chosen .um-bar i{background:#2e9e5b}
.um-step .um-num{text-align:right;font-variant-numeric:tabular-nums}
"""


def render_html(view: StepView) -> str:
    """The step as a self-contained HTML fragment; all foreign text is escaped."""
    esc = html.escape
    parts = [f"<style>{_STYLE}</style><div class='um-step'>"]
    parts.append(f"<h4>User {view.user_id}</h4><p>{esc(view.profile)}</p>")
    for label, lines in (("Before", view.history), ("This session", view.session)):
        if lines:
            parts.append(f"<p class='um-dim'><b>{label}:</b> {esc(_last(lines))}</p>")
    if view.options:
        parts.append(f"<p><b>List {view.turn}</b></p>")
    parts += [_html_row(option) for option in view.options]
    tail = f" Reward {view.reward:.2f}, return {view.total:.2f}." if view.options else ""
    parts.append(f"<p><b>{esc(view.verdict())}</b>{tail}</p>")
    if view.rationale:
        parts.append(f"<p class='um-dim'><i>{esc(view.rationale)}</i></p>")
    return "".join(parts) + "</div>"


def _html_row(option: Option) -> str:
    share = f"{option.probability:.1%}"
    mark = " um-chosen" if option.chosen else ""
    return (
        f"<div class='um-row{mark}'><span>{html.escape(option.text)}</span>"
        f"<span class='um-bar'><i style='width:{share}'></i></span>"
        f"<span class='um-num'>{share}</span></div>"
    )


RENDERERS: dict[str, Callable[[StepView], str]] = {"ansi": render_ansi, "html": render_html}
