"""MovieLens-100K as RecBole's wheel carries it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from usermirror_gym.data import RecDataset, load_dataset, time_cut
from usermirror_gym.errors import DataError
from usermirror_gym.scenes import Rankers, ScenePlan, draw_scenes


@pytest.fixture(scope="module")
def data() -> RecDataset:
    return load_dataset("ml-100k")


def test_published_counts(data: RecDataset) -> None:
    assert (data.n_users, data.n_items, len(data.interactions)) == (943, 1682, 100_000)
    assert data.domain == "movie"


def test_no_padding_row_and_ids_without_gaps(data: RecDataset) -> None:
    assert data.users.index.tolist() == list(range(1, 944))
    assert data.items.index.tolist() == list(range(1, 1683))
    for column, n in (("user_id", 943), ("item_id", 1682)):
        assert set(data.interactions[column]) == set(range(1, n + 1))
    assert not set(data.items["token"]) & {"", "[PAD]", "0"}


def test_the_nameless_item_is_the_only_repair(data: RecDataset) -> None:
    (repair,) = data.repairs
    assert repair.examples == ("267",)
    item = data.items[data.items["token"] == "267"].iloc[0]
    assert item["title"] == "untitled 267"
    assert item["genres"] == ""


def test_titles_are_natural(data: RecDataset) -> None:
    titles = data.titles[1:]
    assert all(title == title.strip() != "" for title in titles)
    inverted = [t for t in titles if re.search(r", (The|A|An|Les|La|Le|L'|Das|Der|Die|Il)\)?$", t)]
    assert inverted == []
    assert {"The Birdcage", "Toy Story", "L'Enfer", "Bye Bye, Love"} <= set(titles)


def test_features_are_typed(data: RecDataset) -> None:
    assert data.items["year"].dropna().between(1900, 1998).all()
    assert data.users["age"].between(5, 100).all()
    assert set(data.users["gender"]) == {"M", "F"}
    assert "Action, Adventure" in " / ".join(data.items["genres"])
    assert set(data.interactions["rating"]) == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert np.all(np.diff(data.interactions["timestamp"]) >= 0)


def test_a_film_is_on_offer_from_the_year_of_its_release(data: RecDataset) -> None:
    since = data.items["available_from"]
    assert since.dtype == "Int64"
    assert since.isna().tolist() == data.items["year"].isna().tolist()
    known = pd.to_datetime(since.dropna().astype("int64"), unit="s")
    assert (known.dt.year == data.items["year"].dropna()).all()
    assert (known.dt.dayofyear == 1).all()
    assert since.min() < 0  # before 1970


def test_a_rating_before_the_release_is_counted_and_no_choice(data: RecDataset) -> None:
    rankers = Rankers(time_cut(data))
    columns = draw_scenes(rankers, ScenePlan(count=2000), (None, rankers.split.t0))
    assert columns.dropped["choice logged before its item was published"] > 0
    since = data.items["available_from"].fillna(0).to_numpy(np.int64)
    assert (since[columns.slates - 1] <= columns.timestamps[:, None]).all()
    early = data.interactions
    # Films of 1998 that were seen, and dated, in 1997.
    assert (since[early["item_id"] - 1] > early["timestamp"]).sum() < 50


def test_loading_twice_gives_the_same_ids(data: RecDataset) -> None:
    again = load_dataset()
    assert again.items["token"].tolist() == data.items["token"].tolist()
    assert again.interactions.equals(data.interactions)


def test_folder_without_the_files_is_an_error_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(str(tmp_path / "u.data"))):
        load_dataset("ml-100k", tmp_path)


# Invented films and ratings in the published format: "|", latin-1, no header.
PUBLISHED = {
    "u.data": "1\t2\t4\t880000000\n2\t1\t5\t880000001\n",
    "u.user": "1|33|F|writer|00001\n2|44|M|other|00002\n",
    "u.item": "1|Café, The (1993)|01-Jan-1993||http://a|0|1|0|0|0|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
    "2|unknown||||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n",
}


def test_published_files_in_a_folder(tmp_path: Path) -> None:
    for name, text in PUBLISHED.items():
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    data = load_dataset("ml-100k", tmp_path)
    assert data.titles == ["", "The Café", "untitled 2"]
    assert data.items["genres"].tolist() == ["Action, Comedy", ""]
    assert data.items["year"].fillna(0).tolist() == [1993, 0]
    assert data.items["available_from"].fillna(0).tolist() == [725846400, 0]
    assert data.users["age"].tolist() == [33, 44]
    assert data.interactions["rating"].tolist() == [4.0, 5.0]
    (tmp_path / "u.item").write_text("1|a|b\n")
    with pytest.raises(DataError, match=r"u\.item, line 1: 3 fields, expected 24"):
        load_dataset("ml-100k", tmp_path)


def test_published_files_and_the_wheel_give_the_same(data: RecDataset) -> None:
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / "ml-100k"
    if not folder.is_dir():
        pytest.skip(f"no published files at {folder}")
    other = load_dataset("ml-100k", folder)
    assert other.users.equals(data.users)
    assert other.interactions.equals(data.interactions)
    no_time = {"year": 0, "available_from": 0}
    different = (other.items.fillna(no_time) != data.items.fillna(no_time)).any(axis=1)
    assert data.items.loc[different, "token"].tolist() == ["1412"]
    assert other.items.loc[different, "year"].tolist() == [1995]
