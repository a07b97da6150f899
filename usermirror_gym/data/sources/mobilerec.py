"""MobileRec: 19.3 million reviews of 10,173 Android apps by 0.7 million users."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from usermirror_gym.data.raw.reading import ReadLog, find_file, read_csv_rows
from usermirror_gym.data.raw.values import Numbers, csv_text, number
from usermirror_gym.data.sources.base import Download, Limits, Source, Tables
from usermirror_gym.data.sources.events import (
    Row,
    Values,
    item_table,
    kept_items,
    read_events,
    unique_rows,
)
from usermirror_gym.types import ITEM_ID, RATING, TITLE, USER_ID

_URL = "https://huggingface.co/datasets/recmeapp/mobilerec/resolve/main/"
_REVIEW_COLUMNS = ("app_package", "uid", "unix_timestamp", "rating", "review")
_APP_COLUMNS = (
    "app_package", "app_name", "developer_name", "app_category", "description", "num_reviews",
    "price", "avg_rating",
)  # fmt: skip


class MobileRec(Source):
    """Apps of Google Play and their reviews.

    Items: ``title, mean_rating, n_reviews, category, developer, price`` (dollars; 0 is free) and
    ``description``.  Interactions: ``rating`` (1 - 5) and ``review``; times are days.  Users:
    nothing is known of them.
    """

    name = "mobilerec"
    domain = "app"
    title = "MobileRec"
    homepage = "https://github.com/mhmaqbool/mobilerec"
    terms = "The publisher states no licence. Research use, citing."
    citation = (
        "M. H. Maqbool et al., MobileRec: A Large-Scale Dataset for Mobile Apps Recommendation, "
        "SIGIR 2023."
    )
    files = ("interactions/mobilerec_final.csv", "app_meta/app_meta.csv")
    downloads = tuple(Download(_URL + name) for name in files)
    how_to_get = (
        "hf download recmeapp/mobilerec interactions/mobilerec_final.csv app_meta/app_meta.csv "
        "--repo-type dataset --local-dir FOLDER (4.4 GB)"
    )
    # UserMirrorer, DataProcessor_MobileRec, sets 5 to 20 (of the first 100,000 rows only) but does
    # not apply it; the published log has users of at least 5 apps.
    limits = Limits(min_user=5, max_user=20, min_item=0)

    def read(self, folder: Path, log: ReadLog, limits: Limits) -> Tables:
        path, apps_path = (find_file(folder, name) for name in self.files)
        apps = _read_apps(apps_path, log)
        rows = partial(read_csv_rows, columns=_REVIEW_COLUMNS)
        numbers = Numbers(path, log)
        values: Values = {
            RATING: lambda e: numbers.real(e.line, "rating", e.row["rating"], 1, 5),
            "review": lambda e: csv_text(e.row["review"]),
        }
        reviews = read_events(
            path, log, limits, rows, _ids, values, items=set(apps[ITEM_ID]), between=(2008, 2023)
        )
        users = pd.DataFrame({USER_ID: reviews[USER_ID].unique()})
        return Tables(users, kept_items(apps, reviews, limits), reviews)


def _ids(row: Row) -> tuple[str | None, str | None, float | None]:
    return csv_text(row["uid"]), csv_text(row["app_package"]), number(row["unix_timestamp"])


def _read_apps(path: Path, log: ReadLog) -> pd.DataFrame:
    numbers = Numbers(path, log)
    rows = unique_rows(
        read_csv_rows(path, log, columns=_APP_COLUMNS), "app_package", "app", path, log,
        name="app_name", key=csv_text,
    )  # fmt: skip
    apps = [{ITEM_ID: app, **_facts(row, line, numbers)} for line, row, app in rows]
    return item_table(apps, path, real=("mean_rating", "price"), whole=("n_reviews",))


def _facts(row: dict[str, str], line: int, numbers: Numbers) -> dict[str, Any]:
    # The price column holds the label of the shop's button: "Install", or "$4.99 Buy".
    price = row["price"].strip().removesuffix("Buy")
    return {
        TITLE: csv_text(row["app_name"]),
        "mean_rating": numbers.real(line, "mean rating", row["avg_rating"], 0, 5) or None,
        "n_reviews": numbers.whole(line, "number of reviews", row["num_reviews"], 0),
        "category": csv_text(row["app_category"]),
        "developer": csv_text(row["developer_name"]),
        "price": 0.0 if price == "Install" else numbers.real(line, "price", price, 0),
        "description": csv_text(row["description"]),
    }
