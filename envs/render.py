"""What a person sees of a step: ANSI text for terminals, HTML for notebooks."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rich.table import Table

    from usermirror_gym.envs.core import SessionCore, StepResult

_HISTORY_SHOWN = 5
_BAR = 20  # characters of a full bar
NONE_OF_THESE = "none of these"


@dataclass(frozen=True)
class Option:
    """One line of a list: its text, its probability, and whether it was chosen."""

    title: str
    text: str
    """Title and details, as the list shows them."""
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
    """Chosen in this session before the present list."""
    turn: int
    past: str = "seen"
    """What the user did with the items of the history, e.g. ``"watched"``."""
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
        return f"Chosen: {chosen.title}{rated}." + (" The user leaves." if self.left else "")

    def gains(self) -> str:
        """Reward and return so far; empty before the first list."""
        return f"Reward {self.reward:.2f}, return {self.total:.2f}." if self.options else ""

    def memory(self) -> list[tuple[str, str]]:
        """Headings and texts of what the user did before and in this session."""
        parts = ((f"{self.past} before", self.history), ("this session", self.session))
        return [(label.capitalize(), _last(lines)) for label, lines in parts if lines]


def step_view(core: SessionCore, row: int, result: StepResult | None, total: float) -> StepView:
    """The present state of one row in words; ``result`` is its last step (as its only row)."""
    text, memory = core.world.text, core.world.memory
    user, turn = int(core.user_ids[row]), int(core.turns[row])
    known = int(memory.lengths[user])
    earlier = core.turn_chosen[row, : max(turn - 1, 0)]
    history = tuple(
        text.past_item(int(item), float(rating))
        for item, rating in zip(
            memory.items[user, :known], memory.ratings[user, :known], strict=True
        )
    )
    session = tuple(text.title(int(item)) for item in earlier if item)
    view = StepView(user, text.profile(user), history, session, turn, text.past)
    if result is None:
        return view
    outcome = result.outcome
    probs, choice = outcome.probs[0], int(outcome.choices[0])
    options = [
        Option(text.title(item), text.option(item), float(probs[position]), position == choice)
        for position, item in enumerate(outcome.slates[0].tolist())
        if item
    ]
    none = NONE_OF_THESE
    options.append(Option(none, none, float(probs[-1]), choice == core.slate_size))
    rating = float(outcome.ratings[0])
    rationales = result.batch.rationales
    return replace(
        view,
        options=tuple(options),
        rating=None if np.isnan(rating) else rating,
        reward=float(result.rewards[0]),
        total=total,
        left=bool(result.terminated[0]),
        rationale=None if rationales is None else rationales[0],
    )


def render_ansi(view: StepView, width: int = 80) -> str:
    """The step as coloured terminal text, at most ``width`` columns wide."""
    from rich.text import Text

    from usermirror_gym.progress import Terminal

    console = Terminal(
        file=io.StringIO(), width=width, force_terminal=True, color_system="standard",
        legacy_windows=False,
    )  # fmt: skip
    console.print(Text(f"User {view.user_id}  ", style="bold") + Text(view.profile))
    for label, text in view.memory():
        console.print(Text(f"{label}: ", style="dim") + Text(text))
    if view.options:
        console.print(Text(f"\nList {view.turn}", style="bold"))
        console.print(_ansi_options(view.options))
    console.print(Text(view.verdict(), style="bold") + Text(f" {view.gains()}", style="not bold"))
    if view.rationale:
        console.print(Text(f"Why: {view.rationale}", style="italic"))
    return console.file.getvalue()  # type: ignore[attr-defined]


def _ansi_options(options: tuple[Option, ...]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False, expand=True)
    table.add_column(width=1)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column(width=_BAR)
    table.add_column(width=6, justify="right")
    for option in options:
        table.add_row(
            ">" if option.chosen else "",
            Text(option.text),
            "█" * round(_BAR * option.probability),
            f"{option.probability:.1%}",
            style="bold green" if option.chosen else "",
        )
    return table


def _last(lines: tuple[str, ...]) -> str:
    shown = "; ".join(lines[-_HISTORY_SHOWN:])
    more = len(lines) - _HISTORY_SHOWN
    return f"({more} more) … {shown}" if more > 0 else shown


def render_html(view: StepView) -> str:
    """The step as a self-contained HTML fragment; all foreign text is escaped."""
    from usermirror_gym.report.page import render

    return render("step.html", {"step": view})


RENDERERS: dict[str, Callable[[StepView], str]] = {"ansi": render_ansi, "html": render_html}
