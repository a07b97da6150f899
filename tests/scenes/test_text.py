"""The words of each domain: one invented example each, and the films to the letter."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from usermirror_gym.configs import preset_names
from usermirror_gym.data import RecDataset, load_dataset
from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.scenes import domain_text

DAY = 86_400

# Of each domain: columns of one item, one interaction and one user, and how they read.
EXAMPLES: dict[str, dict[str, Any]] = {
    "movie": {
        "item": {"title": "Quiet Harbour", "year": 1971, "genres": "Drama, War"},
        "event": {"rating": 4.0},
        "user": {"gender": "F", "age": 35, "occupation": "librarian"},
        "option": "Quiet Harbour (1971), Drama, War",
        "past": "Quiet Harbour (1971), rated 4 of 5",
        "profile": "A woman, 35 years old, occupation librarian.",
    },
    "news": {
        "item": {
            "title": "Ferry kitchen reopens after the storm", "category": "foodanddrink",
            "subcategory": "newstrends", "abstract": "Soup is served again.",
        },
        "event": {},
        "user": {},
        "option": "Ferry kitchen reopens after the storm, section food and drink",
        "past": "Ferry kitchen reopens after the storm, section food and drink, 3 days ago",
        "profile": "",
    },
    "game": {
        "item": {
            "title": "Lantern Keep", "genres": "Adventure, Indie", "tags": "Puzzle, Short",
            "developer": "Two Owls", "publisher": "Owl House", "specs": "Single-player",
            "sentiment": "Very Positive", "price": 0.0, "release_year": 2016,
        },
        "event": {"hours": 12.25, "review": "Lovely\nlight."},
        "user": {"n_games": 1204},
        "option": "Lantern Keep (2016), Adventure, Indie, by Two Owls; tags: Puzzle, Short; "
        "features: Single-player; reviews: Very Positive; free",
        "past": 'Lantern Keep, Adventure, Indie; 12.25 hours played; my review: "Lovely light."',
        "profile": "Owns 1,204 games.",
    },
    "book": {
        "item": {
            "title": "The Salt Map", "author": "Ida Moor", "year": 2003, "publisher": "Gull Press",
            "pages": 312, "mean_rating": 4.1, "n_ratings": 10250,
            "description": "A cartographer returns to an island that moved.", "genres": "fantasy",
        },
        "event": {"rating": 5.0, "review": "Read it twice."},
        "user": {},
        "option": "The Salt Map, by Ida Moor; Gull Press, 2003, 312 pages; mean rating 4.10 of 5, "
        "10,250 ratings",
        "past": 'The Salt Map, by Ida Moor ("A cartographer returns to an island that moved."); '
        'rated 5 of 5; my review: "Read it twice."',
        "profile": "",
    },
    "music": {
        "item": {"title": "The Slow Lamps", "tags": "folk, calm"},
        "event": {"tag": "rainy day", "plays": 13},
        "user": {},
        "option": "The Slow Lamps; tags: folk, calm",
        "past": 'The Slow Lamps; I tagged it "rainy day", played 13 times',
        "profile": "",
    },
    "video": {
        "item": {
            "title": "Cat opens a door", "category": "pets / cats", "duration_seconds": 61.0,
            "n_plays": 20411.0, "n_likes": 812.0, "n_comments": 1.0, "n_shares": 0.0,
        },
        "event": {"watch_ratio": 1.37, "play_seconds": 83.6},
        "user": {"n_friends": 5, "n_following": 1, "n_followers": 12, "activity": "full_active"},
        "option": "Cat opens a door; pets / cats, 61 s; 20,411 plays, 812 likes, 1 comment, "
        "0 shares",
        "past": "Cat opens a door; pets / cats; watched 137% of it (84 s)",
        "profile": "5 friends, follows 1 account, 12 followers, fully active.",
    },
    "app": {
        "item": {
            "title": "Tide Times", "mean_rating": 4.3, "n_reviews": 1890, "category": "Weather",
            "developer": "Shoreline", "price": 2.5, "description": "High and low water.",
        },
        "event": {"rating": 3.0, "review": "Does what it says."},
        "user": {},
        "option": "Tide Times, Weather, by Shoreline; $2.50; mean rating 4.3 of 5, 1,890 reviews",
        "past": 'Tide Times, Weather ("High and low water."); rated 3 of 5; '
        'my review: "Does what it says."',
        "profile": "",
    },
    "product": {
        "item": {
            "title": "Wool socks, grey, 2 pairs", "category": "Clothing > Socks", "price": 1199.0,
            "mean_rating": 4.25, "n_ratings": 1, "store": "Hillside",
        },
        "event": {"rating": 2.0, "review_title": "Too thin", "review": "They wore out at once."},
        "user": {},
        "option": "Wool socks, grey, 2 pairs; Clothing > Socks; $1,199.00; mean rating 4.2 of 5, "
        "1 rating",
        "past": 'Wool socks, grey, 2 pairs; rated 2 of 5; my review: "Too thin"',
        "profile": "",
    },
}  # fmt: skip


def make(domain: str, item: dict, event: dict, user: dict, **more: Any) -> RecDataset:
    def table(row: dict, **ids: int) -> pd.DataFrame:
        return pd.DataFrame({name: [value] for name, value in {**ids, **row}.items()})

    return RecDataset.from_tables(
        "invented",
        domain,
        users=table(user, user_id=1),
        items=table({"title": "One", **item}, item_id=1),
        interactions=table(event, user_id=1, item_id=1, timestamp=5),
        **more,
    )


def test_every_domain_has_an_example() -> None:
    assert sorted(EXAMPLES) == preset_names("domains")


@pytest.mark.parametrize("domain", EXAMPLES)
def test_a_domain_reads_like_this(domain: str) -> None:
    example = EXAMPLES[domain]
    data = make(domain, example["item"], example["event"], example["user"])
    text = domain_text(data)
    (behaviour,) = text.behaviours(data.interactions)
    rating = data.interactions["rating"][0]
    assert text.option(1) == example["option"]
    assert text.past_item(1, rating, behaviour=behaviour, age=3 * DAY + 5) == example["past"]
    assert text.profile(1) == example["profile"]


@pytest.mark.parametrize("domain", EXAMPLES)
def test_a_log_may_know_nothing_but_titles(domain: str) -> None:
    data = make(domain, {"title": "Lantern Keep"}, {}, {})
    text = domain_text(data)
    assert text.title(1) == text.option(1) == "Lantern Keep"
    assert text.past_item(1, math.nan) == "Lantern Keep"
    assert text.behaviours(data.interactions) == [""]
    assert text.profile(1) == ("A person." if domain == "movie" else "")


@pytest.mark.parametrize("domain", EXAMPLES)
def test_padding_has_no_text(domain: str) -> None:
    text = domain_text(make(domain, EXAMPLES[domain]["item"], {}, {}))
    assert [text.title(0), text.option(0), text.past_item(0, 4.0), text.profile(0)] == [""] * 4


def test_no_rating_can_be_negative_zero_or_infinite() -> None:
    text = domain_text(make("movie", {}, {}, {}))
    assert text.past_item(1, -0.0) == "One, rated 0 of 5"
    assert text.past_item(1, math.inf) == text.past_item(1, math.nan) == "One"


def test_films_show_no_age_and_no_behaviour() -> None:
    """The default simulator was measured on these prompts."""
    text = domain_text(make("movie", {}, {}, {}))
    assert text.past_item(1, 4.0, behaviour="seen at home", age=DAY) == "One, rated 4 of 5"


def test_films_of_ml_100k_to_the_letter() -> None:
    data = load_dataset("ml-100k")
    text = domain_text(data)
    for item, row in data.items.iterrows():
        title = row["title"] + ("" if pd.isna(row["year"]) else f" ({row['year']})")
        title = title.replace("[", "(").replace("]", ")")
        assert text.title(item) == title
        assert text.option(item) == (f"{title}, {row['genres']}" if row["genres"] else title)
        for rating in (1.0, 3.5, 5.0):
            past = text.past_item(item, rating)
            assert past == f"{title}, rated {str(rating).removesuffix('.0')} of 5"
        assert text.past_item(item, math.nan) == title
    for user, row in data.users.iterrows():
        known = (
            "" if row["occupation"] in ("other", "none") else f", occupation {row['occupation']}"
        )
        noun = {"M": "man", "F": "woman"}[row["gender"]]
        assert text.profile(user) == f"A {noun}, {row['age']} years old{known}."
    assert data.n_items == 1682
    assert data.n_users == 943


def test_profiles_with_gaps() -> None:
    users = [
        ({"gender": None, "age": None, "occupation": "none"}, "A person."),
        ({"gender": "X", "age": 20.0, "occupation": "other"}, "A person, 20 years old."),
        ({"age": 7}, "A person, 7 years old."),
        ({"gender": "M", "occupation": "a" * 60}, f"A man, occupation {'a' * 39}…."),
    ]
    for user, expected in users:
        assert domain_text(make("movie", {}, {}, user)).profile(1) == expected


def test_an_unknown_domain_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown domain 'vidio'. Did you mean 'video'\?"):
        domain_text(make("vidio", {}, {}, {}))


WINE = {
    "noun": "wine",
    "past": "drank",
    "title": ["{title}"],
    "option": ["{title}", ", {grape}", ", {sweetness}"],
    "past_item": ["{title}", ", {ago}", ", {rating:.1f} points"],
    "values": {"sweetness": {"0": "dry", "3": "sweet"}},
}


def test_a_data_set_may_bring_its_own_template() -> None:
    data = make("wine", {"grape": "Riesling", "sweetness": 3}, {}, {}, template=WINE)
    text = domain_text(data)
    assert (text.noun, text.past) == ("wine", "drank")
    assert text.option(1) == "One, Riesling, sweet"
    assert text.past_item(1, 4.0, age=7200) == "One, 2 hours ago, 4.0 points"
    assert text.past_item(1, math.nan) == "One"


def test_a_misspelt_column_of_an_own_template_is_an_error() -> None:
    data = make("wine", {"grapes": "Riesling"}, {}, {}, template=WINE)
    with pytest.raises(ConfigError, match=r"data set 'invented', text 'option'.*mean 'grapes'\?"):
        domain_text(data)


def test_an_own_template_is_checked() -> None:
    data = make("wine", {}, {}, {}, template={**WINE, "option": ["{title}", ", {grape"]})
    with pytest.raises(ConfigError, match=r"data set 'invented', text 'option', segment 2: broken"):
        domain_text(data)


def test_titles_need_one_of_their_columns() -> None:
    data = make("wine", {"vineyard": "Hill"}, {}, {}, template={**WINE, "title": ["{cellar}"]})
    with pytest.raises(ConfigError, match=r"titles are made of \(cellar\).*vineyard"):
        domain_text(data)
