"""Two learned choosers over features of options: a conditional logit and boosted trees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from usermirror_gym.types import BoolArray, FloatArray, IntArray

Chooser = Callable[[FloatArray, BoolArray], FloatArray]
"""Features ``(N, W, F)`` and mask ``(N, W)`` -> scores ``(N, W)``; the highest is chosen."""


def fit_logit(
    features: FloatArray, mask: BoolArray, targets: IntArray, ridge: float = 1.0
) -> Chooser:
    """McFadden's conditional logit: P(option) is the softmax of a weighted sum of its features.

    Args:
        features: ``(N, W, F)``; standardised here, missing values become the mean.
        mask: ``(N, W)`` where there is an option.
        targets: ``(N,)`` the chosen options.
        ridge: penalty of the squared weights, against the N lists together.
    """
    seen = np.where(mask[:, :, None], features, np.nan)[mask]
    centre = np.nan_to_num(np.nanmean(_or_zero(seen), axis=0))
    scale = np.nanstd(_or_zero(seen), axis=0)
    scale = np.where(scale > 1e-9, scale, np.inf)  # a constant explains nothing
    rows = np.arange(len(targets))

    def standard(values: FloatArray) -> FloatArray:
        return np.clip(np.nan_to_num((values - centre) / scale), -5, 5)

    x = standard(features) * mask[:, :, None]

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        utility = np.where(mask, x @ weights, -np.inf)
        chosen = log_softmax(utility, axis=1)[rows, targets]
        excess = softmax(utility, axis=1)
        excess[rows, targets] -= 1
        gradient = np.einsum("nw,nwf->f", excess, x) + ridge * weights
        return float(-chosen.sum() + ridge / 2 * weights @ weights), gradient

    weights = minimize(loss, np.zeros(x.shape[2]), jac=True, method="L-BFGS-B").x
    return lambda values, mask: np.where(mask, standard(values) @ weights, -np.inf)


def fit_trees(
    features: FloatArray, mask: BoolArray, targets: IntArray, seed: int, **settings: Any
) -> Chooser:
    """Gradient-boosted trees on one row per option: was it the choice?

    Args:
        settings: of scikit-learn's HistGradientBoostingClassifier, instead of those given here.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    chosen = np.arange(features.shape[1]) == targets[:, None]
    own = {
        "max_iter": 60, "learning_rate": 0.15, "max_leaf_nodes": 15, "min_samples_leaf": 30,
        "l2_regularization": 1.0, "early_stopping": False, "random_state": seed,
    }  # fmt: skip
    model = HistGradientBoostingClassifier(**{**own, **settings})
    model.fit(features[mask], chosen[mask])

    def score(values: FloatArray, mask: BoolArray) -> FloatArray:
        scores = np.full(mask.shape, -np.inf)
        scores[mask] = model.decision_function(values[mask])
        return scores

    return score


def hits(scores: FloatArray, mask: BoolArray, targets: IntArray) -> FloatArray:
    """``(N,)`` share of the highest-scored options that is the target: ties are shared."""
    ranked = np.where(mask, scores, -np.inf)
    best = np.logical_and(mask, ranked >= ranked.max(axis=1, keepdims=True) - 1e-9)
    return best[np.arange(len(targets)), targets] / np.maximum(best.sum(axis=1), 1)


def _or_zero(values: FloatArray) -> FloatArray:
    """Columns without any value become 0, so that their mean is defined."""
    known = np.isfinite(values).any(axis=0, keepdims=True)
    return np.where(known, values, 0.0)
