"""MobileRec: invented apps and reviews in the published format, and the genuine row."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from usermirror_gym.data.sources.base import Limits
from usermirror_gym.data.sources.mobilerec import MobileRec
from usermirror_gym.errors import DataError

REVIEW_HEADER = "app_package,review,rating,votes,date,uid,formated_date,unix_timestamp,app_category"
REVIEWS = (
    'org.frog,"Hop, hop\nand ""hop""",5,1,"October 21, 2018",u1,2018-10-21,1540080000.0,Casual\n'
    'org.pond,,2,0,"October 22, 2018",u1,2018-10-22,1540166400.0,Tools\n'
    'org.frog,nan,4,0,"October 23, 2018",u2,2018-10-23,1540252800.0,Casual\n'
)
APP_HEADER = (
    "app_package,app_name,developer_name,app_category,description,content_rating,num_reviews,"
    "price,avg_rating"
)
APPS = (
    'org.frog,Frog,Pond Ltd,Casual,"Jump, then\neat.",Everyone,"1,234,567",Install,4.5\n'
    "org.pond,Pond,None,Tools,,Teen,0,$4.99 Buy,0.0\n"
    "org.lake,Lake,Pond Ltd,Tools,Deep.,Teen,many,soon,9.5\n"
)
Load = Callable[..., Any]


@pytest.fixture
def load(write_lines: Callable[..., Path]) -> Load:
    def _load(
        reviews: str = REVIEWS, apps: str = APPS, limits: Limits | None = None,
        headers: tuple[str, str] = (REVIEW_HEADER, APP_HEADER),
    ) -> Any:  # fmt: skip
        write_lines("interactions/mobilerec_final.csv", [headers[0], reviews.rstrip("\n")])
        folder = write_lines("app_meta/app_meta.csv", [headers[1], apps.rstrip("\n")])
        return MobileRec().load(folder, limits=limits or Limits(min_item=0))

    return _load


def kinds(data: Any) -> dict[str, int]:
    return {repair.kind: repair.count for repair in data.repairs}


def test_apps(load: Load) -> None:
    data = load()
    items = data.items.set_index("token")
    assert items.loc["org.frog"].to_dict() == {
        "title": "Frog", "mean_rating": 4.5, "n_reviews": 1234567, "category": "Casual",
        "developer": "Pond Ltd", "price": 0.0, "description": "Jump, then\neat.",
    }  # fmt: skip
    assert items.loc["org.pond", "price"] == 4.99
    assert items.loc["org.pond", ["developer", "description", "mean_rating"]].isna().all()
    assert items.loc["org.lake", ["price", "n_reviews", "mean_rating"]].isna().all()
    assert kinds(data) == {
        "price that cannot be used, left empty": 1,
        "number of reviews that cannot be used, left empty": 1,
        "mean rating that cannot be used, left empty": 1,
    }


def test_reviews(load: Load) -> None:
    events = load().interactions
    assert events["timestamp"].tolist() == [1540080000, 1540166400, 1540252800]
    assert events["rating"].tolist() == [5, 2, 4]
    assert events["review"].tolist() == ['Hop, hop\nand "hop"', None, None]


def test_limits(load: Load) -> None:
    data = load(limits=Limits(min_user=2))
    assert data.users["token"].tolist() == ["u1"]
    assert data.items["token"].tolist() == ["org.frog", "org.pond"]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("org.frog,x,5,1,d,u9,d,1e15,Casual", "interaction whose time is not in 2008-2023"),
        ("org.frog,x,5,1,d,u9,d,0,Casual", "interaction whose time is not in 2008-2023"),
        ("org.frog,x,5,1,d,u9,d,soon,Casual", "interaction without a readable time"),
        ("org.frog,x,5,1,d,,d,1540080000,Casual", "interaction without a user or an item"),
        ("org.none,x,5,1,d,u9,d,1540080000,Casual", "interaction with an item that is not in"),
        ("org.frog,x,5", "row without 9 fields"),
        ("org.frog,a\0b,5,1,d,u9,d,1540080000,Casual", "line with NUL bytes"),
    ],
)
def test_hostile_rows_are_counted_with_their_line(load: Load, row: str, kind: str) -> None:
    data = load(reviews=REVIEWS + row + "\n")
    assert len(data.interactions) == 3
    (repair,) = [repair for repair in data.repairs if repair.kind.startswith(kind)]
    assert repair.count == 1
    assert repair.examples[0].startswith("mobilerec_final.csv:6")


def test_a_rating_that_cannot_be_is_empty_and_counted(load: Load) -> None:
    data = load(reviews=REVIEWS.replace(",5,1,", ",50,1,"))
    assert data.interactions["rating"].isna().tolist() == [True, False, False]
    assert kinds(data)["rating that cannot be used, left empty"] == 1


def test_missing_columns_are_named(load: Load) -> None:
    with pytest.raises(DataError, match=r"mobilerec_final\.csv, line 1: missing .*'uid'"):
        load(headers=(REVIEW_HEADER.replace("uid", "user"), APP_HEADER))
    with pytest.raises(DataError, match=r"app_meta\.csv, line 1: missing .*Did you mean 'app_nam'"):
        load(headers=(REVIEW_HEADER, APP_HEADER.replace("app_name", "app_nam")))


def test_missing_and_empty_files_are_named(load: Load, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mobilerec_final\.csv is missing .* no such folder"):
        MobileRec().load(tmp_path)
    load()
    (tmp_path / "app_meta" / "app_meta.csv").write_text("")
    with pytest.raises(DataError, match=r"app_meta\.csv is empty"):
        MobileRec().load(tmp_path)


def test_the_genuine_row(samples: Path, tmp_path: Path) -> None:
    source = samples / "mobilerec" / "interactions" / "mobilerec_final.csv"
    with source.open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    for name, content in (
        ("interactions/mobilerec_final.csv", source.read_bytes()),
        ("app_meta/app_meta.csv", f"{APP_HEADER}\n{row['app_package']},A,,,,,,,\n".encode()),
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(content)
    data = MobileRec().load(tmp_path, limits=Limits())
    (event,) = data.interactions.to_dict("records")
    assert data.users["token"].tolist() == [row["uid"]]
    assert pd.Timestamp(event["timestamp"], unit="s").date().isoformat() == row["formated_date"]
    assert event["rating"] == float(row["rating"])
    assert event["review"] == row["review"]
    assert data.repairs == ()
