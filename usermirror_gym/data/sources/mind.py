"""MIND: lists of news that were really shown on MSN in autumn 2019, and what was clicked."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from usermirror_gym.data.raw.raw_files import has_file
from usermirror_gym.data.raw.reading import ReadLog, find_file, read_rows
from usermirror_gym.data.raw.values import text
from usermirror_gym.data.sources.base import Limits, Source, Tables, apply_limits
from usermirror_gym.errors import DataError
from usermirror_gym.types import AVAILABLE_FROM, ITEM_ID, TIMESTAMP, TITLE, UNDATED, USER_ID

_TIME = re.compile(
    r"(\d{1,2})/(\d{1,2})/(\d{4}) (0?[1-9]|1[0-2]):(\d{2}):(\d{2}) (AM|PM)", re.ASCII
)
_LIST = ("impression_id", "user_id", "time", "history", "impressions")
_NEWS = (
    "news_id", "category", "subcategory", "title", "abstract", "url", "title_entities",
    "abstract_entities",
)  # fmt: skip


class MIND(Source):
    """News, the lists in which they were shown, and clicks.

    The folder holds ``behaviors.tsv`` and ``news.tsv``, or several folders that do (such as
    ``MINDsmall_train`` and ``MINDsmall_dev``): they are read as one log, train first.  The test
    part has no clicks and is no use here.

    Impressions: as shown, with several clicks or none.  Interactions: the clicks in them, and the
    clicks of each user's ``history``, whose order is known and whose times are not: they are put
    one second apart, the last one second before the log begins, and flagged ``undated``.  Items:
    ``title, category, subcategory, abstract`` and ``available_from`` (when a list first showed
    the news).  Users: nothing is known.  The file does not say in which zone its times are; they
    are read as UTC.

    News that were shown but have no row in ``news.tsv`` cannot be put into words: clicks on them
    and lists with them are dropped and counted.

    Limits apply to clicks: news that nobody clicked are in the lists and stay, and so do users
    who never clicked if ``min_user`` is 0.
    """

    name = "mind"
    domain = "news"
    title = "MIND"
    homepage = "https://msnews.github.io/"
    terms = "Microsoft Research licence: non-commercial research only."
    citation = "F. Wu et al., MIND: A Large-scale Dataset for News Recommendation, ACL 2020."
    files = ("behaviors.tsv", "news.tsv")
    how_to_get = (
        "Accept the licence on the home page and unpack the train part; for the dev part too, "
        "unpack each into a folder of its own below this one (MINDsmall_train, MINDsmall_dev)."
    )
    # UserMirrorer, DataProcessor_MIND, keeps lists of at most 10 news with exactly one click whose
    # history has at least 5: a choice of scenes, not of data.
    limits = Limits(min_user=0, min_item=0)

    def missing(self, folder: Path) -> list[str]:
        """See :meth:`Source.missing`; none if any folder below has the files."""
        here = super().missing(folder)
        return [] if here and _parts(folder) else here

    def read(self, folder: Path, log: ReadLog, limits: Limits) -> Tables:
        parts = _parts(folder) or [folder]
        news = _news(parts, log)
        lists = _Lists()
        for part in parts:
            prefix = f"{part.name}-" if len(parts) > 1 else ""
            lists.read(find_file(part, "behaviors.tsv"), prefix, log)
        if not lists.rows:
            raise DataError(f"{folder}: behaviors.tsv holds no list of news with clicks")
        clicks = lists.clicks()
        clicking = set(clicks[USER_ID])
        clicks = apply_limits(clicks, limits)
        kept = set(clicks[USER_ID])
        if limits.min_user == 0:
            kept |= lists.histories.keys() - clicking
        users = [user for user in lists.histories if user in kept]
        first = lists.first_shown()
        news = news.assign(**{AVAILABLE_FROM: news[ITEM_ID].map(first).astype("Int64")})
        frame = pd.DataFrame(lists.rows)
        return Tables(
            pd.DataFrame({USER_ID: users}, dtype=str),
            news,
            clicks,
            impressions=frame[frame[USER_ID].isin(kept)],
        )


class _Shown(NamedTuple):
    """One list, as :meth:`RecDataset.from_tables` takes it."""

    impression_id: str
    user_id: str
    timestamp: int
    shown: list[str]
    clicked: list[bool]


@dataclass
class _Lists:
    """The rows of ``behaviors.tsv``; equal ids are one object."""

    rows: list[_Shown] = field(default_factory=list)
    histories: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    """Of each user: the time of the earliest list, and the history given with it."""
    ids: dict[str, str] = field(default_factory=dict)

    def read(self, path: Path, prefix: str, log: ReadLog) -> None:
        """Add the lists of one file."""
        for line, row in read_rows(path, log, sep="\t", columns=_LIST, header=False):
            name, user, time, history, marks = row.values()
            seconds, pairs = _seconds(time), _marks(marks)
            if not user.strip():
                log.skip("list without a user, skipped", path, line, name)
            elif seconds is None:
                log.skip("list without a readable time, skipped", path, line, time)
            elif pairs is None:
                log.skip("list whose clicks cannot be read, skipped", path, line, marks)
            else:
                user, shown = self._one(user.strip()), [self._one(item) for item, _ in pairs]
                clicked = [clicked for _, clicked in pairs]
                self.rows.append(_Shown(prefix + name, user, seconds, shown, clicked))
                self._remember(user, seconds, history)

    def _remember(self, user: str, seconds: int, history: str) -> None:
        # Later histories repeat clicks whose times the lists before them tell.
        if user not in self.histories or seconds < self.histories[user][0]:
            self.histories[user] = (seconds, [self._one(item) for item in history.split()])

    def _one(self, name: str) -> str:
        return self.ids.setdefault(name, name)

    def clicks(self) -> pd.DataFrame:
        """All clicks, those of the histories first."""
        rows: list[tuple[Any, ...]] = []
        begin = min(row.timestamp for row in self.rows)
        for user, (_, items) in self.histories.items():
            start = begin - len(items)
            rows += [(user, item, start + i, True) for i, item in enumerate(items)]
        for _, user, time, shown, clicked in self.rows:
            rows += [(user, i, time, False) for i, c in zip(shown, clicked, strict=True) if c]
        return pd.DataFrame(rows, columns=[USER_ID, ITEM_ID, TIMESTAMP, UNDATED])

    def first_shown(self) -> dict[str, int]:
        """Earliest time of a list, by item."""
        first: dict[str, int] = {}
        for row in self.rows:
            for item in row.shown:
                first[item] = min(row.timestamp, first.get(item, row.timestamp))
        return first


def _parts(folder: Path) -> list[Path]:
    """The folders with lists, train before dev; empty if there are none."""
    if has_file(folder, "behaviors.tsv") or not folder.is_dir():
        return [folder] if has_file(folder, "behaviors.tsv") else []
    below = [f for f in sorted(folder.iterdir()) if has_file(f, "behaviors.tsv")]
    return sorted(
        (f for f in below if "test" not in f.name), key=lambda f: ("train" not in f.name, f.name)
    )


def _news(parts: list[Path], log: ReadLog) -> pd.DataFrame:
    news: dict[str, dict[str, str | None]] = {}
    names = (TITLE, "category", "subcategory", "abstract")
    for part in parts:
        path = find_file(part, "news.tsv")
        seen: set[str] = set()
        for line, row in read_rows(path, log, sep="\t", columns=_NEWS, header=False):
            item = row["news_id"]
            if not item.strip() or item in seen:
                log.skip("news without an id of its own, skipped", path, line, item)
                continue
            seen.add(item)
            facts = {name: text(row[name]) for name in names}
            news.setdefault(item, {ITEM_ID: item, **facts})  # parts share news
    return pd.DataFrame(list(news.values()), columns=[ITEM_ID, *names], dtype=object)


def _seconds(time: str) -> int | None:
    """``"11/12/2019 2:14:46 PM"`` in UTC; not by ``strptime``, whose AM and PM are the locale's."""
    match = _TIME.fullmatch(time.strip())
    if match is None:
        return None
    month, day, year, hour, minute, second = (int(part) for part in match.groups()[:6])
    hour = hour % 12 + (12 if match[7] == "PM" else 0)
    try:
        return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())
    except ValueError:
        return None


def _marks(marks: str) -> list[tuple[str, bool]] | None:
    """``"N1-0 N2-1"`` -> items and whether they were clicked; ``None`` if any mark is missing."""
    pairs = []
    for mark in marks.split():
        item, _, clicked = mark.rpartition("-")
        if not item or clicked not in ("0", "1"):
            return None
        pairs.append((item, clicked == "1"))
    return pairs
