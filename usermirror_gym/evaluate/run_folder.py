"""The folder of a run: whose it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
