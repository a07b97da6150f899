from __future__ import annotations

import numpy as np
import pytest

from usermirror_gym.agents import observations_from_split
from usermirror_gym.agents.learners.item_space import ItemSpace, newest_items
from usermirror_gym.testing.data import tiny_split


@pytest.fixture(scope="module")
def split():
    return tiny_split()


def test_inner_products_of_all_factors_are_the_cosines_of_item_knn(split):
    factors = ItemSpace.of(split, 60).factors.astype(float)
    n, m = split.dataset.n_users + 1, split.dataset.n_items + 1
    matrix = np.zeros((n, m))
    matrix[split.before["user_id"], split.before["item_id"]] = 1.0
    counts = np.maximum(matrix.sum(axis=0), 1.0)
    cosine = matrix.T @ matrix / np.sqrt(counts[:, None] * counts)
    known = matrix.sum(axis=0) > 0
    got = (factors @ factors.T)[np.ix_(known, known)]
    np.testing.assert_allclose(got / got[0, 0], cosine[np.ix_(known, known)], atol=1e-4)


def test_few_factors_keep_the_strongest_directions(split):
    many, few = ItemSpace.of(split, 60), ItemSpace.of(split, 3)
    scale = (many.factors[:, :3] ** 2).sum() / (few.factors**2).sum()
    np.testing.assert_allclose(np.abs(many.factors[:, :3]), np.abs(few.factors) * scale**0.5,
                               atol=1e-4)  # fmt: skip


def test_what_happens_after_t0_changes_nothing(split):
    from dataclasses import replace

    events = split.dataset.interactions
    early = replace(split.dataset, interactions=events[events["timestamp"] < split.t0])
    again = ItemSpace.of(replace(split, dataset=early), 8)
    np.testing.assert_array_equal(again.factors, ItemSpace.of(split, 8).factors)


def test_items_nobody_had_have_no_direction(split):
    assert not ItemSpace.of(split, 8).factors[[0, 40]].any()


def test_newest_items_come_first_and_padding_last(split):
    seen = observations_from_split(split, np.array([1, 10]), history_size=6, slate_size=5)
    length = int(seen["history_length"][0])
    newest = newest_items(seen, 4)
    history = seen["history_items"][0, :length].tolist()
    assert newest[0].tolist() == history[::-1][:4]
    assert newest[1].tolist() == [0, 0, 0, 0]  # no history
    assert newest_items(seen, 9).shape == (2, 9)


def test_arrays_bring_it_back(split):
    space = ItemSpace.of(split, 8)
    again = ItemSpace.from_arrays(space.arrays())
    np.testing.assert_array_equal(again.factors, space.factors)
    np.testing.assert_array_equal(again.popularity, space.popularity)
    seen = observations_from_split(split, np.arange(1, 31), history_size=6, slate_size=5)
    np.testing.assert_array_equal(again.mask(seen), space.mask(seen))
