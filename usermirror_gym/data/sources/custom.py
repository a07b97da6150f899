"""Your own data set from a YAML file that says which column is what; see docs/custom-data.md."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from usermirror_gym.configs import preset_names
from usermirror_gym.data.raw.reading import ReadLog
from usermirror_gym.data.sources.base import Limits, Source, Tables, apply_limits
from usermirror_gym.data.sources.custom_rows import kind_of
from usermirror_gym.data.sources.custom_settings import read_settings
from usermirror_gym.data.sources.custom_tables import (
    read_friends,
    read_impressions,
    read_interactions,
    read_items,
    read_users,
)
from usermirror_gym.data.sources.events import kept_items
from usermirror_gym.errors import UnknownNameError
from usermirror_gym.types import USER_ID


class CustomSource(Source):
    """The data set that a YAML file describes.

    Args:
        path: of the YAML file.  Its tables lie beside it, unless :meth:`load` is given a folder.

    Raises:
        UnknownNameError: a setting or the domain does not exist; suggests the nearest.
        ConfigError: a setting is missing or cannot be used; names it.
    """

    included = True  # the folder of the YAML file

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.settings = read_settings(self.path)
        self.name = self.settings.name
        self.domain = self.settings.domain or self.settings.name
        self.files = self.settings.files
        self.limits = Limits(**self.settings.limits.model_dump())
        for file in self.files:
            kind_of(file)
        if self.settings.domain is not None and self.domain not in preset_names("domains"):
            raise UnknownNameError("domain", self.domain, preset_names("domains"))

    def read(self, folder: Path | None, log: ReadLog, limits: Limits) -> Tables:
        """See :meth:`Source.read`.

        Raises:
            DataError: a file or a column is missing; names both, and the nearest column.
        """
        folder = folder or self.path.parent
        s = self.settings
        items = read_items(s.items, folder, log)
        everything = read_interactions(s.interactions, folder, log)
        events = apply_limits(everything, limits)
        listed = None if s.users is None else read_users(s.users, folder, log)
        lists = None if s.impressions is None else read_impressions(s.impressions, folder, log)
        friends = None if s.friends is None else read_friends(s.friends, folder, log)

        users = pd.DataFrame({USER_ID: events[USER_ID].unique()}) if listed is None else listed
        seen, kept = set(everything[USER_ID]), set(events[USER_ID])
        # Whom the limits leave out is no mistake of the files.
        out = seen - kept
        if limits.min_user > 0:
            out |= set(users[USER_ID]) - kept
        users = users[~users[USER_ID].isin(out)]
        if lists is not None:
            lists = lists[~lists[USER_ID].isin(out)]
        if friends is not None:
            friends = friends[~friends.isin(out).any(axis=1)]
        return Tables(users, kept_items(items, events, limits), events, lists, friends, s.template)
