"""Raw data sets, one file each; ``SOURCES`` maps a name to its loader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from usermirror_gym.data.dataset import RecDataset
from usermirror_gym.data.sources import ml_1m, ml_100k
from usermirror_gym.errors import UnknownNameError

SOURCES: dict[str, Callable[[Path | None], RecDataset]] = {
    "ml-100k": ml_100k.load,
    "ml-1m": ml_1m.load,
}


def load_dataset(name: str = "ml-100k", folder: str | Path | None = None) -> RecDataset:
    """Load a data set by name.

    Args:
        name: a key of ``SOURCES``.
        folder: where the raw files are, as published.  ``ml-100k`` needs none: RecBole's wheel
            carries it.

    Raises:
        UnknownNameError: no such source.
        DataError: files are missing or malformed; says which and what was expected.
    """
    if name not in SOURCES:
        raise UnknownNameError("data set", name, SOURCES)
    return SOURCES[name](None if folder is None else Path(folder))
