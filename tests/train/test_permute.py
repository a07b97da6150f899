from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from usermirror_gym.scenes import Scene
from usermirror_gym.train.objectives.sequences import (
    epoch_keys,
    name_keys,
    orders,
    shortened,
    shuffled_rows,
    wrong_options,
)

NAMES = name_keys([f"tiny/u{i}/i{i * 7}" for i in range(2_000)])


def drawn(epoch: int, count: int, seed: int = 0, names=NAMES) -> list[tuple[int, ...]]:
    return orders(epoch_keys(seed, epoch, names), count)


def test_every_permutation_is_equally_likely_over_scenes_and_epochs():
    found = [order for epoch in range(6) for order in drawn(epoch, 3)]
    counts = np.array([found.count(p) for p in permutations(range(3))])
    expected = len(found) / 6
    assert ((counts - expected) ** 2 / expected).sum() < 20.5  # chi-square, 5 df, p = .001


@pytest.mark.parametrize("scene", [0, 1, 2])
def test_a_scene_meets_every_position_over_the_epochs(scene):
    places = [drawn(e, 5, names=NAMES[scene : scene + 1])[0].index(2) for e in range(1_500)]
    counts = np.bincount(places, minlength=5)
    assert ((counts - 300) ** 2 / 300).sum() < 18.5  # 4 df, p = .001


def test_epochs_are_independent_of_each_other():
    first, second = (np.array(drawn(e, 4))[:, 0] for e in (0, 1))
    assert np.mean(first == second) == pytest.approx(0.25, abs=0.04)


def test_an_order_depends_on_seed_epoch_and_scene_only():
    whole = drawn(2, 6)
    alone = [drawn(2, 6, names=NAMES[i : i + 1])[0] for i in (0, 7, 1_999)]
    assert alone == [whole[i] for i in (0, 7, 1_999)]
    assert orders(epoch_keys(0, 2, NAMES[:2]), 6)[0] == whole[0]
    assert drawn(2, 6, seed=1)[:50] != whole[:50]
    assert drawn(3, 6)[:50] != whole[:50]


def test_lists_of_different_lengths_are_permutations_of_their_own_length():
    for place, n in enumerate((1, 2, 5, 26)):
        (order,) = orders(epoch_keys(0, 0, NAMES[place : place + 1]), n)
        assert sorted(order) == list(range(n))


def test_wrong_options_are_never_right_and_equally_likely():
    own = epoch_keys(0, 0, NAMES)
    targets = np.arange(len(NAMES)) % 4
    wrong = wrong_options(own, np.full(len(NAMES), 4), targets)
    assert not np.any(wrong == targets)
    assert np.bincount(wrong, minlength=4).min() > 400
    assert wrong_options(own[:2], np.array([2, 2]), np.array([0, 1])).tolist() == [1, 0]


def test_histories_keep_their_latest_lines():
    scene = Scene(1, (4, 5, 6), (1.0, 2.0, 3.0), (30, 20, 10), (7, 8), behaviours=("a", "b", "c"))
    lengths = set()
    for epoch in range(40):
        short = shortened(scene, epoch_keys(0, epoch, NAMES[:1]), (0, 3))
        n = len(short.history)
        lengths.add(n)
        assert short.history == scene.history[3 - n :]
        assert (short.ages, short.ratings) == (scene.ages[3 - n :], scene.ratings[3 - n :])
        assert short.behaviours == scene.behaviours[3 - n :]
    assert lengths == {0, 1, 2, 3}
    assert shortened(scene, epoch_keys(0, 0, NAMES[:1]), None) is scene
    bare = Scene(1, (4, 5), (1.0, 2.0), (30, 20), (7,))
    assert shortened(bare, epoch_keys(0, 0, NAMES[:1]), (1, 1)).behaviours == ()


def test_rows_are_shuffled_anew_in_every_epoch():
    first, second = shuffled_rows(0, 0, 100), shuffled_rows(0, 1, 100)
    assert sorted(first) == sorted(second) == list(range(100))
    assert np.mean(first == second) < 0.1
    assert shuffled_rows(0, 0, 100).tolist() == first.tolist()
