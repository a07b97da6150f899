"""Goodreads (UCSD Book Graph, 2017): shelves, ratings and reviews of one genre's books."""

from __future__ import annotations

import re
from collections.abc import Container
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from usermirror_gym.data.raw.reading import ReadLog, find_file, read_json_lines
from usermirror_gym.data.raw.values import Numbers, identifier, text
from usermirror_gym.data.sources.base import Download, Limits, Source, Tables
from usermirror_gym.data.sources.events import (
    Row,
    Values,
    item_table,
    kept_items,
    read_events,
    unique_rows,
)
from usermirror_gym.errors import UnknownNameError
from usermirror_gym.types import ITEM_ID, RATING, TITLE, USER_ID

SUBSETS = (
    "children", "comics_graphic", "fantasy_paranormal", "history_biography",
    "mystery_thriller_crime", "poetry", "romance", "young_adult",
)  # fmt: skip
"""The genres that are published apart."""

_URL = "https://mcauleylab.ucsd.edu/public_datasets/gdrive/goodreads/"
_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"
_DATE = re.compile(
    r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) (\d\d) (\d\d:\d\d:\d\d) ([-+]\d{4}) (\d{4})", re.ASCII
)


class Goodreads(Source):
    """Books of one genre, by default comics and graphic novels.

    Items: ``title, author`` (names, joined by commas, with their role if it is another),
    ``year, publisher, pages, mean_rating, n_ratings, description, genres``.
    Interactions: ``rating`` (1 - 5; the published 0 means not rated and is empty) and ``review``;
    the time is when the book was put on a shelf.  Users: nothing is known of them.

    Args:
        subset: one of :data:`SUBSETS`.

    Raises:
        UnknownNameError: no such subset.
    """

    name = "goodreads"
    domain = "book"
    title = "Goodreads (UCSD Book Graph)"
    homepage = "https://mengtingwan.github.io/data/goodreads.html"
    terms = "Academic use only: no redistribution, no commercial use."
    citation = (
        "M. Wan, J. McAuley, Item Recommendation on Monotonic Behavior Chains, RecSys 2018; "
        "M. Wan et al., Fine-Grained Spoiler Detection from Large-Scale Review Corpora, ACL 2019."
    )
    how_to_get = "The five .json.gz files as published, in one folder."
    # UserMirrorer, DataProcessor_Goodreads: at least 5 books (7,347,630 interactions of 342,415
    # users with 89,411 books before); it also sets the 20 that other sets use, without using it.
    limits = Limits(min_user=5, max_user=20, min_item=0)

    def __init__(self, subset: str = "comics_graphic") -> None:
        if subset not in SUBSETS:
            raise UnknownNameError("Goodreads subset", subset, SUBSETS)
        self.subset = subset
        if subset != "comics_graphic":
            self.name = f"goodreads:{subset}"
        of_genre = tuple(
            f"goodreads_{what}_{subset}.json.gz" for what in ("interactions", "books", "reviews")
        )
        of_all = ("goodreads_book_authors.json.gz", "goodreads_book_genres_initial.json.gz")
        self.files = of_genre + of_all
        self.downloads = (
            *(Download(f"{_URL}byGenre/{name}") for name in of_genre),
            *(Download(_URL + name) for name in of_all),
        )

    def read(self, folder: Path, log: ReadLog, limits: Limits) -> Tables:
        path, books_path, reviews_path, authors_path, genres_path = (
            find_file(folder, name) for name in self.files
        )
        books = _read_books(books_path, authors_path, genres_path, log)
        numbers = Numbers(path, log)
        values: Values = {
            RATING: lambda e: numbers.real(e.line, "rating", e.row.get("rating"), 0, 5) or None,
            "review": lambda e: text(e.row.get("review_id")),
        }
        ids = set(books[ITEM_ID])
        events = read_events(
            path, log, limits, read_json_lines, _ids, values, items=ids, between=(2005, 2018)
        )
        wanted = set(events["review"].dropna())
        reviews = _read_texts(reviews_path, "review_id", "review_text", wanted, log)
        events["review"] = pd.Series([reviews.get(i) for i in events["review"]], dtype=object)
        users = pd.DataFrame({USER_ID: events[USER_ID].unique()})
        return Tables(users, kept_items(books, events, limits), events)


def seconds(date: object) -> int | None:
    """``"Fri Apr 19 08:15:15 -0700 2013"`` -> seconds since 1970; ``None`` if it is no such date.

    Not ``strptime``, which reads the names of months in the language of the machine.
    """
    match = _DATE.fullmatch(date) if isinstance(date, str) else None
    if match is None:
        return None
    name, day, time, zone, year = match.groups()
    month, rest = divmod(_MONTHS.find(name), 3)
    if rest:  # not found (-1), or across two names
        return None
    try:
        return int(datetime.fromisoformat(f"{year}-{month + 1:02}-{day}T{time}{zone}").timestamp())
    except (ValueError, OverflowError):
        return None


def _ids(row: Row) -> tuple[str | None, str | None, float | None]:
    user, book = identifier(row.get("user_id")), identifier(row.get("book_id"))
    return user, book, seconds(row.get("date_added"))


def _read_books(path: Path, authors_path: Path, genres_path: Path, log: ReadLog) -> pd.DataFrame:
    numbers = Numbers(path, log)
    books: dict[str, dict[str, Any]] = {}
    authors: dict[str, list[tuple[str, str | None]]] = {}
    rows = read_json_lines(path, log)
    for line, row, book in unique_rows(rows, "book_id", "book", path, log, name="title"):
        books[book] = {ITEM_ID: book, **_facts(row, line, numbers)}
        authors[book] = _author_ids(row.get("authors"))
    wanted = {a for ids in authors.values() for a, _ in ids}
    names = _read_texts(authors_path, "author_id", "name", wanted, log)
    genres = _read_genres(genres_path, books, log)
    for book, facts in books.items():
        known = [(names[a], role) for a, role in authors[book] if a in names]
        facts["author"] = ", ".join(n if r is None else f"{n} ({r})" for n, r in known) or None
        facts["genres"] = genres.get(book)
    return item_table(
        books.values(), path, real=("mean_rating",), whole=("year", "pages", "n_ratings")
    )


def _facts(row: dict[str, Any], line: int, numbers: Numbers) -> dict[str, Any]:
    return {
        TITLE: text(row.get("title")),
        "author": None,
        # Published years go from "0" to "65535"; printing began about 1450.
        "year": numbers.whole(line, "publication year", row.get("publication_year"), 1450, 2025),
        "publisher": text(row.get("publisher")),
        "pages": numbers.whole(line, "number of pages", row.get("num_pages"), 0, 100_000) or None,
        # A book without ratings has the mean "0.00".
        "mean_rating": numbers.real(line, "mean rating", row.get("average_rating"), 0, 5) or None,
        "n_ratings": numbers.whole(line, "number of ratings", row.get("ratings_count"), 0),
        "description": text(row.get("description")),
        "genres": None,
    }


def _author_ids(authors: object) -> list[tuple[str, str | None]]:
    if not isinstance(authors, list):
        return []
    found = [a for a in authors if isinstance(a, dict)]
    return [(i, text(a.get("role"))) for a in found if (i := identifier(a.get("author_id")))]


def _read_texts(
    path: Path, key: str, column: str, wanted: Container[str], log: ReadLog
) -> dict[str, str]:
    """A column of the rows whose ids are wanted, by id."""
    texts = {}
    for _, row in read_json_lines(path, log):
        found, words = identifier(row.get(key)), text(row.get(column))
        if found in wanted and found is not None and words is not None:
            texts[found] = words
    return texts


def _read_genres(path: Path, books: Container[str], log: ReadLog) -> dict[str, str]:
    """Genres by book, those that most readers named first."""
    genres = {}
    for _, row in read_json_lines(path, log):
        book, votes = identifier(row.get("book_id")), row.get("genres")
        if book in books and book is not None and isinstance(votes, dict) and votes:
            counted = {name: votes[name] for name in votes if isinstance(votes[name], int)}
            genres[book] = ", ".join(sorted(counted, key=lambda name: (-counted[name], name)))
    return {book: names for book, names in genres.items() if names}
