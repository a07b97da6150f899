from __future__ import annotations

import pickle

import numpy as np
import pytest

from usermirror_gym.scenes import Scene, SceneBatch, Turn

COLUMNS = (
    "user_ids", "history", "ratings", "ages", "history_lengths", "turn_slates", "turn_chosen",
    "turn_counts", "slates",
)  # fmt: skip


@pytest.fixture
def scenes() -> list[Scene]:
    return [
        Scene(3, (5, 6), (4.0, float("nan")), (90, 10), (1, 2, 3)),
        Scene(8, (), (), (), (9,), turns=(Turn((4, 2), 0), Turn((7, 8, 9, 1), 9))),
        Scene(3, (5, 6, 7), (4.0, 2.0, 1.0), (90, 10, 0), (2, 1), turns=(Turn((1,), 1),)),
    ]


@pytest.fixture
def batch(scenes) -> SceneBatch:
    return SceneBatch.of(scenes)


def same(one: Scene, two: Scene) -> bool:
    """Equal apart from the name, NaN equal to NaN."""
    fields = ("user_id", "history", "ages", "slate", "turns")
    ratings = np.array_equal(np.array(one.ratings), np.array(two.ratings), equal_nan=True)
    return ratings and all(getattr(one, f) == getattr(two, f) for f in fields)


def test_columns_give_the_scenes_back(batch, scenes):
    assert len(batch) == 3
    assert all(same(a, b) for a, b in zip(batch, scenes, strict=True))


def test_columns_are_padded_with_zeros_on_the_right(batch):
    assert batch.slates.tolist() == [[1, 2, 3, 0], [9, 0, 0, 0], [2, 1, 0, 0]]
    assert batch.history.tolist() == [[5, 6, 0], [0, 0, 0], [5, 6, 7]]
    assert batch.turn_slates[1].tolist() == [[4, 2, 0, 0], [7, 8, 9, 1]]
    assert batch.turn_chosen.tolist() == [[0, 0], [0, 9], [1, 0]]
    assert batch.turn_counts.tolist() == [0, 2, 1]
    assert batch.slate_size == 4


def test_a_batch_of_a_batch_is_itself(batch):
    assert SceneBatch.of(batch) is batch


def test_no_scenes():
    empty = SceneBatch.of([])
    assert len(empty) == 0
    assert list(empty) == []


@pytest.mark.parametrize(
    "rows", [np.array([2, 0]), np.array([True, False, True]), np.array([], np.int64)]
)
def test_selected_rows_are_the_rows(batch, scenes, rows):
    selected = batch.select(rows)
    numbers = np.arange(3)[rows]
    assert len(selected) == len(numbers)
    assert all(same(a, scenes[n]) for a, n in zip(selected, numbers, strict=True))
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(selected, name), getattr(batch, name)[rows])
        assert not np.shares_memory(getattr(selected, name), getattr(batch, name))


def test_slices_are_batches(batch, scenes):
    assert same(batch[1:][0], scenes[1])
    assert same(batch[::-1][0], scenes[2])
    assert len(batch[5:]) == 0


def test_negative_rows_count_from_the_end(batch, scenes):
    assert same(batch[-1], scenes[-1])


def test_lazy_columns_are_made_once_and_only_when_read(batch):
    asked: list[str] = []

    def load(name):
        asked.append(name)
        return getattr(batch, name)

    lazy = SceneBatch.lazy(3, load)
    assert len(lazy) == 3
    assert asked == []
    assert lazy.slates is lazy.slates
    assert asked == ["slates"]
    assert lazy.slate_size == 4
    assert asked == ["slates"]


def test_a_lazy_batch_can_be_pickled(batch, scenes):
    copy = pickle.loads(pickle.dumps(batch.select(np.array([1, 2]))))
    assert [same(a, b) for a, b in zip(copy, scenes[1:], strict=True)] == [True, True]


def test_an_unknown_column_is_an_attribute_error(batch):
    for one in (batch, batch.select(np.array([0]))):
        with pytest.raises(AttributeError, match="slate_ids"):
            _ = one.slate_ids


def test_names_say_which_row(batch):
    assert batch[1].name == "row 1 (user 8)"
