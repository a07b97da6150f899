"""Rows of a user's own tables, whatever kind of file they are in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq

from usermirror_gym.data.raw.reading import (
    ReadLog,
    find_file,
    missing_columns,
    read_csv_rows,
    read_json_lines,
)
from usermirror_gym.data.raw.values import number
from usermirror_gym.errors import ConfigError, DataError

Row = dict[str, Any]
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
KINDS = (*_SEPARATORS, ".jsonl", ".parquet")


def kind_of(name: str) -> str:
    """The ending that says how a file is read.

    Raises:
        ConfigError: none of :data:`KINDS`.
    """
    kind = Path(name.lower().removesuffix(".gz")).suffix
    if kind not in KINDS:
        raise ConfigError(f"{name!r} must end in one of {', '.join(KINDS)} (or in .gz after that)")
    return kind


def read_table(
    folder: Path, name: str, log: ReadLog, columns: Sequence[str], separator: str | None = None
) -> tuple[Path, Iterator[tuple[int, Row]]]:
    """The path of a file, and its rows (the wanted columns) with their line or row numbers.

    Raises:
        DataError: the file or a column is missing (with the nearest that is there), or the file is
            damaged.
    """
    kind, path = kind_of(name), find_file(folder, name)
    wanted = list(dict.fromkeys(columns))
    if kind == ".jsonl":
        return path, _json_rows(path, log, wanted)
    if kind == ".parquet":
        return path, _parquet_rows(path, wanted)
    sep = separator or _SEPARATORS[kind]
    return path, read_csv_rows(path, log, columns=wanted, sep=sep)


def _json_rows(path: Path, log: ReadLog, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
    """A key may be absent from some lines, but not from all."""
    unseen, others = set(columns), set[str]()
    for line, row in read_json_lines(path, log):
        unseen -= row.keys()
        if unseen:
            others |= row.keys()
        yield line, {name: row.get(name) for name in columns}
    if unseen:
        missing = [name for name in columns if name in unseen]
        raise missing_columns(str(path), missing, sorted(others))


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if missing := [name for name in columns if name not in names]:
                raise missing_columns(str(path), missing, sorted(names))
            number = 0
            for batch in file.iter_batches(columns=list(columns)):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error


def seconds(value: object, unit: str, form: str | None, zone: str) -> int | None:
    """A raw time as whole seconds since 1970, or ``None`` if it cannot be read."""
    if isinstance(value, str) and form is not None:
        value = _parsed(value.strip(), form)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, datetime):
        when = value if value.tzinfo else value.replace(tzinfo=ZoneInfo(zone))
        try:
            return int(when.timestamp() // 1)
        except (OverflowError, ValueError):
            return None
    if form is not None:
        return None
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value) if len(value) < 40 else None
    if isinstance(value, int) and not isinstance(value, bool):
        return value // _UNITS[unit]  # nanoseconds do not fit into a float
    count = number(value)
    return None if count is None else int(count // _UNITS[unit])


def _parsed(value: str, form: str) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if form == "iso" else datetime.strptime(value, form)
    except ValueError:
        return None


def truth(value: object) -> bool | None:
    """Whether something was clicked: 1 / true / yes, or 0 / false / no / nothing."""
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, int | float):
        return bool(value) if value in (0, 1) else None
    known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False,
             "1.0": True, "0.0": False, "": False}  # fmt: skip
    return known.get(str(value).strip().lower())
