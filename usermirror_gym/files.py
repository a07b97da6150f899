"""Files that are either whole or absent."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from usermirror_gym.errors import RunError

if TYPE_CHECKING:
    import pyarrow as pa
import numpy as np


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, which takes the place of ``path`` once the block has ended well.

    It has a temporary name until then: readers see the old file or the whole new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a whole file; see :func:`replacing`."""
    with replacing(path) as file:
        file.write(content)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write a whole file in UTF-8; see :func:`replacing`."""
    return write_bytes(path, text.encode("utf-8"))


def write_parquet(path: Path, table: pa.Table) -> Path:
    """Write a whole file; the same table is always the same bytes."""
    import pyarrow.parquet as pq

    with replacing(path) as file:
        pq.write_table(table, file, compression="zstd")
    return path


def read_parquet(path: Path) -> pa.Table:
    """Raise RunError if the file is not Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise RunError(f"cannot read {path}: {error}. Delete it to compute it again.") from error


def sha256(path: Path) -> str:
    """Hexadecimal checksum of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_unfinished(folder: Path) -> None:
    """Delete what a killed process was writing."""
    for path in list(folder.rglob(".*.tmp")):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def remove_at_once(folder: Path) -> None:
    """Delete a folder, renamed first: it must not be found half deleted."""
    doomed = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def write_json(path: Path, content: Any) -> Path:
    """JSON without NaN, which no other reader understands."""
    return write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def without_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose NaN, which JSON cannot hold, are ``None``."""
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in row.items()
    }


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """One JSON object per line."""
    return write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def read_json(path: Path) -> Any:
    """Raise RunError if the file is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}. Delete it to compute it again.") from error


def read_jsonl(path: Path) -> list[Any]:
    """Raise RunError, with the line, if a line is not JSON."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise RunError(
                f"{path}, line {number}: {error}. Delete the file to redo it."
            ) from error
    return rows


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that takes its place once the block has ended well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", suffix=".tmp", dir=folder.parent))
    try:
        yield new
        if folder.exists():
            aside = new.with_name(f"{new.stem}-old.tmp")
            os.replace(folder, aside)
            os.replace(new, folder)
            shutil.rmtree(aside)
        else:
            os.replace(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def to_json_types(value: Any) -> Any:
    """Plain JSON types: numpy scalars and arrays converted, NaN and infinities to ``None``."""
    if isinstance(value, Mapping):
        return {str(k): to_json_types(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return to_json_types(value.tolist())
    if isinstance(value, (list, tuple)):
        return [to_json_types(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
