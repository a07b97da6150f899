"""Progress bars with rate and time left."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.text import Text

from usermirror_gym.foreign import for_terminal

_phases = 0


class Terminal(Console):
    """A console that prints texts as they stand: square brackets in them are no markup, and no
    terminal obeys them.  Colours come from styles alone."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **options)

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is to be written, its texts made harmless."""
        for part in super().render(renderable, options):
            yield part if part.control else Segment(for_terminal(part.text), part.style)


def in_phase() -> bool:
    """Whether a phase is under way: a second bar would be drawn over its own, and where it is quiet
    none is wanted."""
    return _phases > 0


class _Rate(ProgressColumn):
    """Units a second since the start."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} {task.fields['unit']}/s", style="dim")


class Display:
    """Says what is going on; ``quiet=True`` says nothing."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self.console = console or Terminal(stderr=True, quiet=quiet)
        self.quiet = quiet

    def say(self, message: str) -> None:
        """One line."""
        self.console.print(for_terminal(message), markup=False, emoji=False, highlight=False)

    @contextmanager
    def phase(self, name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """A bar; the value is a function that takes the units done since the last call."""
        columns = (
            TextColumn("{task.description:<14}", markup=False), BarColumn(bar_width=14),
            MofNCompleteColumn(), _Rate(), TimeElapsedColumn(), TextColumn("left"),
            TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=self.console, disable=self.quiet) as bars, _counted():
            task = bars.add_task(for_terminal(name), total=total, unit=unit)
            yield lambda done: bars.advance(task, done)
            # Sessions that end early leave fewer steps than were planned.
            bars.update(task, total=bars.tasks[0].completed)


@contextmanager
def _counted() -> Iterator[None]:
    global _phases
    _phases += 1
    try:
        yield
    finally:
        _phases -= 1
