"""Rows of a released data set: a file, a folder, or a data set on the Hugging Face hub."""

from __future__ import annotations

import gzip
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from usermirror_gym.errors import DataError, UnknownNameError

Row = tuple[str, dict[str, Any]]
"""Where a row is, for messages, and its columns."""

HUB_NAMES = ("Joinn/UserMirrorer", "Joinn/UserMirrorer-eval")
_ENDINGS = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")
_SHARD = re.compile(r"-\d{5}-of-\d{5}(?=\.)")


def read_rows(path_or_name: str | Path, column: str) -> Iterator[Row]:
    """All rows, in order, each with its place.

    Args:
        path_or_name: a file (JSON lines, gzipped or not, or Parquet), a folder of such files, or
            ``owner/name`` on the hub.
        column: what the wanted file has; other files of a folder are left alone.

    Raises:
        UnknownNameError: neither there nor a name on the hub; suggests the nearest.
        DataError: nothing to read, several files that could be meant, or a file that is damaged;
            names the file and the row.
    """
    path = Path(path_or_name).expanduser()
    if not path.exists():
        path = _download(str(path_or_name))
    files = [path] if path.is_file() else _files(path, column)
    return itertools.chain.from_iterable(_read(file) for file in files)


def _download(name: str) -> Path:
    """The folder of the hub's copy, in the hub's own cache."""
    parts = name.split("/")
    if len(parts) != 2 or not all(parts) or name.startswith((".", "~")):
        raise UnknownNameError("released data set", name, (*HUB_NAMES, "<a file or a folder>"))
    from huggingface_hub import snapshot_download

    try:
        patterns = [f"*{ending}" for ending in _ENDINGS]
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=patterns))
    except Exception as error:  # the hub, its HTTP library and the disk each have their own
        hint = UnknownNameError("name", name, HUB_NAMES).suggestion
        near = f" Did you mean {hint!r}?" if hint and hint != name else ""
        raise DataError(
            f"cannot get the data set {name} from the hub: {error}.{near} With a copy of its "
            "files, give their folder instead."
        ) from error


def _files(folder: Path, column: str) -> list[Path]:
    candidates = [p for p in sorted(folder.rglob("*")) if p.is_file() and _readable(p)]
    found = [path for path in candidates if column in _first(path)]
    if not found:
        names = ", ".join(p.name for p in candidates) or f"none of {', '.join(_ENDINGS)}"
        raise DataError(f"no file in {folder} has the column {column!r} (files: {names})")
    parts = {_SHARD.sub("", path.name) if _SHARD.search(path.name) else path for path in found}
    if len(parts) > 1:
        raise DataError(
            f"several files in {folder} have the column {column!r}: "
            f"{', '.join(p.name for p in found)}. Give the one that is meant."
        )
    return found


def _readable(path: Path) -> bool:
    return path.name.endswith(_ENDINGS) and not path.name.startswith(".")


def _first(path: Path) -> dict[str, Any]:
    """The first row; empty if the file cannot hold the data set."""
    try:
        return next(_read(path), ("", {}))[1]
    except DataError:
        # Other JSON lies beside data sets; a damaged file is reported if it is named.
        return {}


def _read(path: Path) -> Iterator[Row]:
    if path.suffix == ".parquet":
        return _read_parquet(path)
    if not path.name.endswith(_ENDINGS):
        raise DataError(f"{path} ends in none of {', '.join(_ENDINGS)}")
    return _read_lines(path)


def _read_lines(path: Path) -> Iterator[Row]:
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}, line {number}", _parse(line)
    except (OSError, EOFError, ValueError, RecursionError) as error:
        place = f"{path}, line {max(number, 1)}"
        raise DataError(f"{place}: {error}. The file must hold one JSON object a line.") from error


def _parse(line: bytes) -> dict[str, Any]:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__}, not an object")
    return row


def _read_parquet(path: Path) -> Iterator[Row]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path} after row {number}: {error}") from error
