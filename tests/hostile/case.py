"""One row of the table: a harmless marker in something foreign, who reads it, what must happen."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Place:
    """Where a case is tried.

    Attributes:
        folder: empty; the input is written into it.
        marker: a file that appears if something in the input is run, evaluated or followed.
    """

    folder: Path
    marker: Path

    @property
    def code(self) -> str:
        """An expression of Python that leaves the marker when it is evaluated."""
        return f"__import__('pathlib').Path({str(self.marker)!r}).touch()"

    def pickled(self) -> bytes:
        """Bytes that leave the marker when they are unpickled."""
        return pickle.dumps(_Touch(str(self.marker)))


class _Touch:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        name: what is read, and the trick.
        given: writes the input.
        read: has our code read it, the way a user would.
        refused: words of the error that must come (a regular expression), a ``UserMirrorError``;
            empty: there must be none.
        gives: what must be true of the value of ``read``.
    """

    name: str
    given: Callable[[Place], object]
    read: Callable[[Place], Any]
    refused: str = ""
    gives: Callable[[Place, Any], bool] | None = None
