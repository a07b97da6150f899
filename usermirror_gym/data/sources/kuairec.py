"""KuaiRec 2.0: what 7,176 users of a short-video app watched of 10,728 videos in summer 2020."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from usermirror_gym.data.raw.reading import ReadLog, find_file, read_csv_rows
from usermirror_gym.data.raw.values import Numbers, csv_text, identifier, number
from usermirror_gym.data.sources.base import Download, Limits, Source, Tables, apply_limits
from usermirror_gym.data.sources.events import friend_table, kept_items, unique_rows
from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.types import AVAILABLE_FROM, ITEM_ID, TIMESTAMP, TITLE, USER_ID

Matrix = Literal["big", "small"]
_CHINA = timezone(timedelta(hours=8))
_FIRST, _END = (datetime(year, 1, 1, tzinfo=_CHINA).timestamp() for year in (2020, 2021))
_RECORD = "https://zenodo.org/records/18164998/files/"
_DATA = "KuaiRec 2.0/data/"
_VIEW = ("user_id", "video_id", "play_duration", "timestamp", "watch_ratio")
_DAILY = {
    "n_plays": "play_cnt",
    "n_likes": "like_cnt",
    "n_comments": "comment_cnt",
    "n_shares": "share_cnt",
}


class KuaiRec(Source):
    """Videos and who watched how much of them.

    The app plays one video after the other, so a row of the log is a view, not yet a choice.  Here
    a view counts as a choice if the video was seen to its end (``watch_ratio`` of 1 or more; the
    reference calls that *complete* and everything shorter *skip*).  The reference takes every view
    as a choice, skipped ones too; ``min_watch_ratio=0`` does the same.

    Interactions: ``watch_ratio`` (time watched / length; above 1 when it was played again) and
    ``play_seconds``.  Items: ``title`` (the caption, else the category), ``category`` (empty where
    it is the title), ``category_ids`` (anonymous), ``duration_seconds``, ``n_plays, n_likes,
    n_comments, n_shares`` and ``available_from`` (start of the day of upload in China).  The
    counts are those of the video's first day in the log: later ones would tell what is going to
    be popular.  Users: ``n_friends, n_following, n_followers, activity`` (``full_active`` ...).

    Args:
        matrix: ``"big"`` is the log of two months; ``"small"`` is the nearly complete matrix of
            1,411 users by 3,327 videos, some rows of which have no time and are skipped.
        min_watch_ratio: views below it are left out.

    Raises:
        UnknownNameError: no such matrix.
        ConfigError: ``min_watch_ratio`` is negative or not a number.
    """

    name = "kuairec"
    domain = "video"
    title = "KuaiRec 2.0"
    homepage = "https://kuairec.com/"
    terms = "CC BY-SA 4.0."
    citation = (
        "C. Gao et al., KuaiRec: A Fully-observed Dataset and Insights for Evaluating Recommender "
        "Systems, CIKM 2022."
    )
    how_to_get = "Unpack KuaiRec.zip from the home page, and take what lies in its data folder."
    # UserMirrorer, DataProcessor_KuaiRec, sets 5 to 20 interactions but does not apply them.
    limits = Limits()

    def __init__(self, matrix: Matrix = "big", min_watch_ratio: float = 1.0) -> None:
        if matrix not in get_args(Matrix):
            raise UnknownNameError("KuaiRec matrix", matrix, get_args(Matrix))
        if not min_watch_ratio >= 0:
            raise ConfigError(f"min_watch_ratio must be 0 or more, got {min_watch_ratio!r}")
        self.min_watch_ratio = min_watch_ratio
        self.name = "kuairec" if matrix == "big" else "kuairec-small"
        self.files = (
            f"{matrix}_matrix.csv", "user_features.csv", "social_network.csv",
            "item_categories.csv", "item_daily_features.csv", "kuairec_caption_category.csv",
        )  # fmt: skip
        captions = self.files[-1]
        self.downloads = (
            Download(
                _RECORD + "KuaiRec.zip",
                tuple(_DATA + name for name in self.files if name != captions),
                md5="261550d472c48eff4990fb13c0e5bcf7",
            ),
            Download(_RECORD + captions, md5="31bc38cdccdf75a71df137779035f8cb"),
        )

    def read(self, folder: Path, log: ReadLog, limits: Limits) -> Tables:
        users = read_users(find_file(folder, "user_features.csv"), log)
        videos = read_videos(folder, log)
        views = _views(find_file(folder, self.files[0]), log, self.min_watch_ratio)
        views = apply_limits(views, limits)
        kept = users[users[USER_ID].isin(views[USER_ID].unique().astype(str))]
        left_out = set(users[USER_ID]) - set(kept[USER_ID])
        friends = friend_table(_friends(find_file(folder, "social_network.csv"), log), left_out)
        watched = pd.DataFrame({ITEM_ID: views[ITEM_ID].unique().astype(str)})
        return Tables(kept, kept_items(videos, watched, limits), views, friends=friends)


def read_users(path: Path, log: ReadLog) -> pd.DataFrame:
    """Everything known of the users, from ``user_features.csv``."""
    counts = {
        "n_friends": "friend_user_num",
        "n_following": "follow_user_num",
        "n_followers": "fans_user_num",
    }
    numbers = Numbers(path, log)
    found = read_csv_rows(path, log, columns=(USER_ID, "user_active_degree", *counts.values()))
    rows = [
        (
            user,
            *(numbers.whole(line, name, row[column], 0) for name, column in counts.items()),
            _known(row["user_active_degree"]),
        )
        for line, row, user in unique_rows(found, USER_ID, "user", path, log, alike=True)
    ]
    frame = pd.DataFrame(rows, columns=[USER_ID, *counts, "activity"])
    return frame.astype(dict.fromkeys(counts, "Int64"))


def read_videos(folder: Path, log: ReadLog) -> pd.DataFrame:
    """The catalog: captions, categories and what the first day in the log tells."""
    captions = read_captions(find_file(folder, "kuairec_caption_category.csv"), log)
    ids = read_category_ids(find_file(folder, "item_categories.csv"), log)
    daily = _first_days(find_file(folder, "item_daily_features.csv"), log)
    videos = ids.merge(captions, how="outer", on=ITEM_ID).merge(daily, how="left", on=ITEM_ID)
    order = videos[ITEM_ID].map(lambda video: (len(video), video)).sort_values().index
    return videos.loc[order].reset_index(drop=True)


def read_captions(path: Path, log: ReadLog) -> pd.DataFrame:
    """Title and category of the videos, from ``kuairec_caption_category.csv``."""
    levels = [f"{level}_level_category_name" for level in ("first", "second", "third")]
    rows = []
    found = read_csv_rows(path, log, columns=("video_id", "caption", *levels))
    for _, row, video in unique_rows(found, "video_id", "video", path, log, alike=True):
        category = " / ".join(name for level in levels if (name := _known(row[level]))) or None
        caption = csv_text(row["caption"])
        # What is the title is not said once more.
        rows.append((video, caption or category, category if caption else None))
    return pd.DataFrame(rows, columns=[ITEM_ID, TITLE, "category"], dtype=object)


def read_category_ids(path: Path, log: ReadLog) -> pd.DataFrame:
    """The anonymous categories of the videos, from ``item_categories.csv``."""
    rows = []
    found = read_csv_rows(path, log, columns=("video_id", "feat"))
    for line, row, video in unique_rows(found, "video_id", "video", path, log, alike=True):
        ids = _id_list(row["feat"])
        if ids is None:
            log.mend("category ids that cannot be read, left empty", path, line, row["feat"])
        rows.append((video, ", ".join(ids or []) or None))
    return pd.DataFrame(rows, columns=[ITEM_ID, "category_ids"], dtype=object)


def _first_days(path: Path, log: ReadLog) -> pd.DataFrame:
    """Length, time of upload and the counts of the first day of each video."""
    first: dict[str, tuple[str, int, dict[str, str]]] = {}
    columns = ("video_id", "date", "upload_dt", "video_duration", *_DAILY.values())
    for line, row in read_csv_rows(path, log, columns=columns):
        video, day = identifier(row["video_id"]), row["date"].strip()
        if video is None or not (len(day) == 8 and day.isdigit()):
            log.skip("day without a video or a date, skipped", path, line, row["date"])
        elif video not in first or day < first[video][0]:
            first[video] = (day, line, row)
    numbers = Numbers(path, log)
    rows = []
    for video, (_, line, row) in first.items():
        length = numbers.real(line, "length", row["video_duration"], 0)
        counts = [numbers.whole(line, n, row[column], 0) for n, column in _DAILY.items()]
        uploaded = _midnight(row["upload_dt"], path, line, log)
        rows.append((video, length and length / 1000, *counts, uploaded))
    whole = (*_DAILY, AVAILABLE_FROM)
    frame = pd.DataFrame(rows, columns=[ITEM_ID, "duration_seconds", *whole])
    return frame.astype({"duration_seconds": "float64", **dict.fromkeys(whole, "Int64")})


def _midnight(date: str, path: Path, line: int, log: ReadLog) -> int | None:
    try:
        return int(datetime.strptime(date.strip(), "%Y-%m-%d").replace(tzinfo=_CHINA).timestamp())
    except (ValueError, OverflowError):
        if _known(date) is not None:
            log.mend("upload date that cannot be used, left empty", path, line, date)
        return None


def _views(path: Path, log: ReadLog, min_watch_ratio: float) -> pd.DataFrame:
    """The views of at least that ratio; 40 bytes a view while reading."""
    whole, real = [array("q") for _ in range(3)], [array("d") for _ in range(2)]
    numbers = Numbers(path, log)
    for line, row in read_csv_rows(path, log, columns=_VIEW):
        ratio = number(row["watch_ratio"], 0)
        if ratio is None:
            log.skip("view without a watch ratio, skipped", path, line, row["watch_ratio"])
            continue
        if ratio < min_watch_ratio:
            continue
        time = number(row["timestamp"])
        user, video = number(row["user_id"], 0, 2**53), number(row["video_id"], 0, 2**53)
        if user is None or video is None or user % 1 or video % 1:
            log.skip("view without a user or a video, skipped", path, line, row)
        elif time is None:
            log.skip("view without a readable time, skipped", path, line, row["timestamp"])
        elif not _FIRST <= time < _END:
            log.skip("view whose time is not in 2020, skipped", path, line, time)
        else:
            played = numbers.real(line, "time watched", row["play_duration"], 0)
            for column, value in zip(whole, (user, video, time), strict=True):
                column.append(int(value))
            real[0].append(ratio)
            real[1].append(float("nan") if played is None else played / 1000)
    names = (USER_ID, ITEM_ID, TIMESTAMP, "watch_ratio", "play_seconds")
    return pd.DataFrame({n: np.array(c) for n, c in zip(names, (*whole, *real), strict=True)})


def _friends(path: Path, log: ReadLog) -> Iterator[tuple[str, str]]:
    """Friends are people who follow each other."""
    for line, row in read_csv_rows(path, log, columns=(USER_ID, "friend_list")):
        user, others = identifier(row[USER_ID]), _id_list(row["friend_list"])
        if user is None or others is None:
            log.skip("list of friends that cannot be read, skipped", path, line, row["friend_list"])
        else:
            yield from ((user, other) for other in others)


def _id_list(value: str) -> list[str] | None:
    """``"[27, 9]"`` -> ``["27", "9"]``."""
    try:
        ids = json.loads(value)
    except (ValueError, RecursionError):
        return None
    if not isinstance(ids, list) or not all(type(i) is int for i in ids):
        return None
    return [str(i) for i in ids]


def _known(value: str) -> str | None:
    return None if value.strip() == "UNKNOWN" else csv_text(value)
