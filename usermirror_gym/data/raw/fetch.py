"""Raw files from where their publishers put them, or the exact words for getting them by hand."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout

from usermirror_gym.data.raw.download import WAITS, download
from usermirror_gym.data.raw.raw_files import has_file, unpack
from usermirror_gym.data.sources.base import Download, Source, default_folder
from usermirror_gym.errors import ConfigError, DataError
from usermirror_gym.files import remove_unfinished
from usermirror_gym.progress import Display


def fetch(
    source: Source,
    folder: str | Path | None = None,
    display: Display | None = None,
    *,
    waits: tuple[float, ...] = WAITS,
) -> Path:
    """Bring the files of ``source`` into ``folder``; what is there already is left alone.

    Args:
        source: see :func:`usermirror_gym.data.get_source`.
        folder: ``default_folder(source.name)`` if absent.
        display: where progress is shown.
        waits: seconds between the attempts for one file.

    Returns:
        The folder.

    Raises:
        DataError: a file cannot be had; names the reason, the files, the folder, the home page
            and the terms, so that it can be fetched by hand.
    """
    display = display or Display(quiet=True)
    folder = Path(folder) if folder is not None else default_folder(source.name)
    if not source.missing(folder):
        display.say(f"{source.name}: all files are in {folder}")
        return folder
    if not source.downloads:
        raise DataError(by_hand(source, folder))
    if source.terms:
        display.say(f"{source.name}: {source.terms}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".fetch.lock", timeout=0):
            remove_unfinished(folder)
            for item in source.downloads:
                _fetch_one(source, item, folder, display, waits)
    except Timeout as error:
        raise DataError(f"another process is fetching into {folder}; wait for it") from error
    except DataError as error:
        raise DataError(f"{error}.\n{by_hand(source, folder)}") from error
    except OSError as error:
        raise DataError(f"cannot write into {folder}: {error.strerror or error}") from error
    if source.missing(folder):
        raise DataError(by_hand(source, folder))
    return folder


def by_hand(source: Source, folder: Path) -> str:
    """What a person has to do to get the files that are not in ``folder`` yet."""
    missing = source.missing(folder)
    urls = ", ".join(item.url for item in source.downloads)
    lines = [
        f"{source.title or source.name}: put {', '.join(missing)} into {folder} "
        "(each as published, or as .gz).",
        source.how_to_get,
        f"From: {urls}" if urls else "",
        f"Home page: {source.homepage}" if source.homepage else "",
        f"Terms: {source.terms}" if source.terms else "",
    ]
    return "\n".join(line for line in lines if line)


def _fetch_one(
    source: Source, item: Download, folder: Path, display: Display, waits: tuple[float, ...]
) -> None:
    name = PurePosixPath(unquote(urlsplit(item.url).path)).name
    targets = {m: _target(source, m, folder) for m in item.members or (name,)}
    if all(has_file(folder, str(t.relative_to(folder))) for t in targets.values()):
        return
    path = folder / name if item.members else targets[name]
    for attempt in (1, 2):
        if not path.is_file():
            download(item.url, path, display=display, waits=waits)
        problem = _problem(path, item)
        if problem is None:
            break
        path.unlink()
        # A beginning of an older version may have been continued: once more from the start.
        display.say(f"{problem}; {'giving up' if attempt == 2 else 'once more from the start'}")
    if problem is not None:
        raise DataError(problem)
    if item.members:
        try:
            unpack(path, targets)
        except DataError:  # must not be taken for a good one next time
            path.unlink()
            raise
        path.unlink()


def _target(source: Source, name: str, folder: Path) -> Path:
    """Where a file goes: the path of ``source.files`` that has its last name, else the top."""
    last = PurePosixPath(name).name
    for wanted in source.files:
        if PurePosixPath(wanted).name.removesuffix(".gz") == last.removesuffix(".gz"):
            target = folder / PurePosixPath(wanted).parent / last
            break
    else:
        target = folder / last
    if not last or not target.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"source {source.name!r}: {name!r} is not a file below its folder")
    return target


def _problem(path: Path, item: Download) -> str | None:
    """Why the file is not the published one, as far as is known of that."""
    size = path.stat().st_size
    if item.size is not None and size != item.size:
        return f"{path.name} has {size:,} bytes instead of {item.size:,}"
    for kind, expected in (("sha256", item.sha256), ("md5", item.md5)):
        if expected is None:
            continue
        with path.open("rb") as file:
            found = hashlib.file_digest(file, kind).hexdigest()
        if found != expected.lower():
            return f"{path.name} is not the published file: its {kind} is {found}, not {expected}"
    return None
