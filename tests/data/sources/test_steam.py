"""Steam: invented games and reviews in the published format, and the genuine catalog."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from usermirror_gym.data.raw.reading import ReadLog
from usermirror_gym.data.sources.base import Limits
from usermirror_gym.data.sources.steam import Steam
from usermirror_gym.errors import DataError

GAMES: list[dict[str, Any]] = [
    {"publisher": "Pond", "genres": ["Indie", "RPG"], "app_name": "Frog’s \"Quest\"",
     "title": "Frog", "release_date": "2015-03-02", "tags": ["Frogs", "2D"], "price": 4.99,
     "specs": ["Single-player"], "early_access": False, "id": "10",
     "developer": "Pond,Lily &amp; 2,3 Frogs",
     "sentiment": "Very Positive", "url": "http://pond"},
    {"app_name": "Free Kart", "release_date": "Q2 2016", "price": "Free to Play", "id": "20"},
    {"title": "Only Title", "release_date": "Soon..", "price": "Third-party", "id": "30"},
    {"app_name": "Early", "release_date": "2017-06-01", "price": 0, "id": "40", "genres": []},
    {"url": "http://nothing", "early_access": False},
    {"app_name": "Frog again", "id": "10"},
]  # fmt: skip


def review(user: str, game: str, date: str, **more: Any) -> dict[str, Any]:
    row = {"username": user, "hours": 1.5, "products": 7, "product_id": game, "page_order": 0}
    return row | {"date": date, "text": f"on {game}", "early_access": False, "page": 1, **more}


REVIEWS = [
    review("ann", "10", "2016-01-02", user_id="765"),
    review("ANN (renamed)", "20", "2016-01-05", user_id="765", products=9),
    review("bob", "40", "2017-01-01", text="", hours="many"),
    {"username": "bob", "product_id": "30", "date": "2017-02-01"},
    review("bob", "30", "2017-01-31"),
]


@pytest.fixture
def load(write_lines: Callable[..., Path]) -> Callable[..., Any]:
    def _load(
        games: list[Any] = GAMES, reviews: list[Any] = REVIEWS, limits: Limits | None = None
    ) -> Any:
        write_lines("steam_games.json.gz", games, literal=True)
        folder = write_lines("steam_reviews.json.gz", reviews, literal=True)
        return Steam().load(folder, limits=limits or Limits())

    return _load


def kinds(data: Any) -> dict[str, int]:
    return {repair.kind: repair.count for repair in data.repairs}


def test_games(load: Callable[..., Any]) -> None:
    items = load().items.set_index("token")
    assert items.loc["10"].to_dict() == {
        "title": "Frog’s \"Quest\"", "genres": "Indie, RPG", "tags": "Frogs, 2D",
        "developer": "Pond, Lily & 2,3 Frogs", "publisher": "Pond", "specs": "Single-player",
        "sentiment": "Very Positive", "price": 4.99, "release_year": 2015,
        "available_from": 1425254400,
    }  # fmt: skip
    assert items["price"].tolist()[1] == 0
    assert pd.isna(items.loc["30", "price"])
    assert items.loc["30", "title"] == "Only Title"
    assert items["release_year"].tolist()[:2] == [2015, 2016]
    assert items.loc["20", "available_from"] is pd.NA
    assert items.loc["20", ["genres", "tags", "developer", "sentiment"]].isna().all()
    assert items.loc["40", "genres"] is None


def test_a_game_is_available_when_it_was_reviewed_before_its_release(
    load: Callable[..., Any],
) -> None:
    data = load()
    early = data.items.set_index("token").loc["40"]
    assert early["release_year"] == 2017
    assert early["available_from"] == 1483228800  # 2017-01-01


def test_reviews_and_users(load: Callable[..., Any]) -> None:
    data = load()
    assert data.users["token"].tolist() == ["765", "bob"]
    assert data.users["n_games"].tolist() == [7, 7]
    events = data.interactions
    assert events["timestamp"].tolist() == [1451692800, 1451952000, 1483228800, 1485820800]
    assert events["hours"].isna().tolist() == [False, False, True, False]
    assert events["review"].tolist() == ["on 10", "on 20", None, "on 30"]


def test_what_was_skipped_or_mended_is_counted(load: Callable[..., Any]) -> None:
    assert kinds(load()) == {
        "game without an id, skipped": 1,
        "game listed twice, kept once": 1,
        "price that cannot be used, left empty": 1,
        "release date that is not a day, at most its year kept": 2,
        "second interaction with the same item, skipped": 1,
        "hours played that cannot be used, left empty": 1,
    }


def test_limits_count_games_with_reviews_of_users_within_them(load: Callable[..., Any]) -> None:
    more = [*REVIEWS, review("cat", "10", "2016-05-05")]
    data = load(reviews=more, limits=Limits(min_user=2, min_item=0))
    assert data.users["token"].tolist() == ["765", "bob"]
    assert data.n_items == 4
    assert load(reviews=more, limits=Limits(max_user=1)).items["token"].tolist() == ["10"]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"date": "0000-00-00"}, "interaction without a readable time, skipped"),
        ({"date": "2999-01-01"}, "interaction whose time is not in 2003-2018, skipped"),
        ({"date": 1483228800}, "interaction without a readable time, skipped"),
        ({"product_id": "99"}, "interaction with an item that is not in the catalog, skipped"),
        ({"product_id": None}, "interaction without a user or an item, skipped"),
        ({"username": ""}, "interaction without a user or an item, skipped"),
    ],
)
def test_hostile_reviews_are_counted(
    load: Callable[..., Any], change: dict[str, Any], kind: str
) -> None:
    data = load(reviews=[*REVIEWS, review("dan", "10", "2016-01-01") | change])
    assert len(data.interactions) == 4
    assert kinds(data)[kind] == 1


def test_ids_turned_into_numbers_are_the_same_ids(write_lines: Callable[..., Path]) -> None:
    write_lines("steam_games.jsonl", [{"id": 10.0, "app_name": "Frog"}])
    folder = write_lines("steam_reviews.jsonl", [review("ann", "10", "2016-01-02")])
    assert Steam().load(folder, limits=Limits()).titles == ["", "Frog"]


def test_a_catalog_of_another_file_is_an_error(load: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match=r"steam_games\.json\.gz holds no usable item"):
        load(games=[{"name": "no id"}])


def test_strict_reading_stops_at_the_first_bad_row(write_lines: Callable[..., Path]) -> None:
    write_lines("steam_games.json.gz", GAMES, literal=True)
    folder = write_lines("steam_reviews.json.gz", REVIEWS, literal=True)
    with pytest.raises(DataError, match=r"steam_games\.json\.gz, line 2: release date"):
        Steam().load(folder, bad_rows="raise")


def test_missing_files_are_named(tmp_path: Path, write_lines: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"steam needs the folder that holds steam_games\.json"):
        Steam().load(None)
    with pytest.raises(DataError, match=r"steam_games\.json\.gz is missing"):
        Steam().load(tmp_path)
    with pytest.raises(DataError, match=r"steam_reviews\.json\.gz is missing"):
        Steam().load(write_lines("steam_games.json.gz", GAMES, literal=True))


def test_truncated_reviews_are_an_error(load: Callable[..., Any], tmp_path: Path) -> None:
    many = [review(f"user {n}", "10", "2016-01-02") for n in range(5000)]
    load(reviews=many)
    path = tmp_path / "steam_reviews.json.gz"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"steam_reviews\.json\.gz: the gz data break off"):
        Steam().load(tmp_path, limits=Limits())


def test_the_genuine_catalog(samples: Path) -> None:
    path = samples / "steam" / "steam_games.json.gz"
    with gzip.open(path) as lines:
        assert sum(1 for _ in lines) == 32_135
    log = ReadLog()
    games = Steam().read_games(path, log)
    assert len(games) == 32_132
    counted = {repair.kind: repair.count for repair in log.repairs}
    assert counted["game without an id, skipped"] == 2
    assert counted["game listed twice, kept once"] == 1
    assert counted["price that cannot be used, left empty"] == 10
    assert (games["price"] == 0).sum() == 1900
    assert games["price"].notna().sum() == 30_745
    assert games["sentiment"].notna().sum() == 24_951
    assert games["release_year"].dropna().between(1970, 2021).all()
    text = games.drop(columns=["price", "release_year", "available_from"])
    assert not (text == "").any(axis=None)
