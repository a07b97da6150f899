"""The log of the ground truth: the same by seed, whole on disk, and without the truth in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from usermirror_gym.data import RecDataset, load_dataset
from usermirror_gym.errors import ConfigError, DataError
from usermirror_gym.experiments.transfer.ground_truth import (
    LatentFactorRatings,
    LatentFactorUser,
    TruthSettings,
)
from usermirror_gym.experiments.transfer.simulated_log import (
    LogSettings,
    generate_log,
    log_of,
    save_log,
)
from usermirror_gym.testing.data import tiny_split

BROWSING = LogSettings(ticks=60, lists=25, tick_seconds=3600)
EVENTS = ["user_id", "item_id", "timestamp", "rating"]


@pytest.fixture(scope="module")
def data() -> RecDataset:
    return tiny_split(n_users=30, n_items=60).dataset


@pytest.fixture(scope="module")
def user(data: RecDataset) -> LatentFactorUser:
    return LatentFactorUser.fit(data, TruthSettings(factors=4, penalty=1.0, iterations=40))


def browse(data: RecDataset, user: LatentFactorUser, settings: LogSettings = BROWSING):
    return generate_log(data, user, LatentFactorRatings(data, user), settings)


@pytest.fixture(scope="module")
def log(data: RecDataset, user: LatentFactorUser) -> RecDataset:
    return browse(data, user)


def test_same_seed_same_log(data: RecDataset, user: LatentFactorUser, log: RecDataset) -> None:
    pd.testing.assert_frame_equal(browse(data, user).interactions, log.interactions)
    other = browse(data, user, replace(BROWSING, seed=1)).interactions
    assert not other.equals(log.interactions)


def test_items_and_users_are_the_real_ones_and_ids_stay(data: RecDataset, log: RecDataset) -> None:
    pd.testing.assert_frame_equal(log.items, data.items)
    pd.testing.assert_frame_equal(log.users, data.users)
    assert not log.repairs


def test_every_choice_comes_from_a_list_of_that_moment(log: RecDataset) -> None:
    lists = log.impressions
    assert lists is not None
    clicked = {}
    for row in range(len(lists)):
        items, clicks = lists.row(row)
        assert len(set(items.tolist())) == len(items) == 5
        assert clicks.sum() <= 1
        for item in items[clicks].tolist():
            clicked[int(lists.user_ids[row]), item] = int(lists.timestamps[row])
    events = log.interactions
    taken = zip(events["user_id"], events["item_id"], events["timestamp"], strict=True)
    assert {(u, i): t for u, i, t in taken} == clicked
    assert not events.duplicated(["user_id", "item_id"]).any()  # nobody takes a film twice
    assert 0 < len(events) < len(lists)
    assert events["timestamp"].is_monotonic_increasing
    # One list a tick: a user's lists are apart.
    times = pd.Series(lists.timestamps).groupby(lists.user_ids)
    assert not times.apply(lambda t: t.duplicated().any()).any()


def test_users_choose_by_the_truth(
    data: RecDataset, user: LatentFactorUser, log: RecDataset
) -> None:
    lists = log.impressions
    assert lists is not None
    none = np.zeros((1, 0), np.int64)
    ranks = []
    for row in range(len(lists)):
        items, clicks = lists.row(row)
        if clicks.any():
            worth = user.utility(lists.user_ids[row : row + 1], items[None], none)[0]
            ranks.append((worth > worth[clicks][0]).sum())
    assert np.mean(ranks) < 1.6  # of 0 to 4; 2 is chance


def test_films_that_are_not_out_are_not_shown(data: RecDataset, user: LatentFactorUser) -> None:
    first = int(data.interactions["timestamp"].min())
    opens = pd.array([first + 40 * 3600] * 20 + [0] * 39 + [pd.NA], dtype="Int64")
    later = replace(data, items=data.items.assign(available_from=opens))
    lists = browse(later, user).impressions
    assert lists is not None
    shown = np.repeat(lists.timestamps, np.diff(lists.offsets))
    assert (shown[lists.items <= 20] >= first + 40 * 3600).all()
    assert (lists.items <= 20).any()
    assert (lists.items == 60).any()  # unknown: always out


def test_who_had_everything_stays_away(user: LatentFactorUser, data: RecDataset) -> None:
    eager = replace(user, outside=-50.0)
    log = browse(data, eager, LogSettings(ticks=90, lists=80, spread=0.0))
    lists = log.impressions
    assert lists is not None
    counts = log.interactions.groupby("user_id").size()
    assert counts.max() == 56  # of 60: the last list of five needs five


def test_a_saved_log_reads_back(log: RecDataset, tmp_path: Path) -> None:
    back = load_dataset(str(save_log(log, tmp_path)))
    pd.testing.assert_frame_equal(back.interactions[EVENTS], log.interactions[EVENTS])
    assert back.items["title"].tolist() == log.items["title"].tolist()
    assert back.items["genres"].tolist() == log.items["genres"].tolist()
    assert back.users["token"].tolist() == log.users["token"].tolist()
    assert back.impressions is not None
    assert log.impressions is not None
    assert (back.impressions.items == log.impressions.items).all()
    assert (back.impressions.clicked == log.impressions.clicked).all()
    assert not back.repairs


def test_a_part_of_a_log_has_the_rows_of_its_users_and_everybody_keeps_the_id(
    log: RecDataset, tmp_path: Path
) -> None:
    kept = np.arange(log.n_users + 1) % 3 == 0
    part = log_of(log, kept)
    assert part.interactions["user_id"].isin(np.flatnonzero(kept)).all()
    assert len(part.interactions) == log.interactions["user_id"].isin(np.flatnonzero(kept)).sum()
    assert part.impressions is not None
    assert log.impressions is not None
    rows = np.flatnonzero(kept[log.impressions.user_ids])
    assert 0 < len(rows) == len(part.impressions) < len(log.impressions)
    for new, old in enumerate(rows):
        for mine, whole in zip(part.impressions.row(new), log.impressions.row(old), strict=True):
            assert (mine == whole).all()
    back = load_dataset(str(save_log(part, tmp_path)))
    assert back.users["token"].tolist() == log.users["token"].tolist()
    assert back.items["token"].tolist() == log.items["token"].tolist()
    pd.testing.assert_frame_equal(back.interactions[EVENTS], part.interactions[EVENTS])


def test_the_log_holds_neither_truth_nor_real_choices(
    data: RecDataset, user: LatentFactorUser, log: RecDataset, tmp_path: Path
) -> None:
    save_log(log, tmp_path)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"truth-log.yaml", "items.parquet", "users.parquet", "interactions.parquet",
                     "impressions.parquet"}  # fmt: skip
    columns = {c for p in tmp_path.glob("*.parquet") for c in pd.read_parquet(p).columns}
    assert columns <= {"user_id", "item_id", "timestamp", "rating", "list", "clicked", "title",
                       "available_from", "genres", "year", "age", "gender", "occupation",
                       "zip_code"}  # fmt: skip
    # Other real choices with the same first moment, same truth: the same log.
    scrambled = data.interactions.assign(rating=1.0, item_id=1 + data.interactions["item_id"] % 60)
    again = generate_log(
        replace(data, interactions=scrambled), user, LatentFactorRatings(data, user), BROWSING
    )
    pd.testing.assert_frame_equal(again.interactions, log.interactions)


def test_mistakes_are_named(data: RecDataset, user: LatentFactorUser) -> None:
    with pytest.raises(ConfigError, match="slate_size is 60, and 'tiny' has 60 items"):
        browse(data, user, LogSettings(slate_size=60))
    with pytest.raises(ConfigError, match="shares must be 3 numbers"):
        LogSettings(shares=(0.0, 0.0, 0.0))
    with pytest.raises(ConfigError, match="lists must be at least 1"):
        LogSettings(lists=float("nan"))
    with pytest.raises(DataError, match="nobody took anything"):
        browse(data, replace(user, outside=60.0), LogSettings(ticks=5))
