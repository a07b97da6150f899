"""Append-only JSON lines that survive ``kill -9``: what is written is never written again.

The first line is a header that says what the records are about.  Whoever goes on with a journal
must be about the same; otherwise two experiments would be mixed without a trace.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from inspect import signature
from pathlib import Path
from typing import IO, Any, TypeVar

from filelock import FileLock, Timeout

from usermirror_gym.configs.settings import differences
from usermirror_gym.errors import RunError
from usermirror_gym.files import naming, remove_unfinished, replacing
from usermirror_gym.foreign import parse_json

Record = dict[str, Any]
T = TypeVar("T")


class Journal:
    """A journal opened for going on; a context manager that keeps other writers out.

    Opening it cuts off a last line that a killed process left unfinished, and checks the header.
    Records are on disk when :meth:`append` returns.

    Args:
        path: the file; it and its folder are created if need be.
        header: what the records are about: names to plain JSON values.

    Raises:
        RunError: the file is no journal, was begun with another header (names the difference), or
            is open in another process.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self._header: Record = json.loads(json.dumps(dict(header)))
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"{self.path} is being written by another process: wait for it, or stop it."
            ) from None
        try:
            self._begin()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()
        self._lock.release()

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write records and wait until the disk has them."""
        if self._file is None:
            raise RunError(f"{self.path} is closed: append inside its with block.")
        with naming(self.path):
            self._file.write(b"".join(map(_line, records)))
            self._file.flush()
            os.fsync(self._file.fileno())

    def records(self) -> Iterator[Record]:
        """Every record, in the order written."""
        return read_records(self.path)

    def sort(self, key: Callable[[Record], Any]) -> None:
        """Put the records in order, so that the same records are the same file.

        The new file replaces the old one when it is whole.  Only keys and places of the lines are
        held in memory.
        """
        if self._file is None:
            raise RunError(f"{self.path} is closed: sort inside its with block.")
        places = [(key(record), start, len(line)) for start, line, record in _read_lines(self.path)]
        in_order = sorted(places)
        if in_order == places:
            return
        self._file.close()
        with self.path.open("rb") as old, replacing(self.path) as new:
            new.write(old.readline())
            for _, start, length in in_order:
                old.seek(start)
                new.write(old.read(length))
        self._file = self.path.open("ab")

    def _begin(self) -> None:
        remove_unfinished(self.path.parent, self.path.name)
        self.path.touch()
        first = _line(self._header)
        with self.path.open("rb") as file:
            content = file.read(len(first) + 1)
        if first.startswith(content):
            # New, or killed while the header was being written.
            self._file = self.path.open("wb")
            self.append([self._header])
            return
        changes = "; ".join(
            f"{name} was {_show(then)} and is now {_show(now)}"
            for name, then, now in differences(read_header(self.path), self._header)
        )
        if changes:
            raise RunError(
                f"{self.path} was begun differently: {changes}. "
                "Go on as it was begun, or name another folder, or delete the file to start anew."
            )
        with self.path.open("r+b") as file:  # a torn line is cut off
            file.truncate(sum(len(line) for line in file if line.endswith(b"\n")))
        self._file = self.path.open("ab")


def read_header(path: Path) -> Record:
    """The first line of a journal.

    Raises:
        RunError: there is no such file, or it is no journal.
    """
    try:
        with path.open("rb") as file:
            header = parse_json(file.readline())
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path} is not a journal of this library: {error}. Move or delete it."
        ) from error
    if not isinstance(header, dict) or "journal" not in header:
        raise RunError(f"{path} is not a journal of this library: its first line is no header.")
    return header


def read_records(path: Path) -> Iterator[Record]:
    """Every record of a journal, in the order written.

    Raises:
        RunError: a line that is not a JSON object, or is unfinished; names it.
    """
    return (record for _, _, record in _read_lines(path))


def records_as(path: Path, kind: Callable[..., T], what: str) -> Iterator[T]:
    """Every record of a journal as an instance of a dataclass.

    Args:
        what: how the message calls one that has other fields.

    Raises:
        RunError: see :func:`read_records`, or a record with other fields.
    """
    names = set(signature(kind).parameters)
    for record in read_records(path):
        if record.keys() != names:
            raise RunError(f"{path} has a record that is no {what}: {str(record)[:200]}")
        yield kind(**record)


def _read_lines(path: Path) -> Iterator[tuple[int, bytes, Record]]:
    """Place, bytes and content of every record."""
    read_header(path)
    with path.open("rb") as file:
        start = len(file.readline())
        for number, line in enumerate(file, start=2):
            if not line.endswith(b"\n"):
                raise RunError(
                    f"{path}, line {number} is unfinished: run the command that writes it again."
                )
            try:
                record = parse_json(line)
            except ValueError as error:
                raise RunError(f"{path}, line {number}: {error}. Restore or delete it.") from error
            if not isinstance(record, dict):
                raise RunError(f"{path}, line {number} is not an object. Restore or delete it.")
            yield start, line, record
            start += len(line)


def texts_version(parts: Iterable[tuple[Any, ...]]) -> str:
    """A short digest, for headers, of names and texts."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(repr(part).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, allow_nan=False).encode() + b"\n"


def _show(value: Any) -> str:
    return "nothing" if value is None else repr(value)
