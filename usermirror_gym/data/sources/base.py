"""What a raw data set is: where it comes from, which files it has, how they become tables."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import pandas as pd
import platformdirs

from usermirror_gym.data.dataset import BadRows, RecDataset
from usermirror_gym.data.raw.raw_files import has_file
from usermirror_gym.data.raw.reading import ReadLog
from usermirror_gym.errors import DataError
from usermirror_gym.types import ITEM_ID, USER_ID


@dataclass(frozen=True)
class Download:
    """One file to fetch: a plain file or an archive that holds several."""

    url: str
    members: tuple[str, ...] = ()
    """Files to take out of an archive, as paths inside it; empty: the file itself."""
    sha256: str | None = None
    md5: str | None = None
    """The published checksum, where there is one."""
    size: int | None = None
    """Bytes, where known."""


@dataclass(frozen=True)
class Limits:
    """Which users and items are kept: an interaction count within bounds (both inclusive).

    Items are counted once, then users among what is left, once (no k-core iteration).
    ``min_item=0`` also keeps the items of the catalog that nobody interacted with.
    """

    min_user: int = 1
    max_user: int | None = None
    min_item: int = 1
    max_item: int | None = None


@dataclass
class Tables:
    """Raw tables, as :meth:`RecDataset.from_tables` takes them."""

    users: pd.DataFrame
    items: pd.DataFrame
    interactions: pd.DataFrame
    impressions: pd.DataFrame | None = None
    friends: pd.DataFrame | None = None
    template: dict[str, Any] | None = None


class Source(ABC):
    """A raw data set.  Subclass it for your own: set the class attributes, write :meth:`read`."""

    name: str
    domain: str
    """Chooses the words: a file in ``configs/domains``."""
    title: ClassVar[str] = ""
    homepage: ClassVar[str] = ""
    terms: ClassVar[str] = ""
    """Licence or terms of use, in one sentence."""
    citation: ClassVar[str] = ""
    files: tuple[str, ...] = ()
    """Paths below the data folder that must be there; each may be plain or end in .gz, and .json
    and .jsonl stand for each other."""
    downloads: tuple[Download, ...] = ()
    """Empty where fetching is not allowed or needs a form: then :attr:`how_to_get` says more."""
    how_to_get: ClassVar[str] = ""
    included: ClassVar[bool] = False
    """Whether :meth:`load` needs no folder."""
    limits: Limits = Limits()
    """The default of :meth:`load`."""

    @abstractmethod
    def read(self, folder: Path, log: ReadLog, limits: Limits) -> Tables:
        """The raw tables of the kept users and items.

        Args:
            folder: holds the files as published; ``None`` perhaps, where the source is
                :attr:`included`.
            log: told of every row that is skipped.
            limits: see :class:`Limits`; large sources count first, and read texts only of what
                is kept.

        Raises:
            DataError: a file is missing, truncated or not in the published format; names the
                file and the line.
        """

    def missing(self, folder: Path) -> list[str]:
        """Those of :attr:`files` that are not in ``folder`` in any spelling."""
        return [name for name in self.files if not has_file(folder, name)]

    def data_folder(self, folder: Path | None) -> Path:
        """``folder``, which this source needs.

        Raises:
            DataError: none was given; names the files that it must hold.
        """
        if folder is None:
            fetch = f"; or run 'usermirror data fetch {self.name}'" if self.downloads else ""
            raise DataError(
                f"{self.name} needs the folder that holds {', '.join(self.files)} (--data-folder, "
                f"folder= in load_dataset, or 'folder:' of the source in a build's YAML){fetch}"
            )
        return folder

    def load(
        self,
        folder: Path | None = None,
        *,
        limits: Limits | None = None,
        bad_rows: BadRows = "repair",
        log: ReadLog | None = None,
    ) -> RecDataset:
        """Read, check and number everything; see :meth:`RecDataset.from_tables`.

        Raises:
            DataError: see :meth:`read`; also with ``bad_rows="raise"`` for the first bad row.
        """
        log = log or ReadLog(bad_rows)
        place = folder if self.included else self.data_folder(folder)
        tables = self.read(cast(Path, place), log, limits or self.limits)
        return RecDataset.from_tables(
            self.name, self.domain, **vars(tables), repairs=log.repairs, bad_rows=bad_rows
        )


def apply_limits(interactions: pd.DataFrame, limits: Limits) -> pd.DataFrame:
    """The rows of ``interactions`` (raw ids) whose items and users are within the limits."""
    for key, low, high in (
        (ITEM_ID, limits.min_item, limits.max_item),
        (USER_ID, limits.min_user, limits.max_user),
    ):
        counts = interactions[key].map(interactions[key].value_counts())
        keep = counts >= low
        if high is not None:
            keep &= counts <= high
        interactions = interactions[keep]
    return interactions


def default_folder(name: str) -> Path:
    """Where ``usermirror data fetch NAME`` puts a data set, and ``load_dataset`` looks for it.

    Below ``$USERMIRROR_DATA``, or the user's data directory if that is not set.
    """
    root = os.environ.get("USERMIRROR_DATA")
    base = Path(root) if root else platformdirs.user_data_path("usermirror-gym") / "data"
    return base / name.replace(":", "-")
