"""Where raw files are looked for when no folder is named."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from usermirror_gym.data.raw_files import find_file
from usermirror_gym.data.sources.base import Source
from usermirror_gym.errors import DataError


def default_folder(name: str) -> Path:
    """Where ``usermirror data fetch NAME`` puts a data set, and ``load_dataset`` looks for it.

    Below ``$USERMIRROR_DATA``, or the user's data directory if that is not set.
    """
    root = os.environ.get("USERMIRROR_DATA")
    base = Path(root) if root else platformdirs.user_data_path("usermirror-gym") / "data"
    return base / name.replace(":", "-")


def missing_files(source: Source, folder: Path) -> list[str]:
    """Those of ``source.files`` that are not in ``folder``, neither plain nor gz."""
    return [name for name in source.files if not is_there(folder, name)]


def is_there(folder: Path, name: str) -> bool:
    """Whether the file is in the folder, plain or gz."""
    try:
        find_file(folder, name)
    except DataError:
        return False
    return True
