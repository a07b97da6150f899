"""Which scenes are in which slice, and what is said of the lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from usermirror_gym.data import TimeSplit
from usermirror_gym.fidelity.checks.slices import MIXED, exposure, slices
from usermirror_gym.scenes.table import SCHEMA


def row(slate: list[int], target: int, samplers: list[str], **more: Any) -> dict[str, Any]:
    """One line of a scenes table; the memory does not matter here."""
    values = {
        "scene_id": "s", "dataset": "d", "domain": "movie", "split": "eval", "kind": "choice",
        "user_id": 1, "seen_user": True, "timestamp": 0, "history": [], "ratings": [], "ages": [],
        "behaviours": [], "slate": slate, "samplers": samplers, "notes": [""] * len(slate),
        "target": target, "item_id": slate[target] if target < len(slate) else 8, "profile": "",
        "history_texts": [], "options": [""] * len(slate),
    }  # fmt: skip
    return values | more


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), SCHEMA)


UNIFORM, POPULARITY = "uniform", "popularity"


@pytest.fixture
def scenes() -> pa.Table:
    return table(
        row([1, 2, 3], 0, ["log", UNIFORM, UNIFORM], user_id=6),
        row([1, 2, 3, 4], 1, [UNIFORM, "log", POPULARITY, UNIFORM], user_id=5, domain="book"),
        row([4, 5, 6], 2, [UNIFORM, POPULARITY, "log"], user_id=2, seen_user=False),
        row([4, 5, 6], 3, [POPULARITY] * 3, user_id=1),  # without its true item
    )


def rows_of(found: dict, dimension: str) -> dict[str, list[int]]:
    return {value: np.flatnonzero(member).tolist() for value, member in found[dimension].items()}


def test_every_dimension_parts_the_scenes_with_a_true_item(
    scenes: pa.Table, split: TimeSplit
) -> None:
    found = slices(scenes, split)
    for name, members in found.items():
        assert np.stack(list(members.values())).sum(axis=0).tolist() == [1, 1, 1, 0], name
        assert all(member.any() for member in members.values()), name
    assert rows_of(found, "domain") == {"book": [1], "movie": [0, 2]}
    assert rows_of(found, "k") == {"3": [0, 2], "4": [1]}
    assert rows_of(found, "user") == {"seen": [0, 1], "unseen": [2]}


def test_the_sampler_of_more_than_half_of_the_company_names_the_list(
    scenes: pa.Table, split: TimeSplit
) -> None:
    # Two of three are uniform in the second list; in the third there is one of each.
    assert rows_of(slices(scenes, split), "sampler") == {MIXED: [2], UNIFORM: [0, 1]}
    # The choice itself does not count, whoever drew it.
    alone = table(row([1, 2], 0, [POPULARITY, UNIFORM]), row([3], 0, ["log"]))
    assert rows_of(slices(alone, None), "sampler") == {MIXED: [1], UNIFORM: [0]}


def test_thirds_are_of_users_and_items_before_t0(scenes: pa.Table, split: TimeSplit) -> None:
    """User u has u interactions before T0; items 1, 2 and 6 were taken 6, 5 and once."""
    found = slices(scenes, split)
    assert rows_of(found, "activity") == {"low (2)": [2], "middle (5)": [1], "high (6)": [0]}
    assert rows_of(found, "popularity") == {"low (1)": [2], "middle (5)": [1], "high (6)": [0]}


def test_equal_values_are_not_torn_apart(split: TimeSplit) -> None:
    users = [3, 3, 3, 3, 6, 6]
    same = table(*(row([1, 2], 0, ["log", UNIFORM], user_id=u) for u in users))
    assert rows_of(slices(same, split), "activity") == {"low (3)": [0, 1, 2, 3], "high (6)": [4, 5]}
    mixed = table(*(row([1, 2], 0, ["log", UNIFORM], user_id=u) for u in (1, 2, 3, 4, 5, 6)))
    assert list(slices(mixed, split)["activity"]) == ["low (1 to 2)", "middle (3 to 4)",
                                                      "high (5 to 6)"]  # fmt: skip


def test_without_data_there_is_no_activity_and_no_popularity(scenes: pa.Table) -> None:
    found = slices(scenes, None)
    assert found["activity"] == found["popularity"] == {}
    assert rows_of(found, "k") == {"3": [0, 2], "4": [1]}


def test_scenes_that_all_lack_their_true_item_are_in_no_slice(split: TimeSplit) -> None:
    lost = table(row([1, 2], 2, [UNIFORM, UNIFORM]))
    assert all(not members for members in slices(lost, split).values())
    assert exposure(lost, split)["most_popular"] is None


def test_company_and_popularity_of_lists_by_hand(scenes: pa.Table, split: TimeSplit) -> None:
    found = exposure(scenes, split)
    # 2 + 2 + 1 uniform and 1 + 1 + 3 popular ones, the true items left out.
    assert found["company"] == {POPULARITY: 0.5, UNIFORM: 0.5}
    # Item i was taken 7 - i times before T0: only the first list's true item leads its list.
    assert found["most_popular"] == pytest.approx(1 / 3)
    assert exposure(scenes, None) == {"company": found["company"], "most_popular": None}


def test_ties_of_popularity_are_shared(split: TimeSplit) -> None:
    even = table(row([7, 8], 0, ["log", UNIFORM]), row([8, 7], 0, ["log", UNIFORM]))
    assert split.popularity[[7, 8]].tolist() == [0, 0]
    assert exposure(even, split)["most_popular"] == pytest.approx(0.5)
