"""KuaiRec: invented videos and views in the published format, and three genuine files."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest

from usermirror_gym.data import RecDataset, load_dataset
from usermirror_gym.data.raw.reading import ReadLog
from usermirror_gym.data.sources.base import Limits
from usermirror_gym.data.sources.kuairec import (
    KuaiRec,
    read_captions,
    read_category_ids,
    read_users,
)
from usermirror_gym.errors import ConfigError, DataError, UnknownNameError

VIEWS = (
    "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
    "0,3,9000,6000,2020-07-05 00:08:23.438,20200705,1593878903.438,1.5\n"
    "0,4,600,6000,2020-07-05 00:09:23.438,20200705,1593878963.438,0.1\n"
    "1,4,6000,6000,2020-07-06 00:08:23.438,20200706,1593965303.438,1.0\n"
    "1,10,30000,20000,2020-07-07 00:08:23.438,20200707,1594051703.438,1.5\n"
)
DAILY_HEADER = (
    "video_id,date,author_id,video_type,upload_dt,upload_type,video_duration,play_cnt,like_cnt,"
    "comment_cnt,share_cnt\n"
)
CAPTION_HEADER = (
    "video_id,manual_cover_text,caption,topic_tag,first_level_category_id,"
    "first_level_category_name,second_level_category_id,second_level_category_name,"
    "third_level_category_id,third_level_category_name\n"
)
FILES = {
    "big_matrix.csv": VIEWS,
    "user_features.csv": (
        "user_id,user_active_degree,is_lowactive_period,follow_user_num,fans_user_num,"
        "friend_user_num,register_days\n"
        "0,full_active,0,5,7,2,107\n1,UNKNOWN,0,0,0,1,300\n2,high_active,0,1,1,1,1\n"
    ),
    "social_network.csv": 'user_id,friend_list\n0,"[1, 2]"\n1,[0]\n',
    "item_categories.csv": 'video_id,feat\n3,[8]\n4,"[27, 9]"\n10,[5]\n11,[5]\n',
    "item_daily_features.csv": DAILY_HEADER
    + "3,20200706,1,NORMAL,2020-03-30,Short,6000.0,900,90,9,1\n"
    + "3,20200705,1,NORMAL,2020-03-30,Short,6000.0,400,40,4,0\n"
    + "4,20200705,1,NORMAL,2020-07-05,Short,,10,1,0,0\n",
    "kuairec_caption_category.csv": CAPTION_HEADER
    + '3,UNKNOWN,"A frog, ""hops""\x0b\x85 on\u2028",[],8,Animals,9,Frogs,-124,UNKNOWN\n'
    + "4,UNKNOWN,,[],27,Tools,-124,UNKNOWN,-124,UNKNOWN\n"
    + "10,UNKNOWN,None,[],-124,UNKNOWN,-124,UNKNOWN,-124,UNKNOWN\n"
    + "11,UNKNOWN,Never seen,[],5,Music,-124,UNKNOWN,-124,UNKNOWN\n",
}


def write(folder: Path, changed: dict[str, str] | None = None) -> Path:
    for name, text in {**FILES, **(changed or {})}.items():
        (folder / name).write_bytes(text.encode())
    return folder


def kinds(data: RecDataset) -> dict[str, int]:
    return {repair.kind: repair.count for repair in data.repairs}


def test_a_choice_is_a_video_seen_to_its_end(tmp_path: Path) -> None:
    data = load_dataset("kuairec", write(tmp_path))
    assert data.domain == "video"
    assert data.interactions.drop(columns="rating").to_numpy().tolist() == [
        [1, 1, 1593878903, 1.5, 9.0], [2, 2, 1593965303, 1.0, 6.0], [2, 3, 1594051703, 1.5, 30.0],
    ]  # fmt: skip
    everything = KuaiRec(min_watch_ratio=0).load(tmp_path)
    assert everything.interactions["watch_ratio"].tolist() == [1.5, 0.1, 1.0, 1.5]


def test_videos(tmp_path: Path) -> None:
    data = load_dataset("kuairec", write(tmp_path))
    assert data.items["token"].tolist() == ["3", "4", "10"]
    assert data.titles[1:] == ['A frog, "hops"\x0b\x85 on', "Tools", "untitled 10"]
    assert data.items["category"].fillna("-").tolist() == ["Animals / Frogs", "-", "-"]
    assert data.items["category_ids"].tolist() == ["8", "27, 9", "5"]
    assert data.items["duration_seconds"].fillna(-1).tolist() == [6.0, -1, -1]
    # 2020-03-30 00:00 in China is 16:00 UTC of the day before.
    assert data.items["available_from"].fillna(-1).tolist() == [1585497600, 1593878400, -1]
    assert kinds(data) == {"empty title, named after its id": 1}


def test_counts_are_those_of_the_first_day(tmp_path: Path) -> None:
    items = load_dataset("kuairec", write(tmp_path)).items
    assert items.iloc[0][["n_plays", "n_likes", "n_comments", "n_shares"]].tolist() == [
        400, 40, 4, 0,
    ]  # fmt: skip


def test_users_and_their_friends(tmp_path: Path) -> None:
    data = load_dataset("kuairec", write(tmp_path))
    assert data.users.drop(columns="token").fillna("-").to_numpy().tolist() == [
        [2, 5, 7, "full_active"], [1, 0, 0, "-"],
    ]  # fmt: skip
    assert data.friends is not None
    assert data.friends.to_numpy().tolist() == [[1, 2], [2, 1]]  # user 2 watched nothing
    assert "friend" not in " ".join(kinds(data))


def test_friends_who_are_no_users_are_counted(tmp_path: Path) -> None:
    network = FILES["social_network.csv"] + "1,[77]\n"
    data = load_dataset("kuairec", write(tmp_path, {"social_network.csv": network}))
    assert kinds(data)["friend of or to an unknown user, dropped"] == 2  # one a direction


def test_a_carriage_return_does_not_end_a_caption(tmp_path: Path) -> None:
    captions = FILES["kuairec_caption_category.csv"].replace("4,UNKNOWN,,", "4,UNKNOWN,two\rparts,")
    data = load_dataset("kuairec", write(tmp_path, {"kuairec_caption_category.csv": captions}))
    assert data.titles[2] == "two parts"


def test_small_matrix_has_views_without_time(tmp_path: Path) -> None:
    small = VIEWS + "1,3,6000,6000,,,,1.2\n" + "1,3,6000,6000,nan,nan,nan,1.2\n"
    source = KuaiRec("small")
    data = source.load(write(tmp_path, {"small_matrix.csv": small}))
    assert data.name == "kuairec-small"
    assert kinds(data)["view without a readable time, skipped"] == 2
    assert len(data.interactions) == 3
    assert source.files[0] == "small_matrix.csv"


def test_limits_and_unused_videos(tmp_path: Path) -> None:
    folder = write(tmp_path)
    data = load_dataset("kuairec", folder, limits=Limits(min_user=2, min_item=0))
    assert data.users["token"].tolist() == ["1"]
    assert data.n_items == 4


HOSTILE = {
    "no ratio": ("0,3,1,1,t,d,1593878903,", "view without a watch ratio"),
    "ratio is text": ("0,3,1,1,t,d,1593878903,much", "view without a watch ratio"),
    "ratio NaN": ("0,3,1,1,t,d,1593878903,nan", "view without a watch ratio"),
    "ratio infinite": ("0,3,1,1,t,d,1593878903,inf", "view without a watch ratio"),
    "ratio negative": ("0,3,1,1,t,d,1593878903,-1", "view without a watch ratio"),
    "no user": (",3,1,1,t,d,1593878903,1.5", "view without a user or a video"),
    "half a user": ("0.5,3,1,1,t,d,1593878903,1.5", "view without a user or a video"),
    "huge user": ("9" * 40 + ",3,1,1,t,d,1593878903,1.5", "view without a user or a video"),
    "another year": ("0,3,1,1,t,d,1393878903,1.5", "view whose time is not in 2020"),
    "milliseconds": ("0,3,1,1,t,d,1593878903438,1.5", "view whose time is not in 2020"),
    "too short": ("0,3,1,1", "row without 8 fields"),
    "NUL": ("0,3,1,\0,t,d,1593878903,1.5", "line with NUL bytes"),
    "unknown video": ("0,99,1,1,t,d,1593878903,1.5", "event of an unknown item"),
    "unknown user": ("99,3,1,1,t,d,1593878903,1.5", "event of an unknown user"),
    "a second time": ("0,3,9000,6000,t,d,1593878903.1,1.5", "duplicate event"),
}


@pytest.mark.parametrize(("row", "kind"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_views_are_counted(tmp_path: Path, row: str, kind: str) -> None:
    data = load_dataset("kuairec", write(tmp_path, {"big_matrix.csv": VIEWS + row + "\n"}))
    assert len(data.interactions) == 3
    found = [repair for repair in data.repairs if kind in repair.kind]
    assert [repair.count for repair in found] == [1], kinds(data)


@pytest.mark.parametrize(
    ("name", "row", "kind"),
    [
        ("social_network.csv", '1,"[0, x]"', "list of friends that cannot be read"),
        ("social_network.csv", "1,0", "list of friends that cannot be read"),
        ("item_categories.csv", "10,[[[", "video without an id of its own"),
        ("item_categories.csv", "12,{}", "category ids that cannot be read"),
        ("user_features.csv", "3,full_active,0,many,1,1,1", "n_following that cannot be used"),
        ("user_features.csv", "1,full_active,0,1,1,1,1", "user without an id of its own"),
        ("item_daily_features.csv", "10,today,1,N,2020-01-01,S,1,1,1,1,1", "day without a video"),
        ("item_daily_features.csv", "10,20200705,1,N,0000-00-00,S,1,1,1,1,1", "upload date that"),
        ("item_daily_features.csv", "10,20200705,1,N,2020-01-01,S,1,-5,1,1,1", "n_plays that"),
    ],
)
def test_other_hostile_rows_are_counted(tmp_path: Path, name: str, row: str, kind: str) -> None:
    data = load_dataset("kuairec", write(tmp_path, {name: FILES[name] + row + "\n"}))
    assert len(data.interactions) == 3
    assert [r.count for r in data.repairs if kind in r.kind] == [1], kinds(data)


def test_a_truncated_file_is_an_error_with_its_line(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "big_matrix.csv").unlink()
    packed = gzip.compress((VIEWS * 2000).encode())
    (folder / "big_matrix.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match=r"big_matrix\.csv\.gz: the gz data break off .*after line"):
        load_dataset("kuairec", folder)


@pytest.mark.parametrize("name", FILES)
def test_missing_files_are_named(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path)
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        load_dataset("kuairec", folder)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    text = VIEWS.replace("watch_ratio", "watchratio")
    with pytest.raises(
        DataError, match=r"big_matrix\.csv, line 1: .*\['watch_ratio'\]\. Did you mean 'watchr"
    ):
        load_dataset("kuairec", write(tmp_path, {"big_matrix.csv": text}))


def test_options_are_checked() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'small'"):
        KuaiRec("smal")  # type: ignore[arg-type]
    for ratio in (-1.0, float("nan")):
        with pytest.raises(ConfigError, match="min_watch_ratio must be 0 or more"):
            KuaiRec(min_watch_ratio=ratio)


def test_genuine_users(samples: Path) -> None:
    log = ReadLog()
    users = read_users(samples / "kuairec" / "user_features.csv", log)
    assert len(users) == 7176
    assert set(users["activity"].dropna()) == {
        "full_active", "high_active", "middle_active",
    }  # fmt: skip
    assert users[["n_friends", "n_following", "n_followers"]].notna().all().all()
    assert log.repairs == ()


def test_genuine_videos(samples: Path) -> None:
    log = ReadLog()
    path = samples / "kuairec" / "kuairec_caption_category.csv"
    captions = read_captions(path, log)
    ids = read_category_ids(samples / "kuairec" / "item_categories.csv", log)
    assert len(captions) == len(ids) == 10_728
    assert set(captions["item_id"]) == set(ids["item_id"]) == {str(n) for n in range(10_728)}
    assert ids["category_ids"].notna().all()
    assert log.repairs == ()
    with path.open(encoding="utf-8", newline="") as file:
        empty = sum(row["caption"] == "" for row in csv.DictReader(file))
    assert empty == 1355
    assert captions["title"].notna().sum() > 10_728 - 1355
