"""What real users chose after what, as a matrix between items."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse

from usermirror_gym.errors import ConfigError
from usermirror_gym.types import ITEM_ID, TIMESTAMP, USER_ID, FloatArray, IntArray

MOST_ITEMS = 20_000
"""A dense matrix of this side takes 3 GB."""


def choice_counts(events: pd.DataFrame, n_items: int) -> IntArray:
    """``(n_items + 1,)`` how often each item was chosen; 0 for padding."""
    return np.bincount(events[ITEM_ID].to_numpy(np.int64), minlength=n_items + 1)


def follow_matrix(
    events: pd.DataFrame,
    n_items: int,
    *,
    window: int,
    decay: float,
    backwards: float,
    norm_power: float,
) -> FloatArray:
    """``(n, n)`` how much more often j was chosen after i than their counts explain.

    n are the items that were chosen at all, ascending.  ``S[i, j]`` is the sum of
    ``distance ** -decay`` over all pairs in which the same user chose i and then, ``distance`` <=
    ``window`` choices later, j; plus ``backwards`` times the same with i and j in each other's
    place; over ``(n_i n_j) ** norm_power`` with n the number of choices.  The diagonal is 0 and
    the mean 1.  Item-item counts in the manner of Deshpande & Karypis (Item-based top-N
    recommendation algorithms, TOIS 2004) with the order in which items were chosen.

    Args:
        events: with user, item and time.
        n_items: of the catalogue.
        window: the largest distance.
        decay: 0 counts all distances alike.
        backwards: 0 looks only ahead, 1 is symmetric.
        norm_power: 0.5 is the cosine's.

    Raises:
        ConfigError: more items than a dense matrix can hold, or nobody chose twice.
    """
    counts = choice_counts(events, n_items)
    known = np.flatnonzero(counts)
    if len(known) > MOST_ITEMS:
        raise ConfigError(
            f"an affinity head is fitted on a matrix between all chosen items, here {len(known):,} "
            f"and at most {MOST_ITEMS:,}: leave out rare items with min_item_interactions of the "
            "data source, or take another readout"
        )
    ordered = events.sort_values([USER_ID, TIMESTAMP, ITEM_ID], kind="stable")
    users, items = (ordered[c].to_numpy(np.int64) for c in (USER_ID, ITEM_ID))
    place = np.full(n_items + 1, -1, np.int64)
    place[known] = np.arange(len(known))
    after = _pairs(users, place[items], len(known), window, decay).toarray()
    matrix: FloatArray = after + backwards * after.T
    np.fill_diagonal(matrix, 0.0)
    if not matrix.any():
        raise ConfigError(
            "no user chose two different items before the cut: there is nothing to fit"
        )
    size = counts[known].astype(np.float64) ** norm_power
    matrix /= size[:, None]
    matrix /= size
    matrix /= matrix.mean()
    return matrix


def _pairs(
    users: IntArray, items: IntArray, n: int, window: int, decay: float
) -> sparse.csr_matrix:
    """Weighted counts of ordered pairs, ``(n, n)``; events are ordered by user and time."""
    total = sparse.csr_matrix((n, n))
    for distance in range(1, min(window, len(users) - 1) + 1):
        same = users[distance:] == users[:-distance]
        first, second = items[:-distance][same], items[distance:][same]
        weights = np.full(len(first), float(distance) ** -decay)
        total = total + sparse.csr_matrix((weights, (first, second)), shape=(n, n))
    return total
