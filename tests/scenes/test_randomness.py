"""Numbers that belong to a scene: uniform, independent, and the same in any batch."""

from __future__ import annotations

import numpy as np
from scipy.stats import kstest

from usermirror_gym.scenes.randomness import integers, keys, uniforms

IDS = np.arange(1, 5001)


def test_uniform_and_independent_between_streams_seeds_and_neighbours() -> None:
    own = keys(0, IDS, IDS * 0 + 7)
    a, b = uniforms(own, 0)[:, 0], uniforms(own, 1)[:, 0]
    other = uniforms(keys(1, IDS, IDS * 0 + 7), 0)[:, 0]
    assert kstest(a, "uniform").pvalue > 0.001
    for x, y in ((a, b), (a, other), (a[1:], a[:-1]), (a, uniforms(own, 0, first=1)[:, 0])):
        assert abs(np.corrcoef(x, y)[0, 1]) < 0.05


def test_a_number_does_not_depend_on_its_batch() -> None:
    own = keys(3, IDS)
    whole = uniforms(own, 5, n=4)
    np.testing.assert_array_equal(uniforms(own[17:18], 5, n=2, first=2), whole[17:18, 2:])


def test_order_of_columns_matters() -> None:
    assert not np.isin(keys(0, IDS, IDS + 1), keys(0, IDS + 1, IDS)).any()


def test_integers_cover_the_range_evenly() -> None:
    drawn = integers(keys(0, IDS), 0, 2, 6)
    counts = np.bincount(drawn, minlength=7)[2:]
    assert drawn.min() == 2
    assert drawn.max() == 6
    assert counts.min() > 900
