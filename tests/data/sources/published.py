"""Invented logs of twelve users in the form of each published data set, large enough for scenes.

Every ``write_<source>`` fills a folder.  Some facts are always missing, and some items appear in
the middle of the log, because the words have to read well then too.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

USERS, EACH = 12, 8
TITLES = [
    f"{first} {second}"
    for first in ("Quiet", "Copper", "Second", "Northern", "Paper")
    for second in ("Harbour", "Lantern", "Orchard", "Signal", "Winter", "Staircase")
]
HOUR = 3600


class Choice(NamedTuple):
    """User ``user`` took item number ``item`` at ``time``; ``number`` counts all choices."""

    number: int
    user: int
    item: int
    time: int

    @property
    def moment(self) -> datetime:
        return datetime.fromtimestamp(self.time, UTC)


def choices(begin: str, *, hours: int = 10, n_items: int = len(TITLES)) -> list[Choice]:
    """Eight different items of each of the twelve users, ``hours`` apart; all in order of time."""
    start = int(datetime.fromisoformat(f"{begin}T08:15:30+00:00").timestamp())
    return [
        Choice(n, n % USERS, (n % USERS * 5 + n // USERS * 7) % n_items, start + n * hours * HOUR)
        for n in range(USERS * EACH)
    ]


def save(folder: Path, name: str, content: str, encoding: str = "utf-8") -> None:
    """Plain, or packed if the name ends in .gz."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content.encode(encoding)
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)


def lines(rows: Sequence[Any]) -> str:
    """JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_ml_100k(folder: Path) -> None:
    """The last three films are of the year that begins within the log."""
    years = [1968 + item for item in range(27)] + [1998] * 3
    log = choices("1997-12-20", hours=6)
    films = [
        f"{i + 1}|{_film(i, year)}|01-Jan-{year}||http://a|0|"
        + "|".join("1" if flag in (i % 18, i % 5) else "0" for flag in range(18))
        for i, year in enumerate(years)
    ]
    save(folder, "u.item", "\n".join(films), "latin-1")
    save(folder, "u.user", "".join(
        f"{u + 1}|{20 + 3 * u}|{'MF'[u % 2]}|{('writer', 'other', 'none')[u % 3]}|00000\n"
        for u in range(USERS)
    ))  # fmt: skip
    save(folder, "u.data", "".join(
        f"{c.user + 1}\t{c.item + 1}\t{c.number % 5 + 1}\t{c.time}\n" for c in log
    ))  # fmt: skip


def write_ml_1m(folder: Path) -> None:
    """Ages and occupations are codes."""
    save(folder, "movies.dat", "".join(
        f"{i + 1}::{_film(i, 1940 + 2 * i)}::{('Drama|War', 'Comedy')[i % 2]}\n"
        for i in range(len(TITLES))
    ), "latin-1")  # fmt: skip
    save(folder, "users.dat", "".join(
        f"{u + 1}::{'MF'[u % 2]}::{(1, 18, 25, 35)[u % 4]}::{u}::00000\n" for u in range(USERS)
    ))  # fmt: skip
    save(folder, "ratings.dat", "".join(
        f"{c.user + 1}::{c.item + 1}::{c.number % 5 + 1}::{c.time}\n" for c in choices("2000-05-01")
    ))  # fmt: skip


def _film(item: int, year: int) -> str:
    article = ("", ", The", " (Café, Le)")[item % 3]
    return f"{TITLES[item]}{article} ({year})"


def mind_lists(news: Sequence[str], begin: str = "2019-11-09") -> str:
    """``behaviors.tsv``: five news a list; most lists have one click, some two, some none."""
    rows = []
    for c in choices(begin, hours=1, n_items=len(news)):
        shown = [news[(c.item + step) % len(news)] for step in (0, 1, 2, 3, 11)]
        clicks = {0} if c.number % 7 else {1, 3} if c.number % 2 else set()
        marks = " ".join(f"{name}-{int(at in clicks)}" for at, name in enumerate(shown))
        past = " ".join(news[(c.user + 4 * step + 17) % len(news)] for step in range(6))
        rows.append(f"{c.number}\tU{c.user}\t{_am_pm(c.moment)}\t{past}\t{marks}\n")
    return "".join(rows)


def _am_pm(moment: datetime) -> str:
    half = "AM" if moment.hour < 12 else "PM"
    return (
        f"{moment.month}/{moment.day}/{moment.year} {moment.hour % 12 or 12}:{moment:%M:%S} {half}"
    )


def write_mind(folder: Path) -> None:
    """One news in five has no category, one in three no abstract."""
    sections = ("sports", "foodanddrink", "middleeast", "tv", "")
    save(folder, "news.tsv", "".join(
        f"N{i}\t{sections[i % 5]}\tlocal\t{title} reopens\t{'Soon.' if i % 3 else ''}\thttp://a\t[]\t[]\n"
        for i, title in enumerate(TITLES)
    ))  # fmt: skip
    save(folder, "behaviors.tsv", mind_lists([f"N{i}" for i in range(len(TITLES))]))


def steam_reviews(games: Sequence[str], begin: str = "2015-01-10") -> str:
    """Lines of Python dicts; hours, texts and ``products`` are missing now and then."""
    rows = []
    for c in choices(begin, hours=100, n_items=len(games)):
        row: dict[str, Any] = {"username": f"user {c.user}", "product_id": games[c.item]}
        row |= {
            "date": f"{c.moment:%Y-%m-%d}",
            "text": ("Fun, and long.", "", "ok\nI guess")[c.number % 3],
        }
        if c.number % 4:
            row["hours"] = (0.4, 1.0, 12.0, 1204.5)[c.number % 4]
        if c.user % 5:
            row["products"] = c.user
        rows.append(f"{row!r}\n")
    return "".join(rows)


def write_steam(folder: Path) -> None:
    """A game of five knows nothing but its name; a game of three is released within the log."""
    games: list[dict[str, Any]] = []
    for i, title in enumerate(TITLES):
        game: dict[str, Any] = {"id": str(10 * i), "app_name": title, "early_access": False}
        if i % 5:
            game |= {"genres": ["Indie", "RPG"][: i % 3], "tags": ["Puzzle &amp; 2D"]}
            game |= {"developer": "Two Owls", "specs": ["Single-player"], "price": 5.0 * (i % 3)}
            game["sentiment"] = ("3 user reviews", "Mixed")[i % 2 == 0]
            game["release_date"] = ("Soon..", "2012-02-02", "2015-06-01")[i % 3 and 1 + (i % 2)]
        games.append(game)
    save(folder, "steam_games.json.gz", "".join(f"{game!r}\n" for game in games))
    save(folder, "steam_reviews.json.gz", steam_reviews([str(10 * i) for i in range(len(TITLES))]))


def write_goodreads(folder: Path) -> None:
    """One book in four knows nothing but its title; one rating in three is the 0 of no rating."""
    books, genres, shelves, reviews = [], [], [], []
    for i, title in enumerate(TITLES):
        known = i % 4 != 0
        by = [{"author_id": "1", "role": ""}, {"author_id": "2", "role": "Illustrator"}]
        books.append({
            "book_id": str(i), "title": f"{title}, Vol. {i % 3 + 1}",
            "authors": by[: i % 3],
            "publisher": "Gull Press" if known else "", "num_pages": str(40 * i) if known else "",
            "publication_year": str(1990 + i) if known and i < 20 else "",
            "average_rating": "3.90" if known else "0.00", "ratings_count": str(i * i * i),
            "description": "A map-maker comes home; the island moved." if i % 3 else "",
        })  # fmt: skip
        genres.append({"book_id": str(i), "genres": {"comics, graphic": i} if i % 2 else {}})
    for c in choices("2014-03-01", hours=90):
        number = f"r{c.number}"
        date = f"{c.moment:%a %b %d %H:%M:%S} +0000 {c.moment.year}"
        shelves.append({"user_id": f"u{c.user}", "book_id": str(c.item), "review_id": number,
                        "rating": c.number % 3 * 2, "date_added": date})  # fmt: skip
        if c.number % 2:
            reviews.append({"review_id": number, "review_text": "Read it twice.\n\nLovely   ink."})
    authors = [{"author_id": "1", "name": "Ida Moor"}, {"author_id": "2", "name": "Bo Tran"}]
    for kind, rows in (
        ("interactions_comics_graphic", shelves), ("books_comics_graphic", books),
        ("reviews_comics_graphic", reviews), ("book_authors", authors),
        ("book_genres_initial", genres),
    ):  # fmt: skip
        save(folder, f"goodreads_{kind}.json.gz", lines(rows))


def write_lastfm(folder: Path) -> None:
    """Two tags now and then, plays of most; everybody has two friends."""
    log = choices("2009-01-01", hours=24)
    tagged = [(c.user, c.item, tag, c.time) for c in log for tag in range(c.number % 3 + 1)]
    tables = {
        "artists.dat": ["id\tname\turl\tpictureURL",
                        *(f"{i}\t{title}\thttp://a\t" for i, title in enumerate(TITLES))],
        "tags.dat": ["tagID\ttagValue", "0\tfolk", "1\tcafé", "2\trainy day"],
        "user_artists.dat": ["userID\tartistID\tweight",
                             *(f"{c.user}\t{c.item}\t{c.number}" for c in log if c.number % 3)],
        "user_friends.dat": ["userID\tfriendID",
                             *(f"{u}\t{(u + 1) % USERS}" for u in range(USERS))],
        "user_taggedartists-timestamps.dat": [
            "userID\tartistID\ttagID\ttimestamp",
            *(f"{user}\t{item}\t{tag}\t{time}000" for user, item, tag, time in tagged)],
    }  # fmt: skip
    for name, rows in tables.items():
        save(folder, name, "\r\n".join(rows), "latin-1" if name == "tags.dat" else "utf-8")


def kuairec_log(folder: Path, videos: Sequence[str]) -> None:
    """The files of what happened: views, friends, and the days of each video."""
    views = ["user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio"]
    for c in choices("2020-07-06", hours=4, n_items=len(videos)):
        ratio = 1 + c.number % 4 * 0.35
        views.append(f"{c.user},{videos[c.item]},{ratio * 9000:.0f},9000,,,{c.time}.5,{ratio}")
        views.append(f"{c.user},{videos[c.item - 1]},100,9000,,,{c.time + 60},0.01")
    days = ["video_id,date,upload_dt,video_duration,play_cnt,like_cnt,comment_cnt,share_cnt"]
    for i, video in enumerate(videos):
        # One in six is uploaded within the log, one in five has no length.
        upload = "2020-07-12" if i % 6 == 1 else "2020-06-01"
        days.append(f"{video},20200713,{upload},{'' if i % 5 == 0 else 9000},{i * i * i},{i},1,0")
    friends = [f'{u},"[{(u + 1) % USERS}, {(u + 2) % USERS}]"' for u in range(USERS)]
    save(folder, "big_matrix.csv", "\n".join(views))
    save(folder, "item_daily_features.csv", "\n".join(days))
    save(folder, "social_network.csv", "\n".join(["user_id,friend_list", *friends]))


def write_kuairec(folder: Path) -> None:
    """One video in three has no caption, one in four no category."""
    videos = [str(i) for i in range(len(TITLES))]
    kuairec_log(folder, videos)
    levels = [f"{n}_level_category_name" for n in ("first", "second", "third")]
    captions = [",".join(("video_id", "caption", *levels))]
    for i, title in enumerate(TITLES):
        category = "UNKNOWN,UNKNOWN,UNKNOWN" if i % 4 == 0 else f"Pets,Cats {i},UNKNOWN"
        captions.append(f"{i},{title if i % 3 else ''},{category}")
    save(folder, "kuairec_caption_category.csv", "\n".join(captions))
    save(folder, "item_categories.csv", "\n".join(
        ["video_id,feat", *(f'{i},"[{i}, 9]"' for i in range(len(TITLES)))]
    ))  # fmt: skip
    columns = "user_id,user_active_degree,follow_user_num,fans_user_num,friend_user_num"
    degrees = ("full_active", "high_active", "middle_active", "UNKNOWN")
    save(folder, "user_features.csv", "\n".join(
        [columns, *(f"{u},{degrees[u % 4]},{u},{u * 7},{u % 3}" for u in range(USERS))]
    ))  # fmt: skip


def write_mobilerec(folder: Path) -> None:
    """One app in four knows nothing but its name; one review in three has no words."""
    apps = ["app_package,app_name,developer_name,app_category,description,content_rating,"
            "num_reviews,price,avg_rating"]  # fmt: skip
    for i, title in enumerate(TITLES):
        price = ("Install", "$1.50 Buy")[i % 2]
        known = f'Shoreline,Weather,"High, and low, water.",Everyone,"1,{i:03}",{price},4.{i % 10}'
        apps.append(f"org.a{i},{title},{known if i % 4 else 'None,nan,,,0,,0.0'}")
    reviews = ["app_package,review,rating,votes,date,uid,formated_date,unix_timestamp,app_category"]
    for c in choices("2018-10-01", hours=40):
        words = ('"Works, mostly"', "nan", '"Said ""no"" once."')[c.number % 3]
        reviews.append(f"org.a{c.item},{words},{c.number % 5 + 1},0,,u{c.user},,{c.time}.0,Weather")
    save(folder, "app_meta/app_meta.csv", "\n".join(apps))
    save(folder, "interactions/mobilerec_final.csv", "\n".join(reviews))


def write_amazon(folder: Path, category: str) -> None:
    """One product in four knows nothing but its title; some reviews have no title."""
    products = []
    for i, title in enumerate(TITLES):
        product: dict[str, Any] = {"parent_asin": f"B{i}", "title": f"{title} hat, {i} cm"}
        product |= {"main_category": "AMAZON FASHION", "categories": [], "price": None}
        if i % 4:
            product |= {"categories": ["Clothing", "Hats & Caps"][: i % 3], "price": "4.50"}
            product |= {"average_rating": 4.1, "rating_number": i * i * i, "store": "Hillside"}
        products.append(product)
    reviews = [
        {"user_id": f"A{c.user}", "parent_asin": f"B{c.item}", "timestamp": c.time * 1000,
         "rating": float(c.number % 5 + 1), "text": "Warm<br />enough.",
         "title": ("Warm &amp; soft", "Five Stars", "")[c.number % 3]}
        for c in choices("2020-01-01", hours=50)
    ]  # fmt: skip
    save(folder, f"{category}.jsonl.gz", lines(reviews))
    save(folder, f"meta_{category}.jsonl.gz", lines(products))
