"""Where raw files are looked for when no folder is named."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def default_folder(name: str) -> Path:
    """Where ``usermirror data fetch NAME`` puts a data set, and ``load_dataset`` looks for it.

    Below ``$USERMIRROR_DATA``, or the user's data directory if that is not set.
    """
    root = os.environ.get("USERMIRROR_DATA")
    base = Path(root) if root else platformdirs.user_data_path("usermirror-gym") / "data"
    return base / name.replace(":", "-")
