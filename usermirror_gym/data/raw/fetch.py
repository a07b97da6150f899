"""Raw files from where their publishers put them, or the exact words for getting them by hand.

A file is resumed where its transfer broke off, retried, and whole or absent.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import httpx2

from usermirror_gym.data.raw.raw_files import byte_bar, has_file, unpack
from usermirror_gym.data.sources.base import Download, Source, default_folder
from usermirror_gym.errors import ConfigError, DataError
from usermirror_gym.files import naming, write_json
from usermirror_gym.foreign import parse_json
from usermirror_gym.progress import Display
from usermirror_gym.run_folder import locked

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between attempts; the count starts again whenever some bytes came through."""
_LONGEST_WAIT = 60.0
_MEGABYTE = 1_000_000


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
        RunError: another process is fetching into the folder (names it).
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
        with locked(folder, "is fetching"):
            for item in source.downloads:
                _fetch_one(source, item, folder, display, waits)
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


class _TryAgain(Exception):
    """Something that may be gone at the next attempt."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def download(url: str, path: Path, *, display: Display, waits: tuple[float, ...] = WAITS) -> None:
    """Fetch ``url`` into ``path``.

    What arrived before a break, or before the process was killed, is kept beside it as
    ``.NAME.part`` and only the rest is asked for, if the server says that the file is still the
    same one (ETag or Last-Modified); else it starts again.

    Raises:
        DataError: says in one sentence why the file cannot be had.
    """
    part = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    headers = {"Accept-Encoding": "identity", "User-Agent": "usermirror-gym"}
    left = list(waits)
    with httpx2.Client(follow_redirects=True, timeout=30, headers=headers) as client:
        while True:
            before = _size(part)
            try:
                _attempt(client, url, part, display)
                break
            except _TryAgain as problem:
                if _size(part) > before:
                    left = list(waits)
                if not left:
                    raise DataError(f"{problem} (tried {len(waits) + 1} times)") from problem
                wait = max(left.pop(0), problem.wait)
                display.say(f"{path.name}: {problem}; trying again in {wait:g} s")
                time.sleep(wait)
    part.replace(path)
    _note(part).unlink(missing_ok=True)


def _attempt(client: httpx2.Client, url: str, part: Path, display: Display) -> None:
    have, unchanged = _resumable(url, part)
    headers = {"Range": f"bytes={have}-", "If-Range": unchanged} if have else {}
    try:
        with client.stream("GET", url, headers=headers) as response:
            start = _start(response, part, have)
            length = response.headers.get("Content-Length", "")
            total = start + int(length) if length.isdigit() else None
            if start == 0:
                _begin(response, url, part)
            _check_space(part, None if total is None else total - start)
            name = part.name[1:].removesuffix(".part")
            with byte_bar(display, name, total or 0) as reached:
                _receive(response, part, start, reached)
    except (httpx2.UnsupportedProtocol, httpx2.InvalidURL, httpx2.TooManyRedirects) as error:
        raise DataError(f"{url} cannot be fetched: {error}") from error
    except httpx2.TransportError as error:
        reason = str(error) or type(error).__name__
        raise _TryAgain(f"the connection to {httpx2.URL(url).host} failed: {reason}") from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = f"cannot write into {part.parent}: {error.strerror or error}"
        raise DataError(
            f"the disk of {part.parent} is full; what arrived is kept" if full else why
        ) from error
    if total is not None and _size(part) != total:
        raise _TryAgain(f"the transfer broke off after {_size(part):,} of {total:,} bytes")


def _start(response: httpx2.Response, part: Path, have: int) -> int:
    """The position of the first byte that the server is about to send."""
    status, url = response.status_code, response.url
    if status == 200:
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise DataError(f"{url} is a web page, not the file (a log-in or a form?)")
        return 0
    if status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        return have
    if status in (206, 416):  # not the bytes that are missing: what is here is of no use
        part.unlink(missing_ok=True)
        raise _TryAgain("the server cannot send the rest")
    if status in (408, 429) or status >= 500:
        wait = response.headers.get("Retry-After", "")
        seconds = min(float(wait), _LONGEST_WAIT) if wait.isdigit() else 0.0
        raise _TryAgain(f"{url} answers {status} {response.reason_phrase}", seconds)
    raise DataError(f"{url} answers {status} {response.reason_phrase}")


def _receive(
    response: httpx2.Response, part: Path, done: int, reached: Callable[[int], None]
) -> None:
    with naming(part), part.open("ab" if done else "wb") as file:
        # Raw: a .gz file must arrive as it is, whatever the server calls its encoding.  No chunk
        # size: what has come of a chunk would be lost when the transfer breaks off.
        for chunk in response.iter_raw():
            file.write(chunk)
            done += len(chunk)
            reached(done)


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _begin(response: httpx2.Response, url: str, part: Path) -> None:
    """Forget an older beginning; remember which version of the file this one is."""
    part.unlink(missing_ok=True)
    tag = response.headers.get("ETag", "")
    unchanged = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
    write_json(_note(part), {"url": url, "unchanged": unchanged})


def _resumable(url: str, part: Path) -> tuple[int, str]:
    """Bytes that can be kept, and the mark by which the server knows the version they are of."""
    try:
        note = parse_json(_note(part).read_text(encoding="utf-8"))
        unchanged = note["unchanged"] if note["url"] == url else None
    except (OSError, ValueError, KeyError, TypeError):
        unchanged = None
    return (_size(part), unchanged) if isinstance(unchanged, str) else (0, "")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _check_space(part: Path, needed: int | None) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed is not None and needed > free:
        raise DataError(
            f"the disk of {part.parent} is too full: {needed / _MEGABYTE:,.0f} MB are needed, "
            f"{free / _MEGABYTE:,.0f} MB are free"
        )
