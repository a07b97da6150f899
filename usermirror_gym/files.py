"""Files and folders that are either whole or absent.

Whatever is being written has a temporary name beside its own (:func:`temporary`) and is renamed
when it is whole.  What a killed process left under such a name is deleted by
:func:`remove_unfinished`, which only the one who holds the lock of a folder may call
(:mod:`usermirror_gym.run_folder`): to others it may be a file that somebody is writing.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from usermirror_gym.errors import RunError

if TYPE_CHECKING:
    import pyarrow as pa


def temporary(path: Path) -> Path:
    """The name that a file or folder of this process has beside ``path`` until it is whole."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_unfinished(folder: Path, name: str = "") -> None:
    """Delete what killed processes were writing, anywhere below a folder that nobody writes into.

    Args:
        name: only what was to become a file of this name.
    """
    for path in list(folder.rglob(f".{name}.*.tmp" if name else ".*.tmp")):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, says so; other libraries have words of their own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # Of safetensors, and of PyTorch, which says no more than that.
        if re.search(r"\(os error (28|122)\)|PytorchStreamWriter failed writing", str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """An error of other software that writes into a folder inside the block, whatever it says, is
    the system's own if the disk is full.

    Raises:
        OSError: ENOSPC, with the folder.
    """
    try:
        yield
    except Exception as error:
        if disk_is_full(error) or shutil.disk_usage(folder).free < _ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        raise


_ROOM = 1 << 16
"""Bytes: with less than that on the disk, hardly anything can be written."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, which takes the place of ``path`` once the block has ended well.

    It has a temporary name until then: readers see the old file or the whole new one.

    Raises:
        OSError: it cannot be written; with the path, also where the system names none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = temporary(path)
    try:
        with new.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # of a full disk
        raise
    finally:
        new.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that takes its place once the block has ended well.

    Raises:
        RunError: another process put a folder there at the same moment; that one stays.
    """
    new, old = temporary(folder), None
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        try:
            old = _aside(folder) if folder.exists() else None
            new.rename(folder)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            raise RunError(
                f"another process wrote {folder} at the same moment, and its content stays: "
                "write into another folder, or once more"
            ) from error
    finally:
        for left in (new, old):
            if left is not None:
                shutil.rmtree(left, ignore_errors=True)


_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT)
"""Somebody else has exchanged the folder between our two moves."""


def safe_name(name: str) -> bool:
    """Whether a folder beside others can be called so: it is no path, and can be printed."""
    return Path(name).name == name != ".." and bool(name) and name.isprintable()


def discard(folder: Path) -> None:
    """Delete a folder, which nobody finds half deleted."""
    shutil.rmtree(_aside(folder))


def _aside(folder: Path) -> Path:
    """Where a folder is after it got a temporary name."""
    aside = temporary(folder.with_name(f"{folder.name}-old"))
    shutil.rmtree(aside, ignore_errors=True)
    return folder.rename(aside)


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a whole file; see :func:`replacing`."""
    with replacing(path) as file:
        file.write(content)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write a whole file in UTF-8; see :func:`replacing`."""
    return write_bytes(path, text.encode("utf-8"))


_AGAIN = "Delete it to compute it again."


@contextmanager
def _reading(path: Path, cure: str = _AGAIN) -> Iterator[None]:
    """Whatever goes wrong inside (a damaged file can fail in any way) is an error with a cure."""
    try:
        yield
    except Exception as error:
        raise RunError(f"cannot read {path}: {error}. {cure}") from error


def write_parquet(path: Path, table: pa.Table) -> Path:
    """Write a whole file; the same table is always the same bytes."""
    import pyarrow.parquet as pq

    with replacing(path) as file:
        pq.write_table(table, file, compression="zstd")
    return path


def read_parquet(path: Path, cure: str = _AGAIN) -> pa.Table:
    """Raise RunError, which ends with the cure, if the file is not Parquet."""
    import pyarrow.parquet as pq

    with _reading(path, cure):
        table = pq.read_table(path)
    return table


def save_arrays(path: Path, **arrays: Any) -> Path:
    """Write a whole ``.npz`` file; see :func:`replacing`."""
    with replacing(path) as file:
        np.savez(file, **arrays)
    return path


def load_arrays(path: Path, *names: str, cure: str = _AGAIN) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` file, these among them.

    Raises:
        RunError: the file cannot be read, or lacks one of these; names it and the cure.
    """
    with _reading(path, cure):
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        if missing := [name for name in names if name not in found]:
            raise ValueError(f"it lacks {', '.join(missing)}")
    return found


def kept_array(path: Path | None, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in a ``.npy`` file, made and written if it is not there; ``None`` keeps nothing.

    Raises:
        RunError: the file cannot be read.
    """
    if path is None:
        return make()
    if not path.is_file():
        array = make()
        with replacing(path) as file:
            np.save(file, array)
    with _reading(path):
        kept = np.load(path, allow_pickle=False)
    return kept


def kept_json(path: Path, make: Callable[[], Any]) -> Any:
    """What a JSON file holds; what is not there yet is made and written first."""
    if not path.is_file():
        write_json(path, to_json_types(make()))
    return read_json(path)


def sha256(path: Path) -> str:
    """Hexadecimal checksum of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: Any) -> Path:
    """JSON without NaN, which no other reader understands."""
    return write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """One JSON object per line."""
    return write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def read_json(path: Path) -> Any:
    """Raise RunError if the file is not JSON."""
    with _reading(path):
        content = json.loads(path.read_text(encoding="utf-8"))
    return content


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
