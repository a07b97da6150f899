"""Amazon Reviews 2023: invented rows in the published format, and the genuine excerpts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from usermirror_gym.data.raw.reading import ReadLog, read_json_lines
from usermirror_gym.data.sources.amazon import CATEGORIES, PRESETS, Amazon, read_products
from usermirror_gym.data.sources.base import Limits
from usermirror_gym.data.sources.events import Event, kept_events
from usermirror_gym.errors import DataError, UnknownNameError

Rows = list[Any]
Load = Callable[..., Any]


def review(user: str, product: str, time: object, **more: Any) -> dict[str, Any]:
    return {"rating": 4.0, "title": "Good", "text": "Fits.", "images": [], "asin": product + "X",
            "parent_asin": product, "user_id": user, "timestamp": time, "helpful_vote": 0,
            "verified_purchase": True, **more}  # fmt: skip


def product(number: str, **more: Any) -> dict[str, Any]:
    return {"main_category": "AMAZON FASHION", "title": f"Hat {number}", "average_rating": 4.5,
            "rating_number": 12, "features": [], "description": [], "price": 9.5, "images": [],
            "videos": [], "store": "Brim", "categories": ["Clothing", "Hats"], "details": {},
            "parent_asin": number, "bought_together": None, **more}  # fmt: skip


REVIEWS: Rows = [
    review("ann", "B1", 1583032084430),
    review("ann", "B2", 1583032085999, title=" ", text="Nice<br /><br/>&amp; <b>warm</b>"),
    review("bob", "B1", 1583032086000, rating="5"),
    review("ann", "B1", 1583032084430),
]
PRODUCTS: Rows = [
    product("B1"),
    product("B2", price="None", categories=[], store=None, average_rating=None),
    product("B3", price="$1,299.00"),
    product("B3", title="again"),
    product("B4", price="from 12.99"),
]


@pytest.fixture
def load(write_lines: Callable[..., Path]) -> Load:
    def _load(
        reviews: Rows = REVIEWS, products: Rows = PRODUCTS, limits: Limits | None = None
    ) -> Any:
        write_lines("Amazon_Fashion.jsonl.gz", reviews)
        folder = write_lines("meta_Amazon_Fashion.jsonl", products)
        return Amazon("Amazon_Fashion").load(folder, limits=limits or Limits())

    return _load


def kinds(data: Any) -> dict[str, int]:
    return {repair.kind: repair.count for repair in data.repairs}


def test_products(load: Load) -> None:
    items = load(limits=Limits(min_item=0)).items.set_index("token")
    assert items.loc["B1"].to_dict() == {
        "title": "Hat B1", "category": "Clothing, Hats", "price": 9.5, "mean_rating": 4.5,
        "n_ratings": 12, "store": "Brim",
    }  # fmt: skip
    assert items.loc["B2", "category"] == "AMAZON FASHION"
    assert items.loc["B2", ["price", "mean_rating", "store"]].isna().all()
    assert items.loc["B3", "price"] == 1299
    assert items.loc["B3", "title"] == "Hat B3"
    assert pd.isna(items.loc["B4", "price"])


def test_only_products_with_reviews_are_read_unless_asked(load: Load) -> None:
    assert load().items["token"].tolist() == ["B1", "B2"]
    assert load(limits=Limits(min_item=0)).n_items == 4


def test_reviews(load: Load) -> None:
    events = load().interactions
    assert events["timestamp"].tolist() == [1583032084, 1583032085, 1583032086]
    assert events["rating"].tolist() == [4, 4, 5]
    assert events["review_title"].tolist() == ["Good", None, "Good"]
    assert events["review"].tolist() == ["Fits.", "Nice\n\n& <b>warm</b>", "Fits."]


def test_what_was_skipped_or_mended_is_counted_once(load: Load) -> None:
    assert kinds(load(limits=Limits(min_item=0))) == {
        "product listed twice, kept once": 1,
        "duplicate interaction, skipped": 1,
        "price that cannot be used, left empty": 1,
    }


def test_limits_count_products_first_then_users(load: Load) -> None:
    data = load(limits=Limits(min_item=2))
    assert data.items["token"].tolist() == ["B1"]
    assert data.users["token"].tolist() == ["ann", "bob"]
    with pytest.raises(DataError, match="none of the 3 usable interactions"):
        load(limits=Limits(min_item=2, min_user=2))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"timestamp": 1583032084}, "interaction whose time is not in 1996-2023"),  # not ms
        ({"timestamp": 9583032084430}, "interaction whose time is not in 1996-2023"),
        ({"timestamp": None}, "interaction without a readable time"),
        ({"timestamp": "yesterday"}, "interaction without a readable time"),
        ({"parent_asin": "B9"}, "interaction with an item that is not in the catalog"),
        ({"user_id": ""}, "interaction without a user or an item"),
    ],
)
def test_hostile_reviews_are_counted(load: Load, change: dict[str, Any], kind: str) -> None:
    data = load(reviews=[*REVIEWS, review("eve", "B1", 1583032084430) | change])
    assert len(data.interactions) == 3
    assert [count for name, count in kinds(data).items() if name.startswith(kind)] == [1]


@pytest.mark.parametrize("value", ["null", '"None"', '"12.99"', "12.99", '"$12.99"'])
def test_every_form_of_a_price(load: Load, value: str) -> None:
    data = load(products=[product("B1", price=json.loads(value)), product("B2")])
    price = data.items["price"].tolist()[0]
    assert pd.isna(price) if "n" in value.lower() else price == 12.99
    assert not any("price" in kind for kind in kinds(data))


def test_fields_that_a_copy_lacks_are_empty(load: Load) -> None:
    data = load(products=[{"parent_asin": "B1", "title": "Hat"}, {"parent_asin": "B2"}])
    assert data.titles == ["", "Hat", "untitled B2"]
    assert data.items.drop(columns=["token", "title"]).isna().all(axis=None)


def test_a_line_of_another_file_is_found(load: Load) -> None:
    with pytest.raises(DataError, match=r"Amazon_Fashion\.jsonl\.gz: none of the 0 usable"):
        load(reviews=[{"reviewerID": "A1", "asin": "B1", "unixReviewTime": 1}])


def test_presets_and_names() -> None:
    source = Amazon.preset("amazon-fashion")
    assert (source.name, source.files) == (
        "amazon-fashion", ("Amazon_Fashion.jsonl.gz", "meta_Amazon_Fashion.jsonl.gz")
    )  # fmt: skip
    assert Amazon.preset("amazon:Books").name == "amazon:Books"
    assert len(CATEGORIES) == 34
    assert set(PRESETS.values()) <= set(CATEGORIES)
    with pytest.raises(UnknownNameError, match="Did you mean 'Office_Products'"):
        Amazon.preset("amazon:Office_Product")
    with pytest.raises(UnknownNameError, match="Did you mean 'amazon-beauty'"):
        Amazon.preset("amazon-beaty")


def test_the_genuine_reviews(samples: Path, tmp_path: Path) -> None:
    path = samples / "amazon_reviews_2023" / "Amazon_Fashion.jsonl"
    log = ReadLog()

    def read(log: ReadLog, lines: Container[int] | None) -> Iterator[Event]:
        for line, row in read_json_lines(path, log, lines=lines):
            yield Event(line, row["user_id"], row["parent_asin"], row["timestamp"], row)

    events = list(kept_events(read, Limits(), path, log))
    assert [repair.count for repair in log.repairs] == [252]
    assert len(events) == 4_748
    assert len({event.user for event in events}) == 1_873
    assert len({event.item for event in events}) == 4_459


def test_the_genuine_reviews_with_partial_meta(samples: Path, tmp_path: Path) -> None:
    folder = samples / "amazon_reviews_2023"
    shutil.copy(folder / "Amazon_Fashion.jsonl", tmp_path)
    shutil.copy(
        folder / "meta_Amazon_Fashion.PARTIAL.jsonl", tmp_path / "meta_Amazon_Fashion.jsonl"
    )
    data = Amazon.preset("amazon-fashion").load(tmp_path, limits=Limits())
    assert data.n_items == 4_128
    assert sum(kinds(data).values()) + len(data.interactions) == 5_000
    assert data.items[["mean_rating", "n_ratings"]].isna().all(axis=None)
    assert data.items["price"].notna().any()
    assert data.interactions["rating"].between(1, 5).all()
    years = pd.to_datetime(data.interactions["timestamp"], unit="s").dt.year
    assert years.between(2011, 2023).all()


def test_the_genuine_meta_lines(samples: Path) -> None:
    path = samples / "amazon_reviews_2023" / "meta_raw_lines.jsonl"
    log = ReadLog("raise")
    products = read_products(path, log, range(1, 6))
    assert len(products) == 5
    assert products.drop(columns="price").notna().all(axis=None)
    assert products["price"].notna().sum() == 1
