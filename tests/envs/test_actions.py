from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usermirror_gym.envs import SlateEnv, SlateVectorEnv
from usermirror_gym.envs.spaces import drop_duplicates
from usermirror_gym.errors import ActionError

GOOD = np.arange(1, 6)
HOSTILE = [
    ([0, 2, 3, 4, 5], r"position 0: item id 0 is not in 1..40 (0 is padding)"),
    ([1, 2, -3, 4, 5], r"position 2: item id -3 is not in 1..40"),
    ([1, 2, 3, 4, 41], r"position 4: item id 41 is not in 1..40"),
    ([1, 2, 3, 4, 2**62], r"position 4: item id 4611686018427387904 is not in 1..40"),
    ([1, 2, 3, 4], "expected shape (5,) (slate size,), got (4,)"),
    (3, "expected shape (5,) (slate size,), got ()"),
    ([], "expected shape (5,) (slate size,), got (0,)"),
    ([[1, 2, 3, 4, 5]], "expected shape (5,) (slate size,), got (1, 5)"),
    ([[1, 2], [3]], "a slate is an array of shape (5,), but"),
    ([1.0, 2.0, 3.0, 4.0, 5.0], "integer item ids, got dtype float64"),
    ([1.0, np.nan, 3.0, 4.0, 5.0], "integer item ids, got dtype float64"),
    ([True] * 5, "integer item ids, got dtype bool"),
    (["1", "2", "3", "4", "5"], "integer item ids, got dtype <U1"),
    ([None] * 5, "integer item ids, got dtype object"),
]


@pytest.mark.parametrize(("action", "message"), HOSTILE)
def test_a_hostile_slate_is_refused_and_changes_nothing(world, action, message, digest):
    env, calm = SlateEnv(world), SlateEnv(world)
    for e in (env, calm):
        e.reset(seed=4)
        e.step(GOOD)
    with pytest.raises(ActionError) as error:
        env.step(action)
    assert message in str(error.value)
    assert digest(env.step(GOOD)[:4]) == digest(calm.step(GOOD)[:4])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([9, 8, 0, 6, 5], "row 1, position 2: item id 0 is not in 1..40"),
        ([9, 8, 7, 6, 99], "row 1, position 4: item id 99 is not in 1..40"),
    ],
)
def test_a_hostile_row_is_named(world, row, message, digest):
    env, calm = SlateVectorEnv(3, world), SlateVectorEnv(3, world)
    good = np.arange(1, 16).reshape(3, 5)
    bad = good.copy()
    bad[1] = row
    for e in (env, calm):
        e.reset(seed=4)
    with pytest.raises(ActionError) as error:
        env.step(bad)
    assert message in str(error.value)
    assert digest(env.step(good)[:4]) == digest(calm.step(good)[:4])


@pytest.mark.parametrize("shape", [(2, 5), (4, 5), (3, 4), (15,), (3, 5, 1)])
def test_a_batch_of_another_shape_is_refused(world, shape):
    env = SlateVectorEnv(3, world)
    env.reset(seed=0)
    with pytest.raises(ActionError, match=r"expected shape \(3, 5\) \(environments, slate size\)"):
        env.step(np.ones(shape, np.int64))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, list])
def test_any_integers_will_do(world, dtype, digest):
    env, plain = SlateEnv(world), SlateEnv(world)
    env.reset(seed=0)
    plain.reset(seed=0)
    action = GOOD.tolist() if dtype is list else GOOD.astype(dtype)
    assert digest(env.step(action)[:4]) == digest(plain.step(GOOD)[:4])


def test_duplicates_are_shown_once_and_counted(world, always):
    env = SlateEnv(world)
    env.reset(seed=0)
    action = np.array([7, 3, 7, 7, 2])
    observation, *_, info = env.step(action)
    assert info["shown"].tolist() == [7, 3, 2, 0, 0]
    assert info["duplicates"] == 2
    assert observation["last_slate"].tolist() == [7, 3, 2, 0, 0]
    assert info["probabilities"][3:5].tolist() == [0, 0]
    assert action.tolist() == [7, 3, 7, 7, 2]


def test_duplicates_can_be_an_error_that_names_the_row(world, digest):
    env = SlateEnv(world, duplicates="raise")
    env.reset(seed=0)
    with pytest.raises(ActionError, match=r"^slate \[7, 3, 7, 4, 2\] shows an item twice"):
        env.step([7, 3, 7, 4, 2])
    vector = SlateVectorEnv(2, world, duplicates="raise")
    vector.reset(seed=0)
    before = digest(vector.core.observe())
    with pytest.raises(ActionError, match=r"^row 1, slate \[7, 3, 7, 4, 2\]"):
        vector.step([[1, 2, 3, 4, 5], [7, 3, 7, 4, 2]])
    assert digest(vector.core.observe()) == before


@pytest.mark.parametrize("mode", ["NextStep", "Disabled"])
@pytest.mark.parametrize("junk", [0, -1, 10**6])
def test_a_resting_row_may_hold_anything(world, mode, junk):
    env = SlateVectorEnv(2, world, autoreset_mode=mode, duplicates="raise", session="stay")
    env.reset(seed=0)
    env._over[:] = [False, True]
    *_, info = env.step([[1, 2, 3, 4, 5], [junk] * 5])
    assert info["shown"].tolist() == [[1, 2, 3, 4, 5], [0] * 5]
    assert info["_shown"].tolist() == [True, False]
    assert info["duplicates"].tolist() == [0, 0]


@given(st.lists(st.lists(st.integers(1, 6), min_size=5, max_size=5), min_size=1, max_size=4))
def test_dropping_keeps_the_first_of_each_item_in_order(rows):
    slates, dropped = drop_duplicates(np.array(rows))
    for row, slate, count in zip(rows, slates.tolist(), dropped.tolist(), strict=True):
        kept = list(dict.fromkeys(row))
        assert slate == kept + [0] * (5 - len(kept))
        assert count == 5 - len(kept)
