"""Features of what a scene prints."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from usermirror_gym.data import RecDataset, TimeSplit
from usermirror_gym.fidelity.baselines.printed import PrintedFeatures, item_words, profile_groups
from usermirror_gym.scenes import Scene, SceneBatch
from usermirror_gym.testing.data import tiny_split


@pytest.fixture(scope="module")
def tiny() -> TimeSplit:
    return tiny_split(n_users=40)


@pytest.fixture
def films() -> TimeSplit:
    """Four films; users 1 and 2 rated the first, user 1 the second."""
    items = pd.DataFrame(
        {
            "item_id": [1, 2, 3, 4],
            "title": ["Star Wars", "Star Trek", "Heat", "Alien"],
            "year": [1977, 1979, 1995, 1979],
            "genres": ["Action, Sci-Fi", "Sci-Fi", "Action, Crime", ""],
        }
    )
    users = pd.DataFrame({"user_id": [1, 2, 3], "gender": ["F", "F", "M"], "age": [20, 30, 40]})
    log = pd.DataFrame(
        [(1, 1, 1, 5), (2, 1, 2, 3), (1, 2, 3, 1), (3, 3, 4, 4)],
        columns=["user_id", "item_id", "timestamp", "rating"],
    )
    dataset = RecDataset.from_tables("f", "movie", users=users, items=items, interactions=log)
    return TimeSplit(dataset, 100)


def scene(user: int, history: tuple[int, ...], slate: tuple[int, ...], ratings=None) -> Scene:
    ratings = ratings or (4.0,) * len(history)
    return Scene(user, history, ratings, tuple(range(len(history), 0, -1)), slate)


def named(split: TimeSplit, *scenes: Scene) -> dict[str, np.ndarray]:
    return PrintedFeatures(split).named(SceneBatch.of(scenes))


def test_counts_and_ratings_leave_out_the_user_of_the_scene(films):
    found = named(films, scene(3, (3,), (1, 2)), scene(1, (3,), (1, 2)))
    assert found["log count"] == pytest.approx(np.log1p([[2, 1], [1, 0]]))
    assert found["log rated"] == pytest.approx(np.log1p([[2, 1], [1, 0]]))
    overall = (5 + 3 + 1 + 4) / 4
    everybody, other = (8 + 20 * overall) / 22, (3 + 20 * overall) / 21
    assert found["mean rating"][:, 0] == pytest.approx([everybody, other])


def test_a_choice_does_not_speak_for_itself(tiny):
    """Features of a choice before T0 are those of a log in which it never happened."""
    events = tiny.before.drop_duplicates(["user_id", "item_id"])
    event = events.iloc[len(events) // 2]
    user, item = int(event["user_id"]), int(event["item_id"])
    others = [i for i in range(1, 10) if i != item][:3]
    asked = scene(user, tuple(others[:2]), (item, *range(30, 33)))
    log = tiny.dataset.interactions
    never = log[(log["user_id"] != user) | (log["item_id"] != item)].reset_index(drop=True)
    without = TimeSplit(replace(tiny.dataset, interactions=never), tiny.t0)
    before, after = named(tiny, asked), named(without, asked)
    for name in ("log count", "log rated", "mean rating", "gender lift"):
        tolerance = {"mean rating": 0.02, "gender lift": 0.02}.get(name, 1e-12)
        assert before[name] == pytest.approx(after[name], abs=tolerance), name


def test_genres_are_compared_with_those_of_the_history(films):
    found = named(films, scene(3, (1,), (2, 3, 4)))
    overlap = found["genres overlap"][0]
    assert overlap[0] > 0
    assert overlap[1] > 0
    assert overlap[2] == 0  # nothing is known of its genres
    assert found["genres, nearest line overlap"][0] == pytest.approx(overlap)
    assert found["title overlap"][0] == pytest.approx([1.0, 0.0, 0.0])  # "star" is rare enough


def test_a_low_rating_turns_the_overlap_round(films):
    found = named(films, scene(3, (1, 4), (2,), (1.0, 5.0)), scene(3, (1, 4), (2,), (5.0, 1.0)))
    first, second = found["genres overlap, by rating"][:, 0]
    assert first < 0 < second


def test_years_are_compared_with_those_of_the_history(films):
    found = named(films, scene(3, (1, 2), (3, 4)))
    assert found["year"][0].tolist() == [1995, 1979]
    assert found["year after mean"][0].tolist() == [17, 1]
    assert found["year distance from last"][0].tolist() == [16, 0]
    assert found["year distance from nearest"][0].tolist() == [16, 0]


def test_women_take_what_women_took(films):
    found = named(films, scene(2, (3,), (2, 3)), scene(0, (3,), (2, 3)))
    assert found["gender lift"][0, 0] > 0 > found["gender lift"][0, 1]
    assert found["gender lift"][1].tolist() == [0, 0]  # nobody's profile


def test_a_scene_has_the_same_features_in_any_company(tiny):
    rng = np.random.default_rng(0)
    scenes = [
        scene(int(u), tuple(map(int, rng.choice(20, n, replace=False) + 1)), (25, 30, 33, 37)[:k])
        for u, n, k in zip(rng.integers(0, 60, 30), rng.integers(0, 9, 30), rng.integers(1, 5, 30),
                           strict=True)
    ]  # fmt: skip
    features = PrintedFeatures(tiny)
    whole = features.columns(SceneBatch.of(scenes))
    for row, one in enumerate(scenes):
        alone = features.columns(SceneBatch.of([one]))
        assert np.array_equal(alone[0], whole[row, : len(one.slate)], equal_nan=True)


def test_nothing_after_the_cut_is_read(tiny):
    log = tiny.dataset.interactions
    late = log["timestamp"] >= tiny.t0
    changed = log.assign(rating=log["rating"].mask(late, 1.0), item_id=log["item_id"].mask(late, 7))
    other = TimeSplit(replace(tiny.dataset, interactions=changed), tiny.t0)
    asked = [scene(u, (1, 2, 3), (10, 25, 39)) for u in range(1, 40)]
    first, second = (PrintedFeatures(s).columns(SceneBatch.of(asked)) for s in (tiny, other))
    assert np.array_equal(first, second, equal_nan=True)


def test_words_that_tell_nothing_apart_are_left_out():
    split = tiny_split()
    words = item_words(split.dataset)
    assert set(words["genres"].vocabulary) == {
        "action", "drama", "musical", "romance", "thriller", "war"
    }  # fmt: skip
    assert "title" not in words  # "film" is in every title, each number in one


def test_profile_columns_with_too_many_values_are_left_out(tiny):
    groups = profile_groups(tiny.dataset)
    assert set(groups) == {"age", "gender", "occupation"}
    assert np.unique(groups["age"]).tolist() == [0, 1, 2, 3, 4, 5]
    assert all(group[0] == 0 for group in groups.values())
