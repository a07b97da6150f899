"""Tastes and biases of a log: logistic matrix factorisation over all pairs.

Johnson, Logistic Matrix Factorization for Implicit Feedback Data (2014), without his weights for
repeated choices and without sampling: every pair counts once.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from usermirror_gym.data import RecDataset
from usermirror_gym.errors import ConfigError
from usermirror_gym.types import ITEM_ID, USER_ID, FloatArray

_MOST_CELLS = 50_000_000
"""Users times items that are fitted at once; as float64 0.4 GB, of which three are held."""
_BIAS_PENALTY = 0.1
"""Biases are held back less than factors: what all agree on is no taste."""


def logistic_factors(
    dataset: RecDataset, d: int, *, penalty: float, iterations: int, seed: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """User factors, item factors and item biases of largest posterior probability.

    ``P(u had i) = expit(x_u . y_i + a_u + b_i + m)`` over all pairs; ``a_u`` is how active the user
    is and ``m`` how full the log.

    Args:
        dataset: whose interactions, all of them.
        d: numbers of a factor.
        penalty: half of it times the squared factors is added to the loss.
        iterations: of L-BFGS, at most.
        seed: of the start.

    Returns:
        ``(n_users + 1, d)``, ``(n_items + 1, d)`` and ``(n_items + 1,)``, the last with mean 0 over
        items; rows of padding are 0.

    Raises:
        ConfigError: more users times items than can be fitted at once.
    """
    n_users, n_items = dataset.n_users, dataset.n_items
    if n_users * n_items > _MOST_CELLS:
        raise ConfigError(
            f"logistic factors are fitted on all pairs at once, here {n_users:,} users times "
            f"{n_items:,} items and at most {_MOST_CELLS:,}: take a smaller data set"
        )
    had = np.zeros((n_users, n_items))
    events = dataset.interactions
    had[events[USER_ID].to_numpy() - 1, events[ITEM_ID].to_numpy() - 1] = 1.0
    sizes = [n_users * d, n_items * d, n_users, n_items, 1]
    edges = np.cumsum([0, *sizes])

    def parts(flat: FloatArray) -> list[FloatArray]:
        x, y, a, b, m = (flat[i:j] for i, j in pairwise(edges))
        return [x.reshape(n_users, d), y.reshape(n_items, d), a, b, m]

    def loss(flat: FloatArray) -> tuple[float, FloatArray]:
        x, y, a, b, m = parts(flat)
        logits = x @ y.T
        logits += a[:, None]
        logits += b + m
        fit = np.logaddexp(0.0, logits).sum() - (had * logits).sum()
        wrong = expit(logits) - had
        slope = [wrong @ y, wrong.T @ x, wrong.sum(axis=1), wrong.sum(axis=0), wrong.sum()[None]]
        held = [penalty, penalty, _BIAS_PENALTY, _BIAS_PENALTY, 0.0]
        prior = sum(
            0.5 * h * float((p**2).sum()) for h, p in zip(held, (x, y, a, b, m), strict=True)
        )
        full = [s + h * p for s, h, p in zip(slope, held, (x, y, a, b, m), strict=True)]
        return fit + prior, np.concatenate([f.ravel() for f in full])

    start = np.random.default_rng([seed, 0]).normal(0.0, 0.1, int(edges[-1]))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": iterations})
    x, y, _, b, _ = parts(found.x)
    zero = np.zeros((1, d))
    return (
        np.concatenate([zero, x]), np.concatenate([zero, y]),
        np.concatenate([[0.0], b - b.mean()]),
    )  # fmt: skip
