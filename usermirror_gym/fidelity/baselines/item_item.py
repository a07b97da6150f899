"""Recommenders that are one matrix from items of the past to items of the list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import ConfigError
from usermirror_gym.fidelity.baselines.catalogue import Searched
from usermirror_gym.fidelity.baselines.printed import history_matrix
from usermirror_gym.scenes import SceneBatch
from usermirror_gym.types import ITEM_ID, USER_ID, FloatArray

EXACT_ITEMS = 20_000
"""EASE inverts a matrix of this side at most (3 GB)."""


@dataclass(frozen=True)
class ItemItemScorer:
    """Scores ``sum_h decay^(lines since h) * weights[h, i]`` over the items h of the history.

    Attributes:
        weights: ``(n_items + 1, n_items + 1)`` from history to list, sparse or dense.
        decay: what a line is worth against the one after it; at 1 all are worth the same.
    """

    weights: sparse.csr_matrix | FloatArray
    decay: float = 1.0

    def catalogue(self, batch: SceneBatch) -> FloatArray:
        """See :class:`~usermirror_gym.fidelity.baselines.catalogue.CatalogueScorer`."""
        product = history_matrix(batch, self.weights.shape[0], self.decay) @ self.weights
        return product.toarray() if sparse.issparse(product) else np.asarray(product)


def interaction_matrix(split: TimeSplit) -> sparse.csr_matrix:
    """``(n_users + 1, n_items + 1)`` ones where a user touched an item before T0."""
    users, items = (split.before[c].to_numpy() for c in (USER_ID, ITEM_ID))
    shape = (split.dataset.n_users + 1, split.dataset.n_items + 1)
    matrix = sparse.csr_matrix((np.ones(len(users)), (users, items)), shape)
    matrix.data[:] = 1.0
    return matrix


def fit_item_knn(
    split: TimeSplit,
    *,
    k: int = 0,
    shrink: float = 0.0,
    decay: float = 1.0,
    past_power: float = 0.5,
    list_power: float = 0.5,
    user_power: float = 0.0,
) -> ItemItemScorer:
    """Similarity by common users; at the defaults the cosine between the items' audiences.

    ``sum_u n_u^-user_power / (n_h^past_power * n_i^list_power + shrink)`` over the users u who
    touched both h, of the past, and i, of the list; n counts interactions.  Deshpande & Karypis,
    Item-based top-N recommendation algorithms, TOIS 2004 (eq. 5); the shrinkage after Bell &
    Koren, Scalable collaborative filtering, ICDM 2007.

    Args:
        k: neighbours kept for each item of the list; 0 keeps all.
        shrink: against chance meetings of rare items.
        decay: see :class:`ItemItemScorer`.
    """
    matrix = interaction_matrix(split)
    activity = np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1.0)
    together = (matrix.T @ sparse.diags(activity**-user_power) @ matrix).tocoo()
    counts = np.maximum(np.asarray(matrix.sum(axis=0)).ravel(), 1.0)
    off = together.row != together.col
    row, col = together.row[off], together.col[off]
    values = together.data[off] / (counts[row] ** past_power * counts[col] ** list_power + shrink)
    similar = sparse.csc_matrix((values, (row, col)), together.shape)
    return ItemItemScorer((_nearest(similar, k) if k else similar).tocsr(), decay)


def fit_sequence_knn(
    split: TimeSplit,
    *,
    window: int = 10,
    distance: float = 0.5,
    backward: float = 0.3,
    decay: float = 0.8,
    past_power: float = 0.5,
    list_power: float = 0.5,
) -> ItemItemScorer:
    """What follows what in the users' logs, and with a weight of its own what comes before it.

    ``(f(h, i) + backward * f(i, h)) / (n_h^past_power * n_i^list_power)`` for h, of the past, and
    i, of the list, where f sums ``d^-distance`` over all times that the second came d interactions
    after the first in the log of one user; n counts interactions.

    Args:
        window: largest d.
        decay: see :class:`ItemItemScorer`.
    """
    events = split.before.sort_values(USER_ID, kind="stable")  # which are in the order of time
    users, items = (events[c].to_numpy() for c in (USER_ID, ITEM_ID))
    n = split.dataset.n_items + 1
    follows = sparse.csr_matrix((n, n))
    for d in range(1, min(window, len(items) - 1) + 1):
        near = users[d:] == users[:-d]
        pair = (items[:-d][near], items[d:][near])
        follows = follows + sparse.csr_matrix((np.full(near.sum(), d**-distance), pair), (n, n))
    together = (follows + backward * follows.T).tocoo()
    counts = np.maximum(split.popularity.astype(np.float64), 1.0)
    off = together.row != together.col
    row, col = together.row[off], together.col[off]
    values = together.data[off] / (counts[row] ** past_power * counts[col] ** list_power)
    return ItemItemScorer(sparse.csr_matrix((values, (row, col)), (n, n)), decay)


def fit_ease(split: TimeSplit, *, reg: float, decay: float = 1.0) -> ItemItemScorer:
    """Steck, Embarrassingly shallow autoencoders for sparse data, WWW 2019.

    Args:
        reg: penalty of the squared weights.
        decay: see :class:`ItemItemScorer`.

    Raises:
        ConfigError: the catalogue is too large for a dense inverse.
    """
    n_items = split.dataset.n_items
    if n_items > EXACT_ITEMS:
        raise ConfigError(
            f"EASE inverts an n_items x n_items matrix, {split.dataset.name!r} has {n_items:,} "
            f"items and {EXACT_ITEMS:,} is the most: leave it out of names="
        )
    matrix = interaction_matrix(split)
    gram = (matrix.T @ matrix).toarray()
    inverse = np.linalg.inv(gram + reg * np.eye(len(gram)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return ItemItemScorer(weights, decay)


def _nearest(similar: sparse.csc_matrix, k: int) -> sparse.csc_matrix:
    """The k largest entries of each column; of equal ones those of the smaller ids."""
    entries, sizes = similar.tocoo(), np.diff(similar.indptr)
    order = np.lexsort((entries.row, -entries.data, entries.col))
    rank = np.arange(len(order)) - np.repeat(similar.indptr[:-1], sizes)
    kept = np.sort(order[rank < k])
    where = (entries.row[kept], entries.col[kept])
    return sparse.csc_matrix((entries.data[kept], where), similar.shape)


class ItemKNN(Searched):
    """Neighbours by common users, the plain cosine among them."""

    grid: ClassVar[Mapping[str, Sequence[Any]]] = {
        "list_power": (0.5, 0.25, 0.75, 1.0),
        "past_power": (0.5, 0.25, 0.75, 1.0),
        "user_power": (0.0, 0.25, 0.5, 1.0),
        "decay": (1.0, 0.9, 0.8, 0.65, 0.5),
        "shrink": (0.0, 1.0, 5.0, 20.0),
        "k": (0, 50, 100, 200, 400),
    }
    fit = staticmethod(fit_item_knn)


class SequenceKNN(Searched):
    """What follows what."""

    grid: ClassVar[Mapping[str, Sequence[Any]]] = {
        "decay": (0.8, 1.0, 0.9, 0.65, 0.5),
        "backward": (0.3, 0.0, 1.0),
        "distance": (0.5, 0.0, 1.0),
        "window": (10, 3, 20),
        "list_power": (0.5, 0.25, 0.75, 1.0),
        "past_power": (0.5, 0.25, 0.75, 1.0),
    }
    fit = staticmethod(fit_sequence_knn)


class EASE(Searched):
    """The closed-form linear autoencoder."""

    grid: ClassVar[Mapping[str, Sequence[Any]]] = {
        "reg": (1500.0, 50.0, 150.0, 500.0, 5000.0, 15000.0),
        "decay": (1.0, 0.9, 0.8, 0.65, 0.5),
    }
    fit = staticmethod(fit_ease)
