"""Files as published, plain or gz, found by name and streamed as lines of bytes."""

from __future__ import annotations

import difflib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from usermirror_gym.data.read_log import ReadLog
from usermirror_gym.errors import DataError

_GZ = b"\x1f\x8b"
_FOREIGN = {
    b"PK\x03\x04": "a zip archive: unpack it",
    b"BZh": "compressed with bzip2: unpack it",
    b"\xfd7zXZ": "compressed with xz: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it",
    b"PAR1": "a Parquet file: the text file as published is expected",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8",
}
_BOM = b"\xef\xbb\xbf"
_BUFFER = 1 << 18


def find_file(folder: Path, name: str) -> Path:
    """The file ``name`` below ``folder``, whichever of its spellings is there.

    Any file may be plain or end in .gz; .json and .jsonl stand for each other.

    Raises:
        DataError: neither is there; says what is, and which of it comes nearest.
    """
    spellings = _spellings(name)
    for candidate in spellings:
        if (folder / candidate).is_file():
            return folder / candidate
    wanted = folder / name
    message = f"{wanted} is missing (looked for {', '.join(spellings)} in {folder})."
    if not wanted.parent.is_dir():
        raise DataError(f"{message} There is no such folder.")
    here = sorted(path.name for path in wanted.parent.iterdir())
    near = difflib.get_close_matches(wanted.name, here, n=1, cutoff=0.5)
    hint = f" Is it {near[0]!r}, under another name?" if near else ""
    listed = ", ".join(here[:10]) + (", ..." if len(here) > 10 else "")
    raise DataError(f"{message}{hint} The folder holds: {listed or 'nothing'}.")


def _spellings(name: str) -> tuple[str, ...]:
    plain = name.removesuffix(".gz")
    names = [name, plain, f"{plain}.gz"]
    for one, other in ((".json", ".jsonl"), (".jsonl", ".json")):
        if plain.endswith(one):
            swapped = plain.removesuffix(one) + other
            names += [swapped, f"{swapped}.gz"]
    return tuple(dict.fromkeys(names))


def has_file(folder: Path, name: str) -> bool:
    """Whether :func:`find_file` would find it."""
    return any((folder / candidate).is_file() for candidate in _spellings(name))


def byte_lines(
    path: Path, log: ReadLog, *, max_bytes: int = 1_000_000
) -> Iterator[tuple[int, bytes | None]]:
    """The lines of ``path`` without line ends, numbered from 1, never more than one in memory.

    Whether the file is gz is decided by its first bytes.  A line longer than ``max_bytes`` is
    read over, noted in ``log`` and given as ``None``.

    Raises:
        DataError: the file is empty, unreadable, truncated, or of another kind; names the line
            that was reached.
    """
    number = 0
    try:
        with path.open("rb") as raw, log.progress(path) as reached:
            stream = _decompressed(path, raw)
            for number, line in enumerate(_bounded_lines(stream, max_bytes), start=1):
                if line is None:
                    log.skip(f"line longer than {max_bytes:,} bytes, skipped", path, number)
                elif number == 1:
                    line = line.removeprefix(_BOM)
                if number % 1000 == 0:
                    reached(raw.tell())
                yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: the gz data break off or are damaged after line {number} ({error}). "
            "Fetch the file again."
        ) from error
    except OSError as error:
        raise DataError(
            f"cannot read {path} after line {number}: {error.strerror or error}"
        ) from error
    if number == 0:
        raise DataError(f"{path} is empty. Fetch the file again.")


def _decompressed(path: Path, raw: io.BufferedReader) -> IO[bytes]:
    start = raw.peek(8)
    for magic, what in _FOREIGN.items():
        if start.startswith(magic):
            raise DataError(f"{path} is {what}.")
    if not start.startswith(_GZ):
        return raw
    unpacked = cast(io.RawIOBase, gzip.GzipFile(fileobj=raw))
    return io.BufferedReader(unpacked, _BUFFER)


def _bounded_lines(stream: IO[bytes], max_bytes: int) -> Iterator[bytes | None]:
    while line := stream.readline(max_bytes + 2):
        content = line.removesuffix(b"\n").removesuffix(b"\r")
        if len(content) <= max_bytes:
            yield content
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(_BUFFER)
        yield None
