"""What lists are drawn from sees only what is before T0, and computes what its source says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from usermirror_gym.data import RecDataset, TimeSplit
from usermirror_gym.scenes.draw import rankers
from usermirror_gym.scenes.draw.columns import Timeline, spans
from usermirror_gym.scenes.draw.rankers import Rankers, fit_collaborative


def dense(split: TimeSplit) -> np.ndarray:
    matrix = np.zeros((split.dataset.n_users + 1, split.dataset.n_items + 1))
    matrix[split.before["user_id"], split.before["item_id"]] = 1
    return matrix


def test_collaborative_scores_are_the_ideal_low_pass_filter(split: TimeSplit) -> None:
    matrix = dense(split)
    with np.errstate(divide="ignore"):
        users, items = (1 / np.sqrt(matrix.sum(axis=a)) for a in (1, 0))
    users, items = (np.where(np.isfinite(d), d, 0) for d in (users, items))
    _, _, vectors = np.linalg.svd(users[:, None] * matrix * items)
    low = vectors[:8].T @ vectors[:8]
    expected = matrix @ (items[:, None] * low * np.sqrt(matrix.sum(axis=0)))
    got = fit_collaborative(split, dim=8).scores(sparse.csr_matrix(matrix))
    np.testing.assert_allclose(got, expected, atol=2e-5)


def test_what_happens_after_t0_changes_no_ranker(split: TimeSplit) -> None:
    events = split.dataset.interactions
    cut = events[events["timestamp"] < split.t0].reset_index(drop=True)
    blind = TimeSplit(replace(split.dataset, interactions=cut), split.t0)
    a, b = Rankers(split), Rankers(blind)
    np.testing.assert_array_equal(a.split.popularity, b.split.popularity)
    np.testing.assert_array_equal(a.collaborative.factors, b.collaborative.factors)
    everything = TimeSplit(split.dataset, int(events["timestamp"].max()) + 1)
    assert not np.array_equal(split.popularity, everything.popularity)


def test_equal_singular_values_do_not_make_lists_differ_from_run_to_run() -> None:
    """Separate parts of a graph have the singular value 1 each: their vectors mix freely."""
    pairs = [(part, 2 * part + i, part) for part in range(30) for i in range(2)]
    pairs += [(30 + u, 60 + (u + i) % 9, 40 + u) for u in range(12) for i in range(4)]
    data = RecDataset.from_tables(
        "parts",
        "movie",
        users=pd.DataFrame({"user_id": range(42)}),
        items=pd.DataFrame({"item_id": range(69), "title": [f"T{i}" for i in range(69)]}),
        interactions=pd.DataFrame(pairs, columns=["user_id", "item_id", "timestamp"]),
    )
    split = TimeSplit(data, 100)
    assert fit_collaborative(split, dim=20).factors.shape[1] == 0  # would part equal values
    fitted = fit_collaborative(split, dim=34).factors
    assert 31 <= fitted.shape[1] <= 34
    np.testing.assert_allclose(fitted.T @ fitted, np.eye(fitted.shape[1]), atol=1e-6)
    shuffled = data.interactions.sample(frac=1, random_state=0)
    again = fit_collaborative(TimeSplit(replace(data, interactions=shuffled), 100), dim=34).factors
    np.testing.assert_array_equal(fitted, again)


def test_large_matrices_are_decomposed_nearly_as_well(
    split: TimeSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = fit_collaborative(split, dim=4).factors
    monkeypatch.setattr(rankers, "EXACT_SIDE", 5)
    near = fit_collaborative(split, dim=4).factors
    assert np.abs(near @ (near.T @ exact) - exact).max() < 0.02


def test_more_dimensions_than_the_matrix_has_are_cut(split: TimeSplit) -> None:
    assert fit_collaborative(split, dim=10_000).factors.shape[1] < split.dataset.n_users + 1


def test_timeline_counts_only_strictly_earlier_visits(split: TimeSplit) -> None:
    line = Timeline.of(split.dataset)
    for position in range(0, len(line.rows), 37):
        user, time = line.users[position], line.times[position]
        assert line.earlier[position] == (line.times[line.users == user] < time).sum()
        assert line.earlier_than(np.array([user]), np.array([time]))[0] == line.earlier[position]
    events = split.dataset.interactions.iloc[line.rows]
    assert events["item_id"].tolist() == line.items.tolist()


def test_spans_are_the_slices() -> None:
    flat, rows = spans(np.array([3, 10, 7]), np.array([2, 0, 3]))
    assert flat.tolist() == [3, 4, 7, 8, 9]
    assert rows.tolist() == [0, 0, 2, 2, 2]
