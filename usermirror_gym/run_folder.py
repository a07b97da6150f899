"""The folder of a run: whose it is."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel

from usermirror_gym.configs.settings import differences
from usermirror_gym.errors import RunError
from usermirror_gym.files import read_json, remove_unfinished, write_json

SETTINGS_FILE = "run.json"


def changed_settings(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the folder's run has in place of these settings, where that is something else."""
    path = folder / SETTINGS_FILE
    earlier = read_json(path) if path.exists() else {}
    return {k: earlier.get(k) for k, v in settings.items() if earlier.get(k, ...) != v}


def claim_folder(folder: Path, settings: Mapping[str, Any], what: str = "run") -> None:
    """Make the folder this run's, or see that it already is.

    Args:
        settings: plain types, as JSON gives them back.
        what: how messages call what the folder holds.

    Raises:
        RunError: it holds something else, or a run with other settings (names them).
    """
    path = folder / SETTINGS_FILE
    if not path.exists():
        if folder.exists() and any(folder.iterdir()):
            raise RunError(f"{folder} is not empty and holds no {what}; name another folder")
        write_json(path, settings)
    elif changed := changed_settings(folder, settings):
        was = ", ".join(f"{name}={value!r}" for name, value in changed.items())
        raise RunError(
            f"{folder} holds a {what} with other settings ({was}); delete it or name another folder"
        )
    remove_unfinished(folder)


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


@contextmanager
def own_folder(config: BaseModel, folder: Path) -> Iterator[None]:
    """Inside the block the folder is this run's, and nobody else works in it.

    Raises:
        RunError: it holds a run with other settings (names them), or something else, or another
            process is training in it.
    """
    begun = (folder / "config.json").is_file()
    # Hidden: the lock and the temporary files of a run that was killed at its very beginning.
    if not begun and folder.is_dir() and any(p.name[0] != "." for p in folder.iterdir()):
        raise RunError(f"{folder} is not empty and holds no training run; use another folder")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            remove_unfinished(folder)
            keep_same(
                folder / "config.json",
                json.loads(config.model_dump_json()),
                f"{folder} holds a run with other settings",
            )
            yield
    except Timeout as error:
        raise RunError(
            f"another process is training in {folder}: wait for it, or use another folder"
        ) from error


def keep_same(path: Path, content: Any, what: str) -> None:
    """Write a JSON file, or compare with what it already says.

    Raises:
        RunError: they differ; begins with ``what`` and names the differences.
    """
    if not path.is_file():
        write_json(path, content)
        return
    different = [f"{n}: {old!r} there, {new!r} here"
                 for n, old, new in differences(read_json(path), content)]  # fmt: skip
    if different:
        raise RunError(
            f"{what} ({'; '.join(different[:3])}). Use another folder, or delete this one."
        )
