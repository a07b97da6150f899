"""Named members out of zip and tar archives; nothing else in them is touched."""

from __future__ import annotations

import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from usermirror_gym.errors import DataError
from usermirror_gym.files import replacing

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
