"""Amazon Reviews 2023: reviews and products of any of its 34 categories."""

from __future__ import annotations

import re
from collections.abc import Collection
from html import unescape
from pathlib import Path
from typing import Any

import pandas as pd

from usermirror_gym.data.raw.reading import ReadLog, find_file, read_json_lines
from usermirror_gym.data.raw.values import Numbers, identifier, joined, number, text
from usermirror_gym.data.sources.base import Download, Limits, Source, Tables
from usermirror_gym.data.sources.events import (
    Row,
    Values,
    item_table,
    read_events,
    unique_rows,
)
from usermirror_gym.errors import UnknownNameError
from usermirror_gym.types import ITEM_ID, RATING, TITLE, USER_ID

CATEGORIES = (
    "All_Beauty", "Amazon_Fashion", "Appliances", "Arts_Crafts_and_Sewing", "Automotive",
    "Baby_Products", "Beauty_and_Personal_Care", "Books", "CDs_and_Vinyl",
    "Cell_Phones_and_Accessories", "Clothing_Shoes_and_Jewelry", "Digital_Music", "Electronics",
    "Gift_Cards", "Grocery_and_Gourmet_Food", "Handmade_Products", "Health_and_Household",
    "Health_and_Personal_Care", "Home_and_Kitchen", "Industrial_and_Scientific", "Kindle_Store",
    "Magazine_Subscriptions", "Movies_and_TV", "Musical_Instruments", "Office_Products",
    "Patio_Lawn_and_Garden", "Pet_Supplies", "Software", "Sports_and_Outdoors",
    "Subscription_Boxes", "Tools_and_Home_Improvement", "Toys_and_Games", "Unknown", "Video_Games",
)  # fmt: skip
"""As published."""

PRESETS = {
    "amazon-beauty": "All_Beauty",
    "amazon-fashion": "Amazon_Fashion",
    "amazon-grocery": "Grocery_and_Gourmet_Food",
    "amazon-office": "Office_Products",
}
"""Short names of the four categories of the paper.

Its code names "Beauty" without saying which of the two published beauty categories is meant; the
smaller one stands beside Fashion in it.  The other is ``amazon:Beauty_and_Personal_Care``.
"""

_BREAK = re.compile(r"<br */?>", re.IGNORECASE)
_URL = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw/"


class Amazon(Source):
    """Products of one category and their reviews.

    Items: ``title, category`` (the path in the shop, else the main category), ``price`` (dollars),
    ``mean_rating, n_ratings, store``.  A product is a ``parent_asin``: its colours and sizes are
    one.  Interactions: ``rating`` (1 - 5), ``review_title, review``.  Users: nothing is known.

    Args:
        category: one of :data:`CATEGORIES`.
        name: of the data set; ``amazon:<category>`` by default.

    Raises:
        UnknownNameError: no such category.
    """

    domain = "product"
    title = "Amazon Reviews 2023"
    homepage = "https://amazon-reviews-2023.github.io/"
    terms = "The publisher states no licence; the texts are their authors'. Research use, citing."
    citation = (
        "Y. Hou et al., Bridging Language and Items for Retrieval and Recommendation, "
        "arXiv:2403.03952, 2024."
    )
    how_to_get = "The raw review and meta files of the category, from the homepage."
    # UserMirrorer, DataProcessor_Amazon: users and products of at least 5 reviews, users of at
    # most 20 (set, but not applied). It also keeps only the latest 30 % of the reviews and
    # products of at least 10 ratings with details, which is left to the user here.
    limits = Limits(min_user=5, max_user=20, min_item=5)

    def __init__(self, category: str, name: str | None = None) -> None:
        if category not in CATEGORIES:
            raise UnknownNameError("Amazon category", category, CATEGORIES)
        self.category = category
        self.name = name or f"amazon:{category}"
        self.files = (f"{category}.jsonl.gz", f"meta_{category}.jsonl.gz")
        self.downloads = (
            Download(f"{_URL}review_categories/{self.files[0]}"),
            Download(f"{_URL}meta_categories/{self.files[1]}"),
        )

    @classmethod
    def preset(cls, name: str) -> Amazon:
        """``amazon-beauty``, ``-fashion``, ``-grocery``, ``-office``, or ``amazon:<category>``.

        Raises:
            UnknownNameError: no such preset or category.
        """
        if name.startswith("amazon:"):
            return cls(name.removeprefix("amazon:"))
        if name not in PRESETS:
            raise UnknownNameError("Amazon preset", name, PRESETS)
        return cls(PRESETS[name], name)

    def read(self, folder: Path, log: ReadLog, limits: Limits) -> Tables:
        path, meta_path = (find_file(folder, name) for name in self.files)
        known = _product_lines(meta_path, log)
        numbers = Numbers(path, log)
        values: Values = {
            RATING: lambda e: numbers.real(e.line, "rating", e.row.get("rating"), 1, 5),
            "review_title": lambda e: _prose(e.row.get("title")),
            "review": lambda e: _prose(e.row.get("text")),
        }
        reviews = read_events(
            path, log, limits, read_json_lines, _ids, values, items=known, between=(1996, 2023)
        )
        wanted = known.values() if limits.min_item == 0 else map(known.get, reviews[ITEM_ID])
        products = read_products(meta_path, log, {line for line in wanted if line is not None})
        return Tables(pd.DataFrame({USER_ID: reviews[USER_ID].unique()}), products, reviews)


def read_products(path: Path, log: ReadLog, lines: Collection[int]) -> pd.DataFrame:
    """The products of the given lines of a meta file.

    Fields that a copy of the file lacks are empty.
    """
    numbers = Numbers(path, log)
    rows = [
        _facts(row, line, numbers) for line, row in read_json_lines(path, log.again(), lines=lines)
    ]
    return item_table(rows, path, real=("price", "mean_rating"), whole=("n_ratings",))


def _product_lines(path: Path, log: ReadLog) -> dict[str, int]:
    """The line of each product."""
    rows = read_json_lines(path, log)
    found = unique_rows(rows, "parent_asin", "product", path, log, name="title")
    return {product: line for line, _, product in found}


def _facts(row: dict[str, Any], line: int, numbers: Numbers) -> dict[str, Any]:
    return {
        ITEM_ID: identifier(row.get("parent_asin")),
        TITLE: text(row.get("title")),
        "category": joined(row.get("categories")) or text(row.get("main_category")),
        "price": numbers.real(line, "price", row.get("price"), 0),
        "mean_rating": numbers.real(line, "mean rating", row.get("average_rating"), 0, 5) or None,
        "n_ratings": numbers.whole(line, "number of ratings", row.get("rating_number"), 0),
        "store": text(row.get("store")),
    }


def _prose(value: object) -> str | None:
    """Reviews are published with the line breaks and entities of their web page."""
    return text(unescape(_BREAK.sub("\n", value))) if isinstance(value, str) else None


def _ids(row: Row) -> tuple[str | None, str | None, float | None]:
    milliseconds = number(row.get("timestamp"))
    seconds = None if milliseconds is None else milliseconds // 1000
    return identifier(row.get("user_id")), identifier(row.get("parent_asin")), seconds
