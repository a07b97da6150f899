"""Boosted trees over features of options, and how often the highest score is the choice."""

from __future__ import annotations

from typing import Any

import numpy as np

from usermirror_gym.measures.logit import Chooser
from usermirror_gym.types import BoolArray, FloatArray, IntArray


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
