"""Last.fm, HetRec 2011: 1,892 users, the artists they tagged and played, and their friends."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

import pandas as pd

from usermirror_gym.data.raw.reading import ReadLog, find_file, read_rows
from usermirror_gym.data.raw.values import Numbers, identifier, number, text
from usermirror_gym.data.sources.base import Download, Limits, Source, Tables, apply_limits
from usermirror_gym.data.sources.events import EventCheck, friend_table, kept_items, unique_rows
from usermirror_gym.types import ITEM_ID, TIMESTAMP, TITLE, USER_ID

_TAGS_SHOWN = 5
_read = partial(read_rows, sep="\t", header=True)


class LastFM(Source):
    """Artists, the tags users gave them, and who is whose friend.

    An interaction is a user's first tag for an artist: listening has a count but no time.
    Interactions: ``tag`` (the user's own tags for the artist, in the order of the file) and
    ``plays`` (how often the user listened, where that is known).  Items: ``title, tags`` (the five
    that most users gave).  Artists that nobody tagged are left out.  Users: nothing but friends.

    ``tags`` and ``plays`` are totals over the whole log, as published; no part of them can be told
    from the time before a cut.
    """

    name = "lastfm"
    domain = "music"
    title = "Last.fm (HetRec 2011)"
    homepage = "https://grouplens.org/datasets/hetrec-2011/"
    terms = "Non-commercial use only."
    citation = (
        "I. Cantador, P. Brusilovsky, T. Kuflik, 2nd Workshop on Information Heterogeneity and "
        "Fusion in Recommender Systems (HetRec 2011), RecSys 2011; and Last.fm."
    )
    files = (
        "artists.dat", "tags.dat", "user_artists.dat", "user_friends.dat",
        "user_taggedartists-timestamps.dat",
    )  # fmt: skip
    downloads = (
        Download(
            "https://files.grouplens.org/datasets/hetrec2011/hetrec2011-lastfm-2k.zip",
            files,
            sha256="6738f48195667ff03caaab4d32ca9a3133d8cc026b7c3cdaf6ce1010e913c59c",
        ),
    )
    how_to_get = "Unpack hetrec2011-lastfm-2k.zip from the home page."
    # UserMirrorer, DataProcessor_LastFM, sets 5 to 20 interactions but does not apply them.
    limits = Limits()

    def read(self, folder: Path, log: ReadLog, limits: Limits) -> Tables:
        artists = _names(find_file(folder, "artists.dat"), log, ("id", "name"))
        tags = _names(find_file(folder, "tags.dat"), log, ("tagID", "tagValue"), "latin-1")
        plays = _plays(find_file(folder, "user_artists.dat"), log)
        tagged, popular = _tagged(
            find_file(folder, "user_taggedartists-timestamps.dat"), log, artists, tags
        )
        everybody = set(tagged[USER_ID]) | {user for user, _ in plays}
        events = apply_limits(tagged, limits)
        pairs = zip(events[USER_ID], events[ITEM_ID], strict=True)
        events = events.assign(plays=pd.array([plays.get(pair) for pair in pairs], "Int64"))
        items = pd.DataFrame(
            {
                ITEM_ID: list(artists),
                TITLE: list(artists.values()),
                "tags": [_most_used(popular[artist]) for artist in artists],
            }
        )
        users = pd.DataFrame({USER_ID: events[USER_ID].unique()})
        path = find_file(folder, "user_friends.dat")
        found = _read(path, log, columns=("userID", "friendID"))
        friends = friend_table(
            ((row["userID"], row["friendID"]) for _, row in found), everybody - set(users[USER_ID])
        )
        return Tables(users, kept_items(items, events, limits), events, friends=friends)


def _names(
    path: Path, log: ReadLog, columns: tuple[str, str], encoding: str = "utf-8"
) -> dict[str, str | None]:
    """Names by id."""
    key, name = columns
    rows = _read(path, log, columns=columns, encoding=encoding)
    found = unique_rows(rows, key, "name", path, log, alike=True)
    return {known: text(row[name]) for _, row, known in found}


def _plays(path: Path, log: ReadLog) -> dict[tuple[str, str], int]:
    """How often each user listened to each artist."""
    plays: dict[tuple[str, str], int] = {}
    numbers = Numbers(path, log)
    for line, row in _read(path, log, columns=("userID", "artistID", "weight")):
        count = numbers.whole(line, "number of plays", row["weight"], 0)
        if count is not None:
            plays[row["userID"], row["artistID"]] = count
    return plays


def _tagged(
    path: Path, log: ReadLog, artists: dict[str, str | None], tags: dict[str, str | None]
) -> tuple[pd.DataFrame, dict[str, Counter[str]]]:
    """First times and own tags of each user and artist; the number of users by artist and tag."""
    # Last.fm began in 2002 and the data are of 2011; a few rows are dated 1956 and the like.
    check = EventCheck(path, log, artists, between=(2002, 2011))
    first: dict[tuple[str, str], int] = {}
    own: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    popular: defaultdict[str, Counter[str]] = defaultdict(Counter)
    columns = ("userID", "artistID", "tagID", "timestamp")
    for line, row in _read(path, log, columns=columns):
        user, artist, tag, time = row.values()
        milliseconds = number(time)
        seconds = None if milliseconds is None else milliseconds // 1000
        event = check(line, identifier(user), identifier(artist), seconds, {})
        if event is None:
            continue
        pair = (event.user, event.item)
        first[pair] = min(event.time, first.get(pair, event.time))
        name = tags.get(tag)
        if name is None:
            log.mend("tag without a name, left empty", path, line, tag)
        elif name not in own[pair]:
            own[pair][name] = None
            popular[event.item][name] += 1
    frame = pd.DataFrame(
        {
            USER_ID: [user for user, _ in first],
            ITEM_ID: [artist for _, artist in first],
            TIMESTAMP: list(first.values()),
            "tag": [", ".join(own[pair]) or None for pair in first],
        }
    )
    return frame, popular


def _most_used(counts: Counter[str]) -> str | None:
    # Equal counts: alphabetical, so that the order of the file does not matter.
    ranked = sorted(counts, key=lambda tag: (-counts[tag], tag))
    return ", ".join(ranked[:_TAGS_SHOWN]) or None
