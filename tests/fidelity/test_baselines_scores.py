"""Scores of recommenders over the catalogue, and how they become features of options."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from usermirror_gym.data import RecDataset, TimeSplit
from usermirror_gym.errors import ConfigError
from usermirror_gym.fidelity.baselines import item_item
from usermirror_gym.fidelity.baselines.base import centred
from usermirror_gym.fidelity.baselines.catalogue import TRANSFORMS, catalogue_columns
from usermirror_gym.fidelity.baselines.item_item import (
    ItemItemScorer,
    fit_ease,
    fit_item_knn,
    fit_sequence_knn,
    interaction_matrix,
)
from usermirror_gym.fidelity.baselines.printed import history_matrix
from usermirror_gym.scenes import Scene, SceneBatch
from usermirror_gym.testing.data import tiny_split


def split_of(pairs: list[tuple[int, int]], n_items: int, t0: int = 10_000) -> TimeSplit:
    """One event a second; users and items are numbered from 1."""
    n_users = max(u for u, _ in pairs)
    users = pd.DataFrame({"user_id": range(1, n_users + 1)})
    items = pd.DataFrame(
        {"item_id": range(1, n_items + 1), "title": [f"T{i}" for i in range(n_items)]}
    )
    log = pd.DataFrame(pairs, columns=["user_id", "item_id"]).assign(timestamp=range(len(pairs)))
    return TimeSplit(
        RecDataset.from_tables("s", "movie", users=users, items=items, interactions=log), t0
    )


def scene(history: tuple[int, ...], slate: tuple[int, ...], user: int = 1) -> Scene:
    n = len(history)
    return Scene(user, history, (3.0,) * n, tuple(range(n, 0, -1)), slate)


THREE = [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 1), (4, 3)]
"""Items 1, 2, 3 were taken by 3, 2 and 2 users."""


def test_similarity_is_the_cosine_of_the_audiences():
    weights = fit_item_knn(split_of(THREE, 4)).weights.toarray()
    assert weights[1, 2] == pytest.approx(2 / np.sqrt(3 * 2))
    assert weights[2, 3] == pytest.approx(1 / np.sqrt(2 * 2))
    assert weights[1, 1] == weights[1, 4] == 0


def test_what_follows_what_by_distance_and_direction():
    """One user takes 1, 2, 3 and another 1, 2; nobody's last is followed by the next one's first"""
    log = split_of([(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)], 4)
    plain = {"past_power": 0.0, "list_power": 0.0}
    weights = fit_sequence_knn(log, window=2, distance=1.0, backward=0.25, **plain).weights
    expected = np.zeros((5, 5))
    expected[1, 2], expected[2, 3], expected[1, 3] = 2, 1, 1 / 2
    assert weights.toarray() == pytest.approx(expected + 0.25 * expected.T)
    near = fit_sequence_knn(log, window=1, backward=0.0, past_power=1.0, list_power=0.5).weights
    assert near.toarray()[1, 2] == pytest.approx(2 / (2 * np.sqrt(2)))
    assert near.toarray()[1, 3] == near.toarray()[2, 1] == 0
    # Later lines count for more.
    scorer = fit_sequence_knn(log, window=1, backward=0.0, decay=0.5, **plain)
    scores = scorer.catalogue(SceneBatch.of([scene((2, 1), (2, 3))]))[0]
    assert scores[2] / scores[3] == pytest.approx(2 / 0.5)


def test_powers_and_shrinkage_of_the_similarity():
    weights = fit_item_knn(
        split_of(THREE, 4), past_power=1.0, list_power=0.0, user_power=1.0, shrink=2.0
    ).weights.toarray()
    # Users 1 and 2, with 2 and 3 interactions, took both 1 and 2.
    assert weights[1, 2] == pytest.approx((1 / 2 + 1 / 3) / (3 + 2))
    assert weights[2, 1] == pytest.approx((1 / 2 + 1 / 3) / (2 + 2))


def test_only_the_nearest_neighbours_of_an_item_of_the_list_are_kept():
    split = tiny_split(n_users=60, n_items=40)
    every, few = (fit_item_knn(split, k=k).weights.toarray() for k in (0, 5))
    assert (few > 0).sum(axis=0).max() == 5
    for item in range(1, 41):
        kept = np.sort(few[:, item][few[:, item] > 0])
        assert kept == pytest.approx(np.sort(every[:, item])[::-1][: len(kept)][::-1])


def test_ease_solves_its_equations():
    split = tiny_split()
    weights = np.asarray(fit_ease(split, reg=20.0).weights)
    matrix = interaction_matrix(split).toarray()
    assert np.diag(weights).tolist() == [0.0] * len(weights)
    # Where the diagonal is free the gradient of |X - XB|^2 + reg |B|^2 is zero.
    gradient = matrix.T @ (matrix @ weights - matrix) + 20.0 * weights
    assert gradient[~np.eye(len(weights), dtype=bool)] == pytest.approx(0, abs=1e-8)


def test_ease_refuses_a_catalogue_too_large_to_invert(monkeypatch):
    monkeypatch.setattr(item_item, "EXACT_ITEMS", 10)
    with pytest.raises(ConfigError, match="names="):
        fit_ease(tiny_split(), reg=1.0)


def test_late_lines_weigh_more_and_long_histories_no_more():
    batch = SceneBatch.of([scene((1, 2, 3), (4,)), scene((2,), (4,)), scene((), (4,))])
    weights = history_matrix(batch, 5, decay=0.5).toarray()
    assert weights[0] == pytest.approx(np.array([0, 0.25, 0.5, 1, 0]) / np.sqrt(1.75))
    assert weights[1].tolist() == [0, 0, 1, 0, 0]
    assert weights[2].tolist() == [0] * 5


def test_scores_follow_the_history():
    scorer = ItemItemScorer(sparse.csr_matrix(np.diag([0, 1.0, 2.0, 3.0])), decay=0.5)
    scores = scorer.catalogue(SceneBatch.of([scene((1, 3), (2,))]))
    assert scores[0] == pytest.approx(np.array([0, 0.5, 0, 3]) / np.sqrt(1.5))


class Table:
    """A scorer whose scores are given."""

    def __init__(self, scores):
        self.scores = np.array(scores, float)

    def catalogue(self, batch):
        return self.scores[: len(batch)].copy()


def test_transforms_of_scores_worked_out_by_hand():
    scorer = Table([[7.0, 1.0, 3.0, 2.0]])  # the padding's score means nothing
    batch = SceneBatch.of([scene((1,), (2, 1))])
    columns = catalogue_columns(scorer, list(TRANSFORMS), np.array([0, 0, 1, 5]))(batch)[0]
    total = np.exp([1.0, 3.0, 2.0]).sum()
    assert columns[:, 0].tolist() == [3.0, 1.0]
    assert columns[:, 1] == pytest.approx(np.array([1.0, -1.0]) / np.std([1, 3, 2]))
    assert columns[:, 2] == pytest.approx([3 - np.log(total), 1 - np.log(total)])
    assert columns[:, 3] == pytest.approx(np.log1p([1.5, 0.5]))
    assert columns[:, 4] == pytest.approx(np.log1p([1, 0]))


def test_an_unknown_item_is_as_good_as_the_worst():
    scorer = Table([[0, 1.0, -np.inf, 2.0], [0, -np.inf, -np.inf, -np.inf]])
    batch = SceneBatch.of([scene((1,), (1, 2, 3)), scene((1,), (1, 2, 3))])
    raw = catalogue_columns(scorer, ["raw"], np.zeros(4, int))(batch)[:, :, 0]
    assert raw.tolist() == [[1.0, 1.0, 2.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_user_of_whom_nothing_is_known_likes_all_items_alike(name):
    batch = SceneBatch.of([scene((), (1, 2, 3))])
    values = catalogue_columns(Table(np.zeros((1, 4))), [name], np.zeros(4, int))(batch)
    assert np.ptp(values[0, :, 0]) == 0
    assert np.isfinite(values).all()


def test_large_batches_are_scored_in_parts(monkeypatch):
    from usermirror_gym.fidelity.baselines import catalogue

    split = tiny_split()
    scenes = [scene((i, i + 1), (i + 5, i + 7), user=i) for i in range(1, 20)]
    columns = catalogue_columns(fit_item_knn(split), list(TRANSFORMS), split.popularity)
    whole = columns(SceneBatch.of(scenes))
    monkeypatch.setattr(catalogue, "_CELLS", 41 * 3)
    parts = catalogue_columns(fit_item_knn(split), list(TRANSFORMS), split.popularity)
    assert (parts(SceneBatch.of(scenes)) == whole).all()
    assert (columns(SceneBatch.of(scenes[4:5])) == whole[4:5]).all()


def test_centred_over_the_options_that_are_there():
    values = centred(np.array([[1.0, 3.0, 9.0]]), np.array([[True, True, False]]))
    assert values.tolist() == [[-1.0, 1.0, 0.0]]
