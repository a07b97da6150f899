"""Goodreads: invented books and shelves in the published format, and the genuine records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from usermirror_gym.data.sources.base import Limits
from usermirror_gym.data.sources.goodreads import Goodreads, seconds
from usermirror_gym.errors import DataError, UnknownNameError

Rows = list[Any]


def shelving(user: str, book: str, date: str, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "book_id": book, "review_id": f"{user}-{book}", "is_read": True,
            "rating": 4, "review_text_incomplete": "", "date_added": date, "date_updated": date,
            "read_at": "", "started_at": "", **more}  # fmt: skip


def book(number: str, **more: Any) -> dict[str, Any]:
    return {"book_id": number, "title": f"Volume {number}", "authors": [], "publisher": "",
            "num_pages": "", "publication_year": "", "average_rating": "3.50",
            "ratings_count": "12", "description": "", "is_ebook": "false", **more}  # fmt: skip


SHELVES: Rows = [
    shelving("ann", "1", "Fri Apr 19 08:15:15 -0700 2013"),
    shelving("ann", "2", "Sat Apr 20 00:00:00 +0000 2013", rating=0),
    shelving("bob", "1", "Sun Apr 21 00:00:00 +0000 2013", rating=5),
]
BOOKS: Rows = [
    book("1", title="Ink & Ash", authors=[{"author_id": "7", "role": ""},
         {"author_id": "8", "role": "Illustrator"}, {"author_id": "9", "role": ""}],
         publisher="Owl Press", num_pages="120", publication_year="1987", average_rating="4.09",
         ratings_count="15,716", description=" A tale. "),
    book("2", publication_year="0000", num_pages="0", average_rating="0.00", ratings_count="0"),
    book("3", publication_year="65535", num_pages="many"),
]  # fmt: skip
REVIEWS: Rows = [
    {"user_id": "bob", "book_id": "1", "review_id": "bob-1", "rating": 5, "review_text": "Ash!"},
    {"user_id": "eve", "book_id": "1", "review_id": "eve-1", "rating": 1, "review_text": "No."},
]
AUTHORS: Rows = [
    {"author_id": "7", "name": "Ada Quill", "average_rating": "4.0"},
    {"author_id": "8", "name": "Ben Brush", "average_rating": "4.0"},
]
GENRES: Rows = [
    {"book_id": "1", "genres": {"history, biography": 2, "poetry": 90, "fiction": 2}},
    {"book_id": "2", "genres": {}},
    {"book_id": "99", "genres": {"fiction": 1}},
]
KINDS = ("interactions", "books", "reviews", "book_authors", "book_genres_initial")


@pytest.fixture
def load(write_lines: Callable[..., Path]) -> Callable[..., Any]:
    def _load(limits: Limits | None = None, **changed: Rows) -> Any:
        tables = dict(zip(KINDS, (SHELVES, BOOKS, REVIEWS, AUTHORS, GENRES), strict=True))
        for kind, rows in (tables | changed).items():
            subset = "" if kind.startswith("book_") else "_comics_graphic"
            folder = write_lines(f"goodreads_{kind}{subset}.json.gz", rows)
        return Goodreads().load(folder, limits=limits or Limits(min_item=0))

    return _load


def kinds(data: Any) -> dict[str, int]:
    return {repair.kind: repair.count for repair in data.repairs}


def test_books(load: Callable[..., Any]) -> None:
    data = load()
    items = data.items.set_index("token")
    assert items.loc["1"].to_dict() == {
        "title": "Ink & Ash", "author": "Ada Quill, Ben Brush (Illustrator)", "year": 1987,
        "publisher": "Owl Press", "pages": 120, "mean_rating": 4.09, "n_ratings": 15716,
        "description": "A tale.", "genres": "poetry, fiction, history, biography",
    }  # fmt: skip
    for column in ("author", "year", "publisher", "pages", "mean_rating", "genres"):
        assert pd.isna(items.loc["2", column])
    assert items.loc["2", "n_ratings"] == 0
    assert kinds(data) == {
        "publication year that cannot be used, left empty": 2,
        "number of pages that cannot be used, left empty": 1,
    }


def test_shelves_ratings_and_reviews(load: Callable[..., Any]) -> None:
    events = load().interactions
    assert events["timestamp"].tolist() == [1366384515, 1366416000, 1366502400]
    assert events["rating"].fillna(-1).tolist() == [4, -1, 5]
    assert events["review"].tolist() == [None, None, "Ash!"]


def test_limits(load: Callable[..., Any]) -> None:
    data = load(Limits(min_user=2))
    assert data.users["token"].tolist() == ["ann"]
    assert data.items["token"].tolist() == ["1", "2"]
    with pytest.raises(DataError, match="none of the 3 usable interactions"):
        load(Goodreads.limits)


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("Fri Apr 19 08:15:15 -0700 2013", 1366384515),
        ("Thu Jan 01 00:00:00 +0000 1970", 0),
        ("Sun Dec 31 23:59:59 +0530 2017", 1514744999),
        ("Fri Apr 31 08:15:15 -0700 2013", None),
        ("Fri Avr 19 08:15:15 -0700 2013", None),
        ("Fri anF 19 08:15:15 -0700 2013", None),
        ("Fri Apr 19 25:15:15 -0700 2013", None),
        ("Fri Apr 19 08:15:15 -9900 2013", None),
        ("Fri Apr 19 08:15:15 -0700 0000", None),
        ("2013-04-19", None),
        ("", None),
        (None, None),
        (1366384515, None),
    ],
)
def test_dates(date: object, expected: int | None) -> None:
    assert seconds(date) == expected


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"date_added": ""}, "interaction without a readable time, skipped"),
        ({"date_added": "Fri Apr 19 08:15:15 -0700 2093"}, "interaction whose time is not in"),
        ({"book_id": "77"}, "interaction with an item that is not in the catalog, skipped"),
        ({"user_id": None}, "interaction without a user or an item, skipped"),
    ],
)
def test_hostile_shelves_are_counted(
    load: Callable[..., Any], change: dict[str, Any], kind: str
) -> None:
    extra = shelving("cat", "1", "Fri Apr 19 08:15:15 -0700 2013") | change
    data = load(interactions=[*SHELVES, extra])
    assert len(data.interactions) == 3
    assert [count for name, count in kinds(data).items() if name.startswith(kind)] == [1]


def test_odd_shapes_of_authors_and_genres_are_nothing(load: Callable[..., Any]) -> None:
    books = [book("1", authors="Ada"), book("2", authors=[7, {"role": "x"}, {"author_id": None}])]
    genres = [{"book_id": "1", "genres": ["comics"]}, {"book_id": "2", "genres": {"comics": "x"}}]
    items = load(books=books, book_genres_initial=genres).items
    assert items[["author", "genres"]].isna().all(axis=None)


def test_a_rating_that_cannot_be_is_empty_and_counted(load: Callable[..., Any]) -> None:
    data = load(interactions=[SHELVES[0] | {"rating": 11}])
    assert data.interactions["rating"].isna().all()
    assert kinds(data)["rating that cannot be used, left empty"] == 1


def test_another_subset_reads_other_files() -> None:
    source = Goodreads("poetry")
    assert source.name == "goodreads:poetry"
    assert source.files[0] == "goodreads_interactions_poetry.json.gz"
    assert source.downloads[0].url.endswith("/byGenre/goodreads_interactions_poetry.json.gz")
    assert len(source.downloads) == len(source.files) == 5
    with pytest.raises(UnknownNameError, match="Did you mean 'comics_graphic'"):
        Goodreads("comics")


@pytest.mark.parametrize("kind", KINDS)
def test_each_missing_file_is_named(load: Callable[..., Any], tmp_path: Path, kind: str) -> None:
    load()
    (path,) = tmp_path.glob(f"goodreads_{kind}*")
    path.unlink()
    with pytest.raises(DataError, match=rf"goodreads_{kind}.* is missing"):
        Goodreads().load(tmp_path)


def test_the_genuine_records(samples: Path) -> None:
    data = Goodreads("poetry").load(samples / "goodreads", limits=Limits())
    (item,) = data.items.to_dict("records")
    assert item["token"] == "402128"
    assert (item["year"], item["pages"], item["n_ratings"]) == (1982, 56, 15716)
    assert item["mean_rating"] == 4.09
    assert data.interactions["timestamp"].tolist() == [1366384515]
    assert data.interactions["rating"].tolist() == [4.0]
    assert data.repairs == ()
