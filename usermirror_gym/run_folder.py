"""The folder of a run: whose it is, and who is at work in it.

Every command that can go on where it was works inside :func:`run_folder`.  Beside the run's own
files the folder has::

    run.json or config.json    the settings; a folder with other settings is refused
    inputs.json                beside config.json: what the run was made of (in run.json: a key)
    .lock                      locked by the process at work; however that ends, the system unlocks
    .holder.json               which process that is, for the message that another one gets
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from usermirror_gym.configs.settings import differences, written
from usermirror_gym.errors import RunError
from usermirror_gym.files import LOCK, read_json, read_mapping, remove_unfinished, write_json
from usermirror_gym.foreign import masked

RUN_FILE, CONFIG_FILE = "run.json", "config.json"
INPUTS = "inputs"
"""The key in a run's settings under which it keeps what it was made of."""
_INPUTS_FILE = "inputs.json"
_HOLDER = ".holder.json"
_LOST = "Restore it or use another folder: without it nobody knows whose results these are."


@contextmanager
def run_folder(
    folder: Path,
    settings: Mapping[str, Any] | object,
    what: str = "run",
    *,
    inputs: Mapping[str, str] | None = None,
    doing: str = "is at work",
    may_change: Callable[[str], bool] = lambda name: False,
) -> Iterator[None]:
    """Inside the block the folder is this run's, and no other process works in it.

    Args:
        settings: of the run, in plain types, as JSON gives them back; those of a model are kept
            in ``config.json``, others in ``run.json``.
        what: how messages call what the folder holds.
        inputs: what the run is made of besides its settings, by name: fingerprints of data,
            simulator and agents, kept beside the settings.  A run does not go on with others.
        doing: what a process in the folder does, for the message to the second one.
        may_change: whether a setting, by its dotted name, may be another one when a run goes on.

    Raises:
        RunError: the folder holds a run with other settings or inputs (names them), or something
            else, or another process is at work in it (names it); nothing is changed then.
    """
    if isinstance(settings, Mapping):
        path, plain = folder / RUN_FILE, settings
        noted = path
    else:
        path, noted = folder / CONFIG_FILE, folder / _INPUTS_FILE
        plain = written(settings)
    if not path.is_file() and is_occupied(folder):
        raise RunError(f"{folder} is not empty and holds no {what}; use another folder")
    with locked(folder, doing):
        if inputs is not None and noted == path and not path.is_file():
            plain = {**plain, INPUTS: dict(inputs)}
        keep_same(path, plain, f"{folder} holds a {what} with other settings", may_change)
        if inputs is not None:
            _keep_inputs(noted, inputs)
        yield


@contextmanager
def locked(
    folder: Path,
    doing: str = "is at work",
    *,
    wait: Callable[[str], None] | None = None,
    clean: bool = True,
) -> Iterator[None]:
    """Inside the block no other process that asks for it has the folder, which is made if absent,
    and goes again if an error left it empty.

    What processes that were killed before were writing in it is deleted first.

    Args:
        doing: what the process that has it does, for the message to the others.
        clean: delete what was left; not in a folder that may hold other things than ours.
        wait: is told that the folder is taken, and by whom, before this process waits its turn.

    Raises:
        RunError: the folder is taken and ``wait`` is not given, or its disk has no locks.
    """
    made, lock, holder = not folder.exists(), FileLock(folder / LOCK), folder / _HOLDER
    try:
        _acquire(lock, folder, 0.0)
    except Timeout as error:
        taken = f"another process {doing} in {folder}{_described(holder)}"
        if wait is None:
            raise RunError(f"{taken}: wait for it or stop it, or use another folder") from error
        wait(f"{taken}: waiting for it")
        _acquire(lock, folder)
    except NotImplementedError as error:
        raise RunError(f"the disk of {folder} has no locks: use a folder on another one") from error
    try:
        if clean:
            remove_unfinished(folder)
        about = {
            "pid": os.getpid(), "host": platform.node(), "command": shlex.join(masked(sys.argv)),
            "since": datetime.now().astimezone().isoformat(" ", "seconds"),
        }  # fmt: skip
        write_json(holder, about)
        yield
    finally:
        holder.unlink(missing_ok=True)
        if made and [path.name for path in folder.iterdir()] == [LOCK]:
            with suppress(OSError):  # somebody has just come, or the system keeps locked files
                # While it is held: who has opened it sees that it guards no name, and tries again.
                (folder / LOCK).unlink()
                folder.rmdir()
        lock.release()


def _acquire(lock: BaseFileLock, folder: Path, timeout: float | None = None) -> None:
    while not lock.is_locked:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # who had it failed, and took the folder away
            lock.acquire(timeout)


def _described(holder: Path) -> str:
    """Who has a folder, if that can be read; it may be writing that, or be of an older version."""
    try:
        return " (process {pid} on {host}, since {since}: {command})".format(**read_json(holder))
    except (RunError, LookupError, TypeError):
        return ""


def is_occupied(folder: Path) -> bool:
    """Whether a folder holds more than hidden files: the lock and what a killed run left."""
    return folder.is_dir() and any(path.name[0] != "." for path in folder.iterdir())


def numbered_folder(base: Path, settings: Mapping[str, Any]) -> Path:
    """``base``, ``base-2``, ``base-3`` ...: the first that is new or holds a run like this.

    New is also one in which a process was killed before it had written a file.
    """
    number, folder = 1, base
    while folder.exists() and not _unused(folder) and _changed(folder / RUN_FILE, settings):
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    return folder


def _unused(folder: Path) -> bool:
    return (folder / LOCK).exists() and not is_occupied(folder)


def keep_same(
    path: Path,
    content: Mapping[str, Any],
    what: str,
    may_change: Callable[[str], bool] = lambda name: False,
) -> None:
    """Write a JSON file, or compare with what it already says.

    Raises:
        RunError: they differ; begins with ``what`` and names the differences.
    """
    if not path.is_file():
        write_json(path, masked(dict(content)))
        return
    if changed := [one for one in _changed(path, content) if not may_change(one[0])]:
        form = "{0}={1!r}" if path.name == RUN_FILE else "{0}: {1!r} there, {2!r} here"
        raise RunError(
            f"{what} ({'; '.join(form.format(*one) for one in changed[:3])}). Use another folder, "
            "or delete this one."
        )


def _changed(path: Path, content: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Dotted name, value there and value here of what a JSON file says otherwise."""
    then = read_mapping(path, _LOST) if path.is_file() else {}
    if INPUTS not in content:
        then.pop(INPUTS, None)
    return differences(masked(then), masked(dict(content)))


def _keep_inputs(path: Path, inputs: Mapping[str, str]) -> None:
    """Note what a run is made of, or compare with what was noted when it began.

    Raises:
        RunError: something is not what the run began with.
    """
    content = read_mapping(path, _LOST) if path.is_file() else {}
    if changed := differences(content.get(INPUTS, dict(inputs)), dict(inputs)):
        what = "; ".join(f"{name} was {then!r} and is {now!r}" for name, then, now in changed)
        raise RunError(
            f"{path.parent}: not what this run began with: {what}. Its results would be a mixture "
            "of both: bring back what it began with, use another folder, or delete this one"
        )
    if INPUTS not in content:
        write_json(path, {**content, INPUTS: dict(inputs)})


_PACKAGES = {
    "run": ("gymnasium", "numpy", "pandas", "recbole", "scikit-learn", "scipy", "torch",
            "transformers"),
    "build": ("numpy", "pandas", "pyarrow", "scipy", "scikit-learn", "torch", "transformers"),
    "training": ("accelerate", "numpy", "peft", "torch", "transformers", "trl"),
}  # fmt: skip


def package_versions(kind: str = "run") -> dict[str, str]:
    """Versions of this package and of those that decide the numbers, where they are installed.

    Args:
        kind: of what: a ``"run"``, whose list begins with Python's, a ``"build"`` of training
            data, or a ``"training"``.
    """
    found = {"python": platform.python_version()} if kind == "run" else {}
    for package in ("usermirror-gym", *_PACKAGES[kind]):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
