"""Files as published, plain or gz, found by name and streamed as lines of bytes."""

from __future__ import annotations

import difflib
import gzip
import io
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, cast

from usermirror_gym.data.raw.read_log import ReadLog
from usermirror_gym.errors import DataError
from usermirror_gym.files import replacing

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


_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError,
    RuntimeError,  # a zip with a password
)  # fmt: skip


def unpack(archive: Path, targets: Mapping[str, Path]) -> None:
    """Write members of a zip or (compressed) tar archive to the given paths.

    The paths are the caller's, so no name inside the archive decides where anything is written.

    Args:
        archive: kind told by its content.
        targets: path inside the archive -> where to write.  A member that moved to another
            folder of the archive is found by its last name, if that is unique.

    Raises:
        DataError: not an archive, damaged, or a member is missing.
        OSError: the disk is full, or a folder cannot be written.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                names = [i.filename for i in zipped.infolist() if not i.is_dir()]
                for member, target in targets.items():
                    with zipped.open(_find(names, member, archive)) as content:
                        _write(content, target)
            return
        with tarfile.open(archive) as tar:
            names = [i.name for i in tar if i.isreg()]
            for member, target in targets.items():
                if (packed := tar.extractfile(_find(names, member, archive))) is not None:
                    with packed:
                        _write(packed, target)
    except _DAMAGED as error:
        raise DataError(f"{archive.name} cannot be unpacked: {error}") from error


def _find(names: list[str], member: str, archive: Path) -> str:
    if member in names:
        return member
    last = PurePosixPath(member).name
    same = [name for name in names if PurePosixPath(name).name == last]
    if len(same) != 1:
        shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise DataError(f"{archive.name} holds no {member!r}; it holds {shown or 'nothing'}")
    return same[0]


def _write(content: IO[bytes], target: Path) -> None:
    with replacing(target) as file:
        shutil.copyfileobj(content, file, 1 << 20)
