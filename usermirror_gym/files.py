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

from usermirror_gym.errors import RunError, UserMirrorError
from usermirror_gym.foreign import parse_json

if TYPE_CHECKING:
    import pyarrow as pa

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a full disk says, a used-up quota, a file that may not be so large."""
_FULL = 1_000_000
"""Bytes: with fewer a disk is full."""


def temporary(path: Path) -> Path:
    """The name that a file or folder of this process has beside ``path`` until it is whole."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_unfinished(folder: Path, name: str = "") -> None:
    """Delete what killed processes were writing, anywhere below a folder that nobody writes into.

    Folders below it that have a lock of their own are left to those who get that.

    Args:
        name: only what was to become a file of this name.
    """
    ours = re.compile(rf"\.{re.escape(name) or '.+'}\.\d+\.tmp")
    for place, folders, files in os.walk(folder):
        own = Path(place)
        for path in [own / found for found in (*folders, *files) if ours.fullmatch(found)]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        folders[:] = [f for f in folders if (own / f).is_dir() and not (own / f / LOCK).exists()]


LOCK = ".lock"
"""The file by whose lock a folder is one process's."""


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, says so; other libraries have words of their own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        # Of safetensors, and of PyTorch, which says no more than that.
        if re.search(r"\(os error (28|122)\)|PytorchStreamWriter failed writing", str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


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
        with naming(path):
            with new.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
    finally:
        new.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Whatever fails inside because the disk is full says so, and which file was being written.

    The system's errors name no file once it is open, and libraries have errors of their own.
    """
    try:
        yield
    except UserMirrorError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            if not isinstance(error, ConnectionError | TimeoutError):
                error.filename = error.filename or str(path)
            raise
        there = path.parent.exists()
        if there and (disk_is_full(error) or shutil.disk_usage(path.parent).free < _FULL):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that takes its place once the block has ended well.

    Raises:
        RunError: another process put a folder there at the same moment; that one stays.
    """
    folder = folder.resolve() if folder.is_symlink() else folder  # the link stays
    new, old = temporary(folder), None
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        with naming(folder):
            yield new
        try:
            old = _aside(folder) if folder.exists() else None
            new.rename(folder)
        except OSError as error:
            if old is not None and not folder.exists():
                old.rename(folder)  # what was there stays
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


SUMS_FILE = "SHA256SUMS"
"""Checksum, size and name of every file of a folder."""


def record_sums(folder: Path) -> None:
    """Write down what the files of a folder hold now."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name != SUMS_FILE)
    lines = [f"{sha256(path)} {path.stat().st_size} {path.name}\n" for path in files]
    write_text(folder / SUMS_FILE, "".join(lines))


def damaged_files(folder: Path, *, recorded: bool = True, sizes_only: bool = False) -> list[str]:
    """Names of files that do not hold what was written down of them.

    That is :data:`SUMS_FILE`; in the cache of the Hugging Face hub it is the name of the file
    behind the link, a SHA-256 or git's SHA-1.  Of other files nothing is known.

    Args:
        recorded: whether we wrote :data:`SUMS_FILE`; in a folder of others it means nothing.
        sizes_only: reads no file to its end.
    """
    found, sums = [], folder / SUMS_FILE
    if not (recorded and sums.is_file()):
        found = [] if sizes_only else [p.name for p in folder.iterdir() if not _is_its_blob(p)]
        return sorted(found)
    try:
        for line in sums.read_text("utf-8").splitlines():
            expected, size, name = line.split(" ", 2)
            path = folder / name
            same = path.is_file() and path.stat().st_size == int(size)
            if not (same and (sizes_only or sha256(path) == expected)):
                found.append(name)
    except (OSError, ValueError):  # of our own record nothing is left
        found = [SUMS_FILE]
    return sorted(found)


def _is_its_blob(path: Path) -> bool:
    """Whether a link of the hub's cache leads to what the name of the file says."""
    blob = path.resolve()
    # snapshots/REVISION/FILE -> ../../blobs/CHECKSUM
    blobs = path.parent.resolve().parent.parent / "blobs"
    if not path.is_symlink() or blob.parent != blobs or len(blob.name) not in (40, 64):
        return True
    if not blob.is_file():
        return False
    if len(blob.name) == 64:
        return sha256(blob) == blob.name
    content = blob.read_bytes()
    whole = b"blob %d\0%s" % (len(content), content)
    return hashlib.sha1(whole, usedforsecurity=False).hexdigest() == blob.name


def write_json(path: Path, content: Any) -> Path:
    """JSON without NaN, which no other reader understands."""
    return write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """One JSON object per line."""
    return write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def read_json(path: Path, cure: str = _AGAIN) -> Any:
    """Raise RunError, which ends with the cure, if the file is not JSON."""
    with _reading(path, cure):
        content = parse_json(path.read_text(encoding="utf-8"))
    return content


def read_mapping(path: Path, cure: str = _AGAIN) -> dict[str, Any]:
    """Raise RunError, which ends with the cure, if the file is no JSON mapping."""
    content = read_json(path, cure)
    if not isinstance(content, dict):
        raise RunError(f"{path} must hold a mapping, and holds a {type(content).__name__}. {cure}")
    return content


def read_jsonl(path: Path) -> list[Any]:
    """Raise RunError, with the line, if a line is not JSON."""
    rows = []
    with _reading(path):
        lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines[: len(lines) - (lines[-1] == "")], start=1):
        try:
            rows.append(parse_json(line))
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
