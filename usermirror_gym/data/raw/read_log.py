"""What was skipped or mended while reading raw files, and how far the reading is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from usermirror_gym.data.dataset import BadRows, Repair
from usermirror_gym.errors import DataError, UnknownNameError
from usermirror_gym.progress import Display

_MEGABYTE = 1_000_000
_EXAMPLES = 3


class ReadLog:
    """Counts skipped and mended rows by kind, each kind with the place of its first few rows.

    Args:
        bad_rows: ``"repair"`` counts; ``"raise"`` makes the first such row an error.
        display: shows a bar over the bytes of every file that is read (compressed bytes for gz).

    Raises:
        UnknownNameError: ``bad_rows`` is neither of the two.
    """

    def __init__(self, bad_rows: BadRows = "repair", display: Display | None = None) -> None:
        if bad_rows not in get_args(BadRows):
            raise UnknownNameError("bad_rows", bad_rows, get_args(BadRows))
        self.bad_rows = bad_rows
        self.display = display
        self._kinds: dict[str, tuple[int, tuple[str, ...]]] = {}

    def skip(self, kind: str, path: Path, line: int, value: object = "") -> None:
        """Note one row that is left out.

        Args:
            kind: what is wrong, such as ``"game without an id, skipped"``.
            path: the file.
            line: counted from 1.
            value: what was found there.

        Raises:
            DataError: ``bad_rows="raise"``.
        """
        if self.bad_rows == "raise":
            shown = f": {_short(value)}" if value != "" else ""
            raise DataError(
                f"{path}, line {line}: {kind}{shown}. Mend the file, or pass bad_rows='repair'."
            )
        count, examples = self._kinds.get(kind, (0, ()))
        if count < _EXAMPLES:
            examples = (*examples, f"{path.name}:{line} {_short(value)}".rstrip())
        self._kinds[kind] = (count + 1, examples)

    def mend(self, kind: str, path: Path, line: int, value: object = "") -> None:
        """Note one row that is kept without its bad value; as :meth:`skip` otherwise."""
        self.skip(kind, path, line, value)

    @property
    def repairs(self) -> tuple[Repair, ...]:
        """What was skipped or mended so far."""
        return tuple(Repair(kind, *noted) for kind, noted in self._kinds.items())

    def again(self) -> ReadLog:
        """A log for reading the same file once more: its counts are not added to this one."""
        return ReadLog("repair", self.display)

    @contextmanager
    def progress(self, path: Path) -> Iterator[Callable[[int], None]]:
        """A bar over the bytes of ``path``; the value takes the position reached.

        Small files and logs without a display have no bar.
        """
        total = path.stat().st_size // _MEGABYTE
        if self.display is None or total == 0:
            yield lambda position: None
            return
        shown = 0
        with self.display.phase(path.name, total, "MB") as advance:

            def reached(position: int) -> None:
                nonlocal shown
                if (step := position // _MEGABYTE - shown) > 0:
                    advance(step)
                    shown += step

            yield reached


def _short(value: object, length: int = 60) -> str:
    try:
        text = value if isinstance(value, str) else repr(value)
    except RecursionError:  # a row nested hundreds of levels deep
        text = type(value).__name__
    text = "".join(c if c.isprintable() else "?" for c in text[: length + 1])
    return text if len(text) <= length else text[:length] + "..."
