"""Your own data set from a YAML file that says which column is what; see docs/custom-data.md."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path

import pandas as pd

from usermirror_gym.configs import preset_names
from usermirror_gym.data.raw.reading import ReadLog
from usermirror_gym.data.raw.values import Numbers, csv_text, identifier, joined
from usermirror_gym.data.sources import custom_settings as settings
from usermirror_gym.data.sources.base import Limits, Source, Tables, apply_limits
from usermirror_gym.data.sources.custom_rows import kind_of, read_table, seconds, truth
from usermirror_gym.data.sources.custom_settings import read_settings
from usermirror_gym.data.sources.events import Row, friend_table, kept_items, unique_rows
from usermirror_gym.errors import UnknownNameError
from usermirror_gym.types import (
    AVAILABLE_FROM,
    ITEM_ID,
    RATING,
    TIMESTAMP,
    TITLE,
    USER_ID,
)


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
        """See :meth:`Source.read`; for a missing column the error names the nearest."""
        folder = folder or self.path.parent
        s = self.settings
        items = read_items(s.items, folder, log)
        everything = read_interactions(s.interactions, folder, log)
        events = apply_limits(everything, limits)
        listed = None if s.users is None else read_users(s.users, folder, log)
        lists = None if s.impressions is None else read_impressions(s.impressions, folder, log)
        pairs = None if s.friends is None else read_friends(s.friends, folder, log)

        users = pd.DataFrame({USER_ID: events[USER_ID].unique()}) if listed is None else listed
        seen, kept = set(everything[USER_ID]), set(events[USER_ID])
        # Whom the limits leave out is no mistake of the files.
        out = seen - kept
        if limits.min_user > 0:
            out |= set(users[USER_ID]) - kept
        users = users[~users[USER_ID].isin(out)]
        if lists is not None:
            lists = lists[~lists[USER_ID].isin(out)]
        friends = None if pairs is None else friend_table(pairs, out)
        return Tables(users, kept_items(items, events, limits), events, lists, friends, s.template)


def read_interactions(mapping: settings.Interactions, folder: Path, log: ReadLog) -> pd.DataFrame:
    """Columns ``user_id, item_id, timestamp``, ``rating`` if there is one, and further facts."""
    rating = {RATING: mapping.rating} if mapping.rating else {}
    facts = _Facts(mapping.texts, {**rating, **mapping.numbers})
    columns = (mapping.user, mapping.item, mapping.time.column, *facts.columns)
    path, rows = read_table(folder, mapping.file, log, columns, mapping.separator)
    for line, row in rows:
        user, item = _id(row, mapping.user), _id(row, mapping.item)
        time = _time(row, mapping.time)
        if user is None or item is None:
            log.skip("interaction without a user or an item, skipped", path, line)
        elif time is None:
            given = row[mapping.time.column]
            log.skip("interaction without a readable time, skipped", path, line, given)
        else:
            facts.add({USER_ID: user, ITEM_ID: item, TIMESTAMP: time}, row, path, line, log)
    return facts.table(USER_ID, ITEM_ID, TIMESTAMP)


def read_items(mapping: settings.Items, folder: Path, log: ReadLog) -> pd.DataFrame:
    """Columns ``item_id, title``, ``available_from`` if there is one, and further facts."""
    when = mapping.available_from
    facts = _Facts(mapping.texts, mapping.numbers)
    columns = [mapping.item, mapping.title, *facts.columns, *([when.column] if when else [])]
    path, rows = read_table(folder, mapping.file, log, columns, mapping.separator)
    for line, row, item in unique_rows(rows, mapping.item, "item", path, log):
        known: Row = {ITEM_ID: item, TITLE: _title(row[mapping.title])}
        if when is not None:
            known[AVAILABLE_FROM] = _time(row, when)
            if known[AVAILABLE_FROM] is None and row[when.column] not in (None, ""):
                given = row[when.column]
                log.mend("publication time that cannot be read, left empty", path, line, given)
        facts.add(known, row, path, line, log)
    return facts.table(ITEM_ID, TITLE, *([AVAILABLE_FROM] if when else []))


def read_users(mapping: settings.Users, folder: Path, log: ReadLog) -> pd.DataFrame:
    """Column ``user_id`` and further facts."""
    facts = _Facts(mapping.texts, mapping.numbers)
    columns = (mapping.user, *facts.columns)
    path, rows = read_table(folder, mapping.file, log, columns, mapping.separator)
    for line, row, user in unique_rows(rows, mapping.user, "user", path, log):
        facts.add({USER_ID: user}, row, path, line, log)
    return facts.table(USER_ID)


def read_impressions(mapping: settings.Impressions, folder: Path, log: ReadLog) -> pd.DataFrame:
    """One row a list, as :meth:`RecDataset.from_tables` takes them."""
    columns = (mapping.list, mapping.user, mapping.time.column, mapping.item, mapping.clicked)
    path, rows = read_table(folder, mapping.file, log, columns, mapping.separator)
    lists: dict[str, Row] = {}
    broken: set[str] = set()
    for line, row in rows:
        name, clicked = _id(row, mapping.list), truth(row[mapping.clicked])
        user, item = _id(row, mapping.user), _id(row, mapping.item)
        time = _time(row, mapping.time)
        shown = lists.setdefault(
            name or "", {USER_ID: user, TIMESTAMP: time, "shown": [], "clicked": []}
        )
        one_list = (shown[USER_ID], shown[TIMESTAMP]) == (user, time)
        if None in (name, user, item, time, clicked) or not one_list:
            # A list without one of its items is not what was shown.
            log.skip("row that does not fit its list, the list dropped", path, line, name or "")
            broken.add(name or "")
            continue
        shown["shown"].append(item)
        shown["clicked"].append(clicked)
    names = ["impression_id", USER_ID, TIMESTAMP, "shown", "clicked"]
    whole = [{"impression_id": n, **shown} for n, shown in lists.items() if n not in broken]
    return pd.DataFrame(whole, columns=names)


def read_friends(mapping: settings.Friends, folder: Path, log: ReadLog) -> list[tuple[str, str]]:
    """Pairs of users."""
    columns = (mapping.user, mapping.friend)
    path, rows = read_table(folder, mapping.file, log, columns, mapping.separator)
    pairs: list[tuple[str, str]] = []
    for line, row in rows:
        user, friend = _id(row, mapping.user), _id(row, mapping.friend)
        if user is None or friend is None:
            log.skip("friends without two ids, skipped", path, line)
        else:
            pairs.append((user, friend))
    return pairs


class _Facts:
    """Columns of texts and numbers, beside those that every table of a kind has."""

    def __init__(self, texts: Mapping[str, str], numbers: Mapping[str, str]) -> None:
        self._texts, self._numbers = texts, numbers
        self._rows: list[Row] = []
        self.columns = (*texts.values(), *numbers.values())

    def add(self, known: Row, row: Row, path: Path, line: int, log: ReadLog) -> None:
        """One row; values that cannot be used are left empty and counted."""
        read = Numbers(path, log)
        for name, column in self._texts.items():
            known[name] = _text(row[column])
            if known[name] is None and isinstance(row[column], dict):
                log.mend(f"{name} that is no text, left empty", path, line, row[column])
        for name, column in self._numbers.items():
            known[name] = read.real(line, name, row[column])
        self._rows.append(known)

    def table(self, *first: str) -> pd.DataFrame:
        """Numbers without fractions become nullable integers."""
        frame = pd.DataFrame(self._rows, columns=[*first, *self._texts, *self._numbers])
        for name in self._numbers:
            values = frame[name].astype("float64")
            whole = name != RATING and (values.dropna() % 1 == 0).all()
            frame[name] = values.astype("Int64") if whole else values
        if AVAILABLE_FROM in frame:
            frame[AVAILABLE_FROM] = frame[AVAILABLE_FROM].astype("Int64")
        return frame


def _id(row: Row, column: str) -> str | None:
    return identifier(row[column])


def _time(row: Row, column: settings.TimeColumn) -> int | None:
    return seconds(row[column.column], column.unit, column.format, column.zone)


def _title(value: object) -> str | None:
    # "None" and "Null" are titles of films; as a value of anything else they mean nothing.
    return value.strip() if isinstance(value, str) else _text(value)


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return csv_text(value)
    if isinstance(value, list | tuple):
        return joined([_text(part) for part in value])
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value == value and not value.is_integer():
        return repr(value)
    return None if isinstance(value, dict) else identifier(value)
