"""Lists that were really shown pass through as they are."""

from __future__ import annotations

import pandas as pd
import pytest

from usermirror_gym.data import RecDataset, TimeSplit
from usermirror_gym.errors import ConfigError
from usermirror_gym.scenes import Rankers, ScenePlan
from usermirror_gym.scenes.draw.columns import SceneColumns
from usermirror_gym.scenes.draw.impressions import draw_impressions

SHOWN = [  # user, time, shown, clicked
    ("a", 10, ["n4", "n5", "n6"], [False, True, False]),
    ("a", 20, ["n6", "n4", "n7", "n8"], [True, False, True, False]),
    ("b", 30, ["n4", "n5"], [False, False]),
    ("b", 31, ["n1", "n2", "n3", "n4", "n5", "n6"], [True] + [False] * 5),
    ("c", 40, ["n4", "n5"], [True, False]),
]


def split(shown: list = SHOWN) -> TimeSplit:
    events = [(u, f"n{i}", i) for u in "ab" for i in (1, 2, 3)] + [("c", "n1", 1)]
    data = RecDataset.from_tables(
        "toy",
        "news",
        users=pd.DataFrame({"user_id": list("abc")}),
        items=pd.DataFrame({"item_id": [f"n{i}" for i in range(1, 9)], "title": list("ABCDEFGH")}),
        interactions=pd.DataFrame(events, columns=["user_id", "item_id", "timestamp"]),
        impressions=pd.DataFrame(shown, columns=["user_id", "timestamp", "shown", "clicked"]),
    )
    return TimeSplit(data, 5)


def draw(**plan: object) -> SceneColumns:
    defaults = {"slate_size": (2, 5), "history": 2}
    return draw_impressions(Rankers(split()), ScenePlan(**{**defaults, **plan}), (5, None))


def test_one_scene_per_click_in_the_order_shown() -> None:
    scenes = {s.name.split("/", 1)[1]: s for s in draw().scenes()}
    assert scenes["u1/i5/t10/list 0"].slate == (4, 5, 6)
    assert scenes["u1/i5/t10/list 0"].target == 1
    # Two clicks: each with what was not clicked.
    assert scenes["u1/i6/t20/list 1"].slate == (6, 4, 8)
    assert scenes["u1/i6/t20/list 1"].target == 0
    assert scenes["u1/i7/t20/list 1"].slate == (4, 7, 8)
    assert scenes["u1/i7/t20/list 1"].target == 1
    # No click: none of these.
    assert scenes["u2/i0/t30/list 2"].slate == (4, 5)
    assert scenes["u2/i0/t30/list 2"].target == 2
    assert len(scenes) == 4


def test_what_is_left_out_is_counted() -> None:
    assert draw().dropped == {
        "shown list shorter or longer than wanted": 1,
        "shown list of a user with too little history": 1,
    }


def test_history_is_strictly_before_the_list() -> None:
    for scene in draw().scenes():
        assert scene.history == (2, 3)
        assert all(age > 0 for age in scene.ages)


def test_count_limits_the_scenes() -> None:
    assert len(draw(count=2)) == 2


def test_nothing_usable_is_an_error_that_says_why() -> None:
    with pytest.raises(ConfigError, match="shorter or longer than wanted"):
        draw(slate_size=20)
    with pytest.raises(ConfigError, match=r"none was shown in this time\..*impressions: false"):
        draw_impressions(Rankers(split([("nobody", 9, ["n1"], [True])])), ScenePlan(), (5, None))
    no_lists = split()
    bare = TimeSplit(RecDataset(**{**vars(no_lists.dataset), "impressions": None}), 5)
    with pytest.raises(ConfigError, match="has no impressions"):
        draw_impressions(Rankers(bare), ScenePlan(), (5, None))
