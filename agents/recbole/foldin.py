"""Fold-in: from what a user consumed to a user vector, over fixed item factors.

After Sarwar et al. (ICCIT 2002), with a learned map in place of the projection, so that it follows
whatever scale the scores of a model have.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from usermirror_gym.types import FloatArray

_MAX_FACTORS = 64
_RIDGE = 10.0
"""Chosen on ml-100k: BPR users served as strangers then reach the accuracy of trained ones."""

Fold = tuple[FloatArray, FloatArray, FloatArray]
"""Item factors V ``(n_items, d)``, map W ``(d, d)``, offset ``(n_items,)``."""


def history_code(rows: sp.csr_matrix, items: FloatArray) -> FloatArray:
    """``(N, d)`` sum of the item factors of a history, divided by the root of its length."""
    lengths = np.maximum(np.asarray(rows.sum(axis=1)), 1.0)
    return np.asarray(rows.astype(np.float64) @ items) / np.sqrt(lengths)


def fit_fold_in(scores: FloatArray, rows: sp.csr_matrix) -> Fold:
    """Factor scores of M users and learn the way from their histories to their factors.

    Args:
        scores: ``(M, n_items)``.
        rows: ``(M, n_items)`` what these users consumed.

    Returns:
        item factors ``(n_items, d)`` with orthonormal columns, the map ``(d, d)``, and the offset
        ``(n_items,)``: a user with history row ``x`` has scores ``offset + code(x) W V'``.
    """
    mean = scores.mean(axis=0)
    centred = scores - mean
    values, vectors = np.linalg.eigh(centred @ centred.T)
    keep = values > max(values[-1] * 1e-8, 1e-12)
    order = np.flatnonzero(keep)[::-1][:_MAX_FACTORS]
    if len(order) == 0:  # everybody has the same scores: growth changes nothing
        return np.zeros((scores.shape[1], 1)), np.zeros((1, 1)), mean
    lengths = np.sqrt(values[order])
    items = centred.T @ (vectors[:, order] / lengths)
    users = vectors[:, order] * lengths
    code = history_code(rows, items)
    offset = code.mean(axis=0)
    code = code - offset
    scale = np.trace(code.T @ code) / len(order)
    gram = code.T @ code + _RIDGE * scale / np.sqrt(len(scores)) * np.eye(len(order))
    weights = np.linalg.solve(gram, code.T @ users)
    return items, weights, mean - offset @ weights @ items.T
