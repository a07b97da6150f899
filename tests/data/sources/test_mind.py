"""MIND: invented news and lists in the published format, and the genuine sample."""

from __future__ import annotations

from pathlib import Path

import pytest

from usermirror_gym.data import RecDataset, load_dataset, time_cut
from usermirror_gym.data.raw.fetch import fetch
from usermirror_gym.data.sources.base import Limits
from usermirror_gym.data.sources.mind import MIND
from usermirror_gym.errors import DataError

# 1573430400 is midnight of 2019-11-11, UTC.
LISTS = (
    "7\tU2\t11/11/2019 12:00:10 AM\tN3\tN1-0 N2-1\n"
    "8\tU1\t11/11/2019 12:00:20 PM\tN1 N2 N1\tN2-0 N1-0\n"
    "9\tU1\t11/11/2019 1:00:30 PM\tN1 N2 N1 N9\tN1-1 N2-1 N3-0\n"
)
NEWS = (
    "N1\tsports\tgolf\tA hole in one\tIt went in.\thttp://a\t[]\t[]\n"
    "N2\tnews\tworld\tA frog elected\t\thttp://b\t[]\t[]\n"
    "N3\tweather\tnow\tRain\tWet.\thttp://c\t[]\t[]\n"
)


def write(folder: Path, lists: str = LISTS, news: str = NEWS) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "behaviors.tsv").write_bytes(lists.encode())
    (folder / "news.tsv").write_bytes(news.encode())
    return folder


def kinds(data: RecDataset) -> dict[str, int]:
    return {repair.kind: repair.count for repair in data.repairs}


def rows(data: RecDataset) -> list[list[int]]:
    return data.interactions[["user_id", "item_id", "timestamp"]].to_numpy().tolist()


def test_lists_are_as_shown_with_any_number_of_clicks(tmp_path: Path) -> None:
    data = load_dataset("mind", write(tmp_path))
    assert data.domain == "news"
    lists = data.impressions
    assert lists is not None
    assert lists.names.tolist() == ["7", "8", "9"]
    assert lists.timestamps.tolist() == [1573430410, 1573473620, 1573477230]
    assert [[a.tolist() for a in lists.row(i)] for i in range(3)] == [
        [[1, 2], [False, True]], [[2, 1], [False, False]], [[1, 2, 3], [True, True, False]],
    ]  # fmt: skip
    assert data.repairs == ()


def test_history_comes_before_the_log_and_is_undated(tmp_path: Path) -> None:
    data = load_dataset("mind", write(tmp_path))
    u1, u2 = 2, 1
    begin = 1573430410
    history = data.interactions[data.interactions["undated"]]
    assert sorted(history[["user_id", "timestamp", "item_id"]].to_numpy().tolist()) == [
        [u2, begin - 1, 3], [u1, begin - 3, 1], [u1, begin - 2, 2], [u1, begin - 1, 1],
    ]  # fmt: skip
    clicks = data.interactions[~data.interactions["undated"]]
    assert clicks[["user_id", "item_id", "timestamp"]].to_numpy().tolist() == [
        [u2, 2, begin], [u1, 1, 1573477230], [u1, 2, 1573477230],
    ]  # fmt: skip
    assert time_cut(data, 0.5).t0 == 1573477230


def test_news(tmp_path: Path) -> None:
    items = load_dataset("mind", write(tmp_path)).items
    assert items["title"].tolist() == ["A hole in one", "A frog elected", "Rain"]
    assert items["category"].tolist() == ["sports", "news", "weather"]
    assert items["subcategory"].tolist() == ["golf", "world", "now"]
    assert items["abstract"].tolist() == ["It went in.", None, "Wet."]
    assert items["available_from"].tolist() == [1573430410, 1573430410, 1573477230]


TIMES = {
    "11/11/2019 12:00:10 AM": 1573430410,
    "11/11/2019 1:00:10 AM": 1573434010,
    "11/11/2019 11:59:59 AM": 1573473599,
    "11/11/2019 12:00:00 PM": 1573473600,
    "11/11/2019 2:14:46 PM": 1573481686,
    "11/9/2019 11:59:59 PM": 1573343999,
}


@pytest.mark.parametrize(("text", "seconds"), TIMES.items())
def test_morning_and_afternoon(tmp_path: Path, text: str, seconds: int) -> None:
    data = load_dataset("mind", write(tmp_path, f"1\tU1\t{text}\t\tN1-1\n"))
    assert rows(data) == [[1, 1, seconds]]


def test_parts_are_one_log_train_first(tmp_path: Path) -> None:
    more = (
        "1\tU1\t11/15/2019 8:00:00 AM\tN1 N2 N1 N9 N3\tN4-1 N1-0\n"
        "2\tU3\t11/15/2019 9:00:00 AM\tN4\tN3-1\n"
    )
    fourth = "N4\tnews\tlocal\tA late frog\tLate.\thttp://d\t[]\t[]\n"
    write(tmp_path / "MINDsmall_dev", more, NEWS + fourth)
    write(tmp_path / "MINDsmall_train")
    write(tmp_path / "MINDsmall_test", "1\tU9\t11/20/2019 8:00:00 AM\tN1\tN1 N2\n", NEWS)
    data = load_dataset("mind", tmp_path)
    assert data.items["token"].tolist() == ["N1", "N2", "N3", "N4"]
    assert data.users["token"].tolist() == ["U2", "U1", "U3"]
    assert data.impressions is not None
    assert data.impressions.names.tolist() == [
        "MINDsmall_train-7", "MINDsmall_train-8", "MINDsmall_train-9",
        "MINDsmall_dev-1", "MINDsmall_dev-2",
    ]  # fmt: skip
    undated = data.interactions[data.interactions["undated"]]
    # What the later history of U1 repeats is not counted again.
    assert undated.groupby("user_id").size().tolist() == [1, 3, 1]
    assert data.repairs == ()
    assert MIND().missing(tmp_path) == []
    assert MIND().missing(tmp_path / "MINDsmall_dev") == []
    assert MIND().missing(tmp_path / "nowhere") == ["behaviors.tsv", "news.tsv"]


def test_news_without_a_row_take_their_lists_along(tmp_path: Path) -> None:
    lists = LISTS + "10\tU1\t11/12/2019 1:00:30 PM\tN1\tN1-1 N9-0\n"
    data = load_dataset("mind", write(tmp_path, lists.replace("N1 N2 N1\t", "N9 N1\t")))
    assert data.impressions is not None
    assert len(data.impressions) == 3
    assert kinds(data) == {
        "event of an unknown item, dropped": 1,
        "item shown that is not in the catalog, its list dropped": 1,
    }
    assert [2, 1, 1573563630] in rows(data)  # the click itself is known


HOSTILE = {
    "no time": ("5\tU1\t\tN1\tN1-1", "list without a readable time"),
    "24 hours": ("5\tU1\t11/11/2019 14:00:00 PM\tN1\tN1-1", "list without a readable time"),
    "no AM or PM": ("5\tU1\t11/11/2019 2:00:00\tN1\tN1-1", "list without a readable time"),
    "no such day": ("5\tU1\t13/32/2019 2:00:00 PM\tN1\tN1-1", "list without a readable time"),
    "no marks": ("5\tU1\t11/11/2019 2:00:00 PM\tN1\tN1 N2", "list whose clicks cannot be read"),
    "other marks": ("5\tU1\t11/11/2019 2:00:00 PM\tN1\tN1-2", "list whose clicks cannot be read"),
    "no user": ("5\t \t11/11/2019 2:00:00 PM\tN1\tN1-1", "list without a user"),
    "nothing shown": ("5\tU1\t11/11/2019 2:00:00 PM\tN1\t", "empty list"),
    "shown twice": ("5\tU1\t11/11/2019 2:00:00 PM\tN1\tN1-0 N1-0", "item shown twice in one list"),
    "year 0": ("5\tU1\t11/11/0000 2:00:00 PM\tN1\tN1-1", "list without a readable time"),
    "a field short": ("5\tU1\t11/11/2019 2:00:00 PM\tN1-1", "row without 5 fields"),
    "NUL": ("5\tU1\t11/11/2019 2:00:00 PM\t\0\tN1-1", "line with NUL bytes"),
}


@pytest.mark.parametrize(("row", "kind"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_lists_are_counted(tmp_path: Path, row: str, kind: str) -> None:
    data = load_dataset("mind", write(tmp_path, LISTS + row + "\n"))
    assert data.impressions is not None
    assert len(data.impressions) == 3
    assert len(data.interactions) == 7
    (repair,) = data.repairs
    assert kind in repair.kind
    assert repair.count == 1


def test_hostile_news_are_counted(tmp_path: Path) -> None:
    news = NEWS + "N1\ta\tb\tAgain\t\t\t\t\nN5\tcut\n" + "N6\ta\tb\t \tx\t\t\t\n"
    data = load_dataset("mind", write(tmp_path, news=news))
    assert data.titles[1:] == ["A hole in one", "A frog elected", "Rain", "untitled N6"]
    assert kinds(data) == {
        "news without an id of its own, skipped": 1,
        "row without 8 fields, skipped": 1,
        "empty title, named after its id": 1,
    }


def test_limits_leave_users_and_their_lists_out(tmp_path: Path) -> None:
    limits = Limits(min_user=3)
    data = load_dataset("mind", write(tmp_path), limits=limits, bad_rows="raise")
    assert data.users["token"].tolist() == ["U1"]
    assert data.impressions is not None
    assert data.impressions.names.tolist() == ["8", "9"]
    assert data.n_items == 3


def test_users_who_never_clicked_stay(tmp_path: Path) -> None:
    lists = LISTS + "10\tU5\t11/12/2019 1:00:30 PM\t\tN1-0 N2-0\n"
    data = load_dataset("mind", write(tmp_path, lists))
    assert data.users["token"].tolist() == ["U2", "U1", "U5"]
    assert data.impressions is not None
    assert len(data.impressions) == 4


def test_a_log_without_clicks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no list of news with clicks"):
        load_dataset("mind", write(tmp_path, "1\tU1\t11/11/2019 2:00:00 PM\tN1\tN1 N2\n"))


def test_it_must_be_fetched_by_hand(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Accept the licence"):
        fetch(MIND(), tmp_path)


def test_genuine_counts(samples: Path) -> None:
    folder = samples / "mind"
    lines = (folder / "behaviors.tsv").read_text("utf-8").splitlines()
    shown = sum(len(line.split("\t")[4].split()) for line in lines)
    assert (len(lines), shown) == (2279, 94_260)
    data = load_dataset("mind", folder)
    assert (data.n_users, data.n_items) == (2146, 2000)
    # Few of the news have a row, so no list of the sample is complete.
    assert data.impressions is not None
    assert len(data.impressions) == 0
    assert set(kinds(data)) == {
        "event of an unknown item, dropped",
        "item shown that is not in the catalog, its list dropped",
    }
    assert data.items["available_from"].notna().sum() > 100
    dated = data.interactions.loc[~data.interactions["undated"], "timestamp"]
    assert dated.between(1_573_200_000, 1_573_800_000).all()  # 8 to 15 November 2019
