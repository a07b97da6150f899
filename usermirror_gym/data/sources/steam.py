"""Steam: 32,135 games and 7.8 million reviews with hours played (2010 - 2018)."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache, partial
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from usermirror_gym.data.raw.reading import ReadLog, find_file, read_json_lines
from usermirror_gym.data.raw.values import Numbers, identifier, joined, text
from usermirror_gym.data.sources.base import Download, Limits, Source, Tables
from usermirror_gym.data.sources.events import (
    Row,
    Values,
    item_table,
    kept_items,
    read_events,
    unique_rows,
)
from usermirror_gym.types import AVAILABLE_FROM, ITEM_ID, TIMESTAMP, TITLE, USER_ID

_URL = "https://mcauleylab.ucsd.edu/public_datasets/data/steam/"
_YEAR = re.compile(r"(?<![0-9])(19[7-9][0-9]|20[0-2][0-9])(?![0-9])")
_CLOSE_COMMA = re.compile(r",(?=[^\s\d])")
_DAY = 86_400
_READ = partial(read_json_lines, literal=True)


class Steam(Source):
    """Games, their buyers' reviews and hours played.

    Items: ``title, genres, tags, developer, publisher, specs, sentiment`` (text; lists are joined
    by commas), ``price`` (dollars; 0 is free), ``release_year`` and ``available_from`` (the day of
    release, or of the first review where that is earlier: games are sold before they are done).
    Interactions: ``hours`` and ``review``; times are days.  Users: ``n_games``, how many they own.

    A user is the ``user_id``, which two reviews in five have, else the ``username``, which is only
    a display name: common ones (``"123"``) stand for many people and fall to ``max_user``.
    """

    name = "steam"
    domain = "game"
    title = "Steam video games and reviews"
    homepage = "https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data"
    terms = "The publisher states no licence; the texts are their authors'. Research use, citing."
    citation = (
        "W.-C. Kang, J. McAuley, Self-Attentive Sequential Recommendation, ICDM 2018; "
        "M. Wan, J. McAuley, Item Recommendation on Monotonic Behavior Chains, RecSys 2018."
    )
    files = ("steam_games.json.gz", "steam_reviews.json.gz")
    downloads = tuple(Download(_URL + name) for name in files)
    how_to_get = (
        "Both files as published, lines of Python dicts; the same lines turned into JSON "
        "(steam_games.jsonl, steam_reviews.jsonl) are read too."
    )
    # UserMirrorer, DataProcessor_Steam: users of 5 to 20 games, a user's first review of a game
    # only, all games.
    limits = Limits(min_user=5, max_user=20, min_item=0)

    def read(self, folder: Path, log: ReadLog, limits: Limits) -> Tables:
        games = self.read_games(find_file(folder, self.files[0]), log)
        path = find_file(folder, self.files[1])
        numbers = Numbers(path, log)
        values: Values = {
            "hours": lambda e: numbers.real(e.line, "hours played", e.row.get("hours"), 0),
            "review": lambda e: text(e.row.get("text")),
            "n_games": lambda e: numbers.whole(e.line, "number of games", e.row.get("products"), 0),
        }
        ids, years = set(games[ITEM_ID]), (2003, 2018)
        reviews = read_events(
            path, log, limits, _READ, _ids, values, items=ids, between=years, once=True
        )
        users = reviews.groupby(USER_ID, sort=False)["n_games"].first().astype("Int64")
        reviews = reviews.drop(columns="n_games")
        games = _available_when_reviewed(kept_items(games, reviews, limits), reviews)
        return Tables(users.reset_index(), games, reviews)

    def read_games(self, path: Path, log: ReadLog) -> pd.DataFrame:
        """The catalog: games that have an id, each once."""
        numbers = Numbers(path, log)
        rows = unique_rows(_READ(path, log), "id", "game", path, log, name="app_name")
        games = [{ITEM_ID: game, **_facts(row, line, numbers)} for line, row, game in rows]
        return item_table(games, path, real=("price",), whole=("release_year", AVAILABLE_FROM))


def _facts(row: dict[str, Any], line: int, numbers: Numbers) -> dict[str, Any]:
    released = text(row.get("release_date"))
    day = None if released is None else _midnight(released)
    years = [] if released is None else _YEAR.findall(released)
    if released is not None and day is None:
        numbers.log.mend(
            "release date that is not a day, at most its year kept", numbers.path, line, released
        )
    return {
        TITLE: _plain(row.get("app_name")) or _plain(row.get("title")),
        "genres": _plain(row.get("genres")),
        "tags": _plain(row.get("tags")),
        "developer": _companies(row.get("developer")),
        "publisher": _companies(row.get("publisher")),
        "specs": _plain(row.get("specs")),
        "sentiment": text(row.get("sentiment")),
        "price": _price(row.get("price"), line, numbers),
        "release_year": int(years[0]) if len(set(years)) == 1 else None,
        AVAILABLE_FROM: day,
    }


def _plain(value: object) -> str | None:
    """Text, or texts joined by commas; some are published with the entities of their web page."""
    words = joined(value)
    return None if words is None else text(unescape(words))


def _companies(value: object) -> str | None:
    """Several are published without a space between them."""
    words = _plain(value)
    return None if words is None else _CLOSE_COMMA.sub(", ", words)


def _price(value: object, line: int, numbers: Numbers) -> float | None:
    """Dollars; the published words "Free To Play", "Free", "Play for Free!" ... are 0."""
    if isinstance(value, str) and "free" in value.lower():
        return 0.0
    return numbers.real(line, "price", value, 0)


@lru_cache(maxsize=100_000)
def _midnight(day: str) -> int | None:
    """``"2017-12-17"`` -> seconds since 1970, at midnight UTC."""
    try:
        return (date.fromisoformat(day) - date(1970, 1, 1)).days * _DAY
    except ValueError:
        return None


def _ids(row: Row) -> tuple[str | None, str | None, float | None]:
    user = identifier(row.get("user_id")) or identifier(row.get("username"))
    day = row.get("date")
    time = _midnight(day) if isinstance(day, str) else None
    return user, identifier(row.get("product_id")), time


def _available_when_reviewed(games: pd.DataFrame, reviews: pd.DataFrame) -> pd.DataFrame:
    first = games[ITEM_ID].map(reviews.groupby(ITEM_ID)[TIMESTAMP].min()).astype("Int64")
    released = games[AVAILABLE_FROM]
    earlier = (first < released).fillna(False).to_numpy(np.bool_)
    return games.assign(**{AVAILABLE_FROM: released.mask(earlier, first)})
