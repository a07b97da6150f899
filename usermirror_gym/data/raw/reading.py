"""Raw files, row by row: plain or gz, any size, with every skipped row counted."""

from __future__ import annotations

import ast
import codecs
import csv
import difflib
import json
import warnings
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from usermirror_gym.data.raw.raw_files import ReadLog, byte_lines, find_file
from usermirror_gym.errors import DataError

__all__ = [
    "ReadLog", "find_file", "read_csv_rows", "read_json_lines", "read_lines", "read_rows",
]  # fmt: skip

Json = dict[str, Any]


def read_lines(
    path: Path, log: ReadLog, *, encoding: str = "utf-8", max_bytes: int = 1_000_000
) -> Iterator[tuple[int, str]]:
    """Lines of text with their numbers (from 1), without line ends; blank lines are given too.

    Bytes that are not valid in ``encoding`` are read as Windows-1252, one by one, so that a
    Latin-1 line in a UTF-8 file is read right and a cut character hurts nothing else; such lines
    are counted.  Lines with NUL bytes and lines over ``max_bytes`` are counted and left out.

    Raises:
        DataError: the file is missing, empty, truncated, or of another kind.
    """
    for number, line in _text_lines(path, log, encoding, max_bytes):
        if line is not None:
            yield number, line


def read_json_lines(
    path: Path, log: ReadLog, *, literal: bool = False, lines: Container[int] | None = None
) -> Iterator[tuple[int, Json]]:
    """One object per line.

    Args:
        path: plain or gz.
        log: told of every line that is not an object.
        literal: the lines may be Python dicts, ``{u'id': u'1'}``, as well as JSON.
        lines: numbers of the lines to parse; the others are passed over unseen.

    Raises:
        DataError: see :func:`read_lines`; also when too many lines are no objects.
    """
    parse = _parse_literal if literal else _parse_json
    form = "Python dicts, one a line" if literal else "JSON objects, one a line"
    tally = _Tally(path, log, form)
    for number, line in tally.of(_text_lines(path, log)):
        if (lines is None or number in lines) and line.strip():
            row = parse(line)
            if row is None:
                tally.skip(f"line that is not {form}, skipped", number, line)
            else:
                tally.good()
                yield number, row
    if lines is None:
        tally.finish()


def read_rows(
    path: Path,
    log: ReadLog,
    *,
    sep: str,
    columns: Sequence[str] | None,
    header: bool,
    encoding: str = "utf-8",
) -> Iterator[tuple[int, dict[str, str]]]:
    """Fields between separators, by column, without quoting.

    Args:
        path: plain or gz.
        log: told of every line with another number of fields.
        sep: one or more characters.
        columns: with a header, the columns wanted (``None``: all); without one, the names of all.
        header: whether the first line names the columns.
        encoding: see :func:`read_lines`.

    Raises:
        DataError: see :func:`read_lines`; also when a column is missing or too many lines are bad.
    """
    tally = _Tally(path, log, f"rows separated by {sep!r}")
    lines = tally.of(_text_lines(path, log, encoding))
    rows = ((number, line.split(sep)) for number, line in lines if line.strip("\r "))
    return _by_column(rows, columns, tally, header=header, sep=sep)


def read_csv_rows(
    path: Path,
    log: ReadLog,
    *,
    columns: Sequence[str],
    lines: Container[int] | None = None,
    sep: str = ",",
) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV file with a header; quoted fields may hold commas, quotes and line breaks.

    Only a line feed ends a line; a carriage return within one is read as a space.

    Args:
        path: plain or gz.
        log: told of every row with another number of fields.
        columns: the columns wanted; the others are not given.
        lines: numbers of the lines whose rows are wanted; ``None``: all.
        sep: one character.

    Yields:
        The number of the line where the row starts, and its fields by column.

    Raises:
        DataError: see :func:`read_lines`; also when a column is missing or too many rows are bad.
    """
    form = "comma-separated rows" if sep == "," else f"rows separated by {sep!r}"
    tally = _Tally(path, log, form)
    return _by_column(_csv_records(tally, sep), columns, tally, lines=lines)


def _csv_records(tally: _Tally, sep: str) -> Iterator[tuple[int, list[str]]]:
    """The line where each row starts, and its fields."""
    start = 0

    def lines_of_text() -> Iterator[str]:
        nonlocal start
        for number, line in tally.of(_text_lines(tally.path, tally.log)):
            start = start or number
            # The csv module takes it for a line end; some of KuaiRec's captions hold one.
            yield line.replace("\r", " ") + "\n"

    reader = csv.reader(lines_of_text(), delimiter=sep)
    while True:
        start = 0
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # The reader starts anew after an error, with the line that follows.
            tally.skip("row that is not CSV, skipped", start, error)
        else:
            if fields:
                yield start, fields


def _by_column(
    rows: Iterable[tuple[int, list[str]]],
    columns: Sequence[str] | None,
    tally: _Tally,
    *,
    header: bool = True,
    sep: str = ",",
    lines: Container[int] | None = None,
) -> Iterator[tuple[int, dict[str, str]]]:
    """The wanted fields of the rows that are as wide as the first, or as the columns are many."""
    wanted = list(columns or ())
    width, picks = (0, []) if header else (len(wanted), list(range(len(wanted))))
    for line, fields in rows:
        if not width:
            wanted = list(columns or map(str.strip, fields))
            width, picks = len(fields), _pick(tally.path, fields, wanted)
        elif len(fields) != width:
            tally.skip(f"row without {width} fields, skipped", line, sep.join(fields))
        else:
            tally.good()
            if lines is None or line in lines:
                yield line, {name: fields[i] for name, i in zip(wanted, picks, strict=True)}
    tally.finish()


class _Tally:
    """Tells a file with some bad rows from a file of another format."""

    def __init__(self, path: Path, log: ReadLog, form: str) -> None:
        self.path, self.log, self._form = path, log, form
        self._good, self._bad, self._first = 0, 0, 0

    def of(self, lines: Iterable[tuple[int, str | None]]) -> Iterator[tuple[int, str]]:
        """The lines that are not left out; the others are bad rows."""
        for number, line in lines:
            if line is None:
                self._count_bad(number)
            else:
                yield number, line

    def skip(self, kind: str, line: int, value: object) -> None:
        self.log.skip(kind, self.path, line, value)
        self._count_bad(line)

    def good(self) -> None:
        self._good += 1

    def _count_bad(self, line: int) -> None:
        self._first = self._first or line
        self._bad += 1
        if self._good == 0 and self._bad == 1000:  # do not read 50 GB of it
            self.finish()

    def finish(self) -> None:
        total = self._good + self._bad
        if self._bad and (self._good == 0 or (self._bad > 100 and self._bad > 0.1 * total)):
            raise DataError(
                f"{self.path}: {self._bad} of {total} rows are bad, the first in line "
                f"{self._first}. Expected {self._form}: is it the file as published?"
            )


def _text_lines(
    path: Path, log: ReadLog, encoding: str = "utf-8", max_bytes: int = 1_000_000
) -> Iterator[tuple[int, str | None]]:
    """As :func:`read_lines`, but lines left out are given as ``None``."""
    for number, line in byte_lines(path, log, max_bytes=max_bytes):
        if line is None:
            yield number, None
        elif b"\0" in line:
            log.skip("line with NUL bytes, skipped", path, number, line.decode("latin-1"))
            yield number, None
        else:
            yield number, _decode(line, encoding, path, number, log)


def _decode(line: bytes, encoding: str, path: Path, number: int, log: ReadLog) -> str:
    try:
        return line.decode(encoding)
    except UnicodeDecodeError as error:
        text = line.decode(encoding, errors=_MIXED)
        around = line[max(error.start - 20, 0) : error.end + 20].decode(encoding, errors=_MIXED)
        log.mend(f"bytes that are not {encoding}, read as Windows-1252", path, number, around)
        return text


_MIXED = "usermirror-windows-1252"


def _as_windows_1252(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    bad = error.object[error.start : error.end]
    # Five bytes have no character there; Latin-1 has one for each.
    return "".join(bytes([b]).decode("cp1252", "ignore") or chr(b) for b in bad), error.end


codecs.register_error(_MIXED, _as_windows_1252)


def _parse_json(line: str) -> Json | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError, MemoryError):
        return None
    return row if isinstance(row, dict) else None


def _parse_literal(line: str) -> Json | None:
    # The same files circulate turned into JSON, which is also tried because it is much faster.
    if (row := _parse_json(line)) is not None:
        return row
    if len(line) > _LONGEST_LITERAL:  # Python's parser takes hundreds of bytes for one of them
        return None
    try:
        with warnings.catch_warnings():  # an odd escape in a review is no fault of the user's code
            warnings.simplefilter("ignore")
            row = ast.literal_eval(line)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
    return row if isinstance(row, dict) else None


_LONGEST_LITERAL = 200_000
"""Characters of a line that is read as Python; reviews have some thousands."""


def _pick(path: Path, header: Sequence[str], columns: Sequence[str]) -> list[int]:
    """Where the wanted columns are in the header."""
    names = [name.strip() for name in header]
    if missing := [name for name in columns if name not in names]:
        raise missing_columns(f"{path}, line 1", missing, names)
    return [names.index(name) for name in columns]


def missing_columns(where: str, missing: list[str], names: list[str]) -> DataError:
    """The error that names the columns a file lacks, those that it has, and the nearest of them."""
    near = difflib.get_close_matches(missing[0], names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return DataError(f"{where}: missing column(s) {missing}.{hint} It has {names}.")
