"""Last.fm: invented artists, tags and friends in the published format, and the genuine sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from usermirror_gym.data import RecDataset, load_dataset
from usermirror_gym.data.sources.base import Limits
from usermirror_gym.errors import DataError

# 1230768000000 is midnight of 2009-01-01, UTC.
FILES = {
    "artists.dat": "id\tname\turl\tpictureURL\n1\tFröschel\thttp://a\thttp://b\n"
    "2\tNull\thttp://a\t\n3\tNobody's Tag\thttp://a\t\n",
    "tags.dat": "tagID\ttagValue\r\n10\tcafé\r\n11\tloud\r\n12\tquiet\r\n",
    "user_artists.dat": "userID\tartistID\tweight\r\n5\t1\t70\r\n6\t3\t9\r\n",
    "user_friends.dat": "userID\tfriendID\r\n5\t6\r\n",
    "user_taggedartists-timestamps.dat": "userID\tartistID\ttagID\ttimestamp\r\n"
    "5\t1\t11\t1230768060000\r\n5\t1\t10\t1230768000999\r\n6\t1\t10\t1230768120000\r\n"
    "6\t2\t12\t1230768180000\r\n",
}


def write(folder: Path, **changed: str) -> Path:
    for name, text in FILES.items():
        text = changed.get(name.split(".")[0].replace("-", "_"), text)
        encoding = "latin-1" if name == "tags.dat" else "utf-8"
        (folder / name).write_bytes(text.encode(encoding, "surrogateescape"))
    return folder


def kinds(data: RecDataset) -> dict[str, int]:
    return {repair.kind: repair.count for repair in data.repairs}


def test_a_choice_is_the_first_tag_of_an_artist(tmp_path: Path) -> None:
    data = load_dataset("lastfm", write(tmp_path))
    assert data.domain == "music"
    assert data.titles == ["", "Fröschel", "Null"]
    rows = data.interactions[["user_id", "item_id", "timestamp"]].to_numpy().tolist()
    assert rows == [[1, 1, 1230768000], [2, 1, 1230768120], [2, 2, 1230768180]]
    assert data.interactions["tag"].tolist() == ["loud, café", "café", "quiet"]
    assert data.interactions["plays"].fillna(-1).tolist() == [70, -1, -1]
    assert data.repairs == ()


def test_tags_of_an_artist_are_those_of_most_users(tmp_path: Path) -> None:
    items = load_dataset("lastfm", write(tmp_path)).items
    assert items["tags"].tolist() == ["café, loud", "quiet"]


def test_friends_are_friends_of_each_other(tmp_path: Path) -> None:
    friends = load_dataset("lastfm", write(tmp_path)).friends
    assert friends is not None
    assert friends.to_numpy().tolist() == [[1, 2], [2, 1]]


def test_line_ends_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    turned = {n.split(".")[0].replace("-", "_"): t.replace("\r\n", "\n") for n, t in FILES.items()}
    one = load_dataset("lastfm", write(tmp_path / "a"))
    two = load_dataset("lastfm", write(tmp_path / "b", **turned))
    assert one.interactions.equals(two.interactions)


def test_who_is_left_out_by_limits_is_no_repair(tmp_path: Path) -> None:
    data = load_dataset("lastfm", write(tmp_path), limits=Limits(min_user=2), bad_rows="raise")
    assert data.users["token"].tolist() == ["6"]
    assert data.friends is not None
    assert data.friends.empty


def test_unused_artists_are_kept_on_request(tmp_path: Path) -> None:
    data = load_dataset("lastfm", write(tmp_path), limits=Limits(min_item=0))
    assert data.titles[3] == "Nobody's Tag"


TAGGED = FILES["user_taggedartists-timestamps.dat"]
HOSTILE = {
    "artist without a row": ("5\t99\t10\t1230768000000", "item that is not in the catalog"),
    "long before Last.fm": ("5\t2\t10\t-428720400000", "time is not in 2002-2011"),
    "in the future": ("5\t2\t10\t4102444800000", "time is not in 2002-2011"),
    "seconds": ("5\t2\t10\t1230768000", "time is not in 2002-2011"),
    "no time": ("5\t2\t10\t", "without a readable time"),
    "words": ("5\t2\t10\tyesterday", "without a readable time"),
    "no user": ("\t2\t10\t1230768000000", "without a user or an item"),
    "cut": ("5\t2\t10", "row without 4 fields"),
    "NUL": ("5\t2\t10\t12307\x0068000000", "line with NUL bytes"),
}


@pytest.mark.parametrize(("row", "kind"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_rows_are_counted(tmp_path: Path, row: str, kind: str) -> None:
    data = load_dataset(
        "lastfm", write(tmp_path, user_taggedartists_timestamps=TAGGED + row + "\r\n")
    )
    assert len(data.interactions) == 3
    (repair,) = data.repairs
    assert kind in repair.kind
    assert repair.count == 1
    assert repair.examples[0].startswith("user_taggedartists-timestamps.dat:6")


def test_a_tag_without_a_name_leaves_its_interaction(tmp_path: Path) -> None:
    row = "6\t2\t99\t1230768000000\r\n"
    data = load_dataset("lastfm", write(tmp_path, user_taggedartists_timestamps=TAGGED + row))
    assert kinds(data) == {"tag without a name, left empty": 1}
    assert data.interactions["timestamp"].min() == 1230768000


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"user_artists": FILES["user_artists.dat"] + "5\t2\tmany\r\n"}, "number of plays that"),
        ({"user_friends": FILES["user_friends.dat"] + "5\t77\r\n"}, "friend of or to an unknown"),
        ({"artists": FILES["artists.dat"] + "1\tAgain\tu\tp\n"}, "name without an id of its own"),
        ({"artists": FILES["artists.dat"].replace("Null", "")}, "empty title"),
        ({"artists": FILES["artists.dat"].replace("Frö", "Fr\udcf6")}, "not utf-8, read as Win"),
    ],
)
def test_other_files_are_mended_and_counted(
    tmp_path: Path, changed: dict[str, str], kind: str
) -> None:
    data = load_dataset("lastfm", write(tmp_path, **changed))
    assert any(kind in found for found in kinds(data)), kinds(data)
    assert len(data.interactions) == 3
    assert data.titles[1] == "Fröschel"


@pytest.mark.parametrize("name", FILES)
def test_missing_or_empty_files_are_named(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path)
    (folder / name).write_bytes(b"")
    with pytest.raises(DataError, match=rf"{name} is empty"):
        load_dataset("lastfm", folder)
    (folder / name).unlink()
    with pytest.raises(DataError, match=rf"{name} is missing"):
        load_dataset("lastfm", folder)


def test_a_renamed_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"artists\.dat, line 1: missing column\(s\) \['name'\]"):
        load_dataset("lastfm", write(tmp_path, artists="id\tartist\turl\tp\n1\tA\tu\tp\n"))


@pytest.fixture(scope="module")
def real() -> Any:
    folder = Path(__file__).resolve().parents[4] / "shared" / "data" / "lastfm"
    if not folder.is_dir():
        pytest.skip(f"no sample at {folder}")
    return folder, load_dataset("lastfm", folder, limits=Limits(min_item=0))


def test_genuine_counts(real: tuple[Path, RecDataset]) -> None:
    folder, data = real
    assert (data.n_users, data.n_items) == (300, 5791)
    assert data.friends is not None
    assert len(data.friends) == 3106  # published in both directions
    assert kinds(data) == {"interaction with an item that is not in the catalog, skipped": 100}
    lines = (folder / "user_taggedartists-timestamps.dat").read_text().splitlines()[1:]
    pairs = {tuple(line.split("\t")[:2]) for line in lines}
    listed = set(data.items["token"])
    assert (len(lines), len(pairs)) == (17_901, 6_916)
    assert len(data.interactions) == sum(artist in listed for _, artist in pairs) == 6_864


def test_genuine_values(real: tuple[Path, RecDataset]) -> None:
    _, data = real
    plays = data.interactions["plays"]
    assert 0 < plays.notna().sum() < len(plays)
    assert plays.dropna().ge(1).all()
    assert data.interactions["tag"].notna().all()
    assert data.interactions["timestamp"].between(1_100_000_000, 1_310_000_000).all()
    assert data.items["tags"].notna().any()
