"""Raw files, line by line: plain or gz, any size, with every skipped row counted."""

from __future__ import annotations

from pathlib import Path

from usermirror_gym.data.dataset import BadRows, Repair


class ReadLog:
    """Counts what was skipped while reading, by kind, with a few examples (file and line)."""

    def __init__(self, bad_rows: BadRows = "repair") -> None:
        self.bad_rows = bad_rows
        self._kinds: dict[str, tuple[int, tuple[str, ...]]] = {}

    def skip(self, kind: str, path: Path, line: int, value: object = "") -> None:
        """Note one skipped row.

        Raises:
            DataError: ``bad_rows="raise"``.
        """
        raise NotImplementedError

    @property
    def repairs(self) -> tuple[Repair, ...]:
        """What was skipped so far."""
        return tuple(Repair(kind, *noted) for kind, noted in self._kinds.items())
