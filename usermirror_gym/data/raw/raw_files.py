"""Files as published, plain or gz, found by name and streamed as lines of bytes; what was skipped
or mended while reading them.
"""

from __future__ import annotations

import difflib
import gzip
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from typing import IO, cast, get_args

from usermirror_gym.data.dataset import BadRows, Repair
from usermirror_gym.errors import ConfigError, DataError, UnknownNameError
from usermirror_gym.files import replacing
from usermirror_gym.progress import Display

_MEGABYTE = 1_000_000
_EXAMPLES = 3


class ReadLog:
    """Counts skipped and mended rows by kind, each kind with the place of its first few rows.

    Args:
        bad_rows: ``"repair"`` counts; ``"raise"`` makes the first such row an error.
        display: shows a bar over the bytes of every file that is read (compressed bytes for gz).

    Raises:
        UnknownNameError: ``bad_rows`` is neither of the two.
    """

    def __init__(self, bad_rows: BadRows = "repair", display: Display | None = None) -> None:
        if bad_rows not in get_args(BadRows):
            raise UnknownNameError("bad_rows", bad_rows, get_args(BadRows))
        self.bad_rows = bad_rows
        self.display = display
        self._kinds: dict[str, tuple[int, tuple[str, ...]]] = {}

    def skip(self, kind: str, path: Path, line: int, value: object = "") -> None:
        """Note one row that is left out.

        Args:
            kind: what is wrong, such as ``"game without an id, skipped"``.
            path: the file.
            line: counted from 1.
            value: what was found there.

        Raises:
            DataError: ``bad_rows="raise"``.
        """
        if self.bad_rows == "raise":
            shown = f": {_short(value)}" if value != "" else ""
            raise DataError(
                f"{path}, line {line}: {kind}{shown}. Mend the file, or pass bad_rows='repair'."
            )
        count, examples = self._kinds.get(kind, (0, ()))
        if count < _EXAMPLES:
            examples = (*examples, f"{path.name}:{line} {_short(value)}".rstrip())
        self._kinds[kind] = (count + 1, examples)

    def mend(self, kind: str, path: Path, line: int, value: object = "") -> None:
        """Note one row that is kept without its bad value; as :meth:`skip` otherwise."""
        self.skip(kind, path, line, value)

    @property
    def repairs(self) -> tuple[Repair, ...]:
        """What was skipped or mended so far."""
        return tuple(Repair(kind, *noted) for kind, noted in self._kinds.items())

    def again(self) -> ReadLog:
        """A log for reading the same file once more: its counts are not added to this one."""
        return ReadLog("repair", self.display)

    def progress(self, path: Path) -> AbstractContextManager[Callable[[int], None]]:
        """A bar over the bytes of ``path``; the value takes the position reached.

        Small files and logs without a display have no bar.
        """
        size = path.stat().st_size
        if self.display is None or size < _MEGABYTE:
            return nullcontext(lambda position: None)
        return byte_bar(self.display, path.name, size)


@contextmanager
def byte_bar(display: Display, name: str, size: int) -> Iterator[Callable[[int], None]]:
    """A bar over the bytes of a file; the value takes the position reached."""
    shown = 0
    with display.phase(name, max(size // _MEGABYTE, 1), "MB") as advance:

        def reached(position: int) -> None:
            nonlocal shown
            if (step := position // _MEGABYTE - shown) > 0:
                advance(step)
                shown += step

        yield reached


def _short(value: object, length: int = 60) -> str:
    try:
        text = value if isinstance(value, str) else repr(value)
    except RecursionError:  # a row nested hundreds of levels deep
        text = type(value).__name__
    text = "".join(c if c.isprintable() else "?" for c in text[: length + 1])
    return text if len(text) <= length else text[:length] + "..."


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
    return io.BufferedReader(cast(io.RawIOBase, BoundedGzip(path, raw)), _BUFFER)


class BoundedGzip(gzip.GzipFile):
    """A gz file that ends with a DataError where it unpacks to more than it may."""

    def __init__(self, path: Path, raw: IO[bytes] | None = None) -> None:
        super().__init__(path, "rb", fileobj=raw)
        self._path, self._most, self._done = path, _most_bytes(path), 0

    def read(self, size: int | None = -1) -> bytes:
        """Every other way of reading comes here."""
        part = super().read(size)
        self._done += len(part)
        if self._done > self._most:
            raise _too_large(self._path, self._most)
        return part


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
                        _write(content, target, archive)
            return
        with tarfile.open(archive) as tar:
            names = [i.name for i in _members(tar, archive) if i.isreg()]  # no links
            for member, target in targets.items():
                if (packed := tar.extractfile(_find(names, member, archive))) is not None:
                    with packed:
                        _write(packed, target, archive)
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


def _members(tar: tarfile.TarFile, archive: Path) -> Iterator[tarfile.TarInfo]:
    """The heads of all members, between which everything has to be unpacked."""
    most = _most_bytes(archive)
    for member in tar:
        if member.offset > most:
            raise _too_large(archive, most)
        yield member


def _write(content: IO[bytes], target: Path, archive: Path) -> None:
    most, done = _most_bytes(archive), 0
    with replacing(target) as file:
        while part := content.read(1 << 20):
            done += len(part)
            if done > most:
                raise _too_large(archive, most)
            file.write(part)


UNPACKED_VARIABLE = "USERMIRROR_MAX_UNPACKED"
"""The variable of the environment that says how many bytes may be unpacked, if not as usual."""
_MOST_TIMES, _ALWAYS = 200, 1_000_000_000


def _most_bytes(packed: Path) -> int:
    """How many bytes a file may become: 200 times its own, a gigabyte at least.

    Texts become 3 to 30 times as large; what becomes a thousand times as large was made to.

    Raises:
        ConfigError: the variable holds no number.
    """
    asked = os.environ.get(UNPACKED_VARIABLE, "")
    if asked and not asked.isdecimal():
        raise ConfigError(f"{UNPACKED_VARIABLE} must be a number of bytes, got {asked!r}")
    return int(asked) if asked else max(_MOST_TIMES * packed.stat().st_size, _ALWAYS)


def _too_large(packed: Path, most: int) -> DataError:
    return DataError(
        f"{packed} unpacks to more than {most:,} bytes, {most // max(packed.stat().st_size, 1):,} "
        "times its size: is it the file as published? If you trust it, set the variable "
        f"{UNPACKED_VARIABLE} to the bytes that it may have"
    )
