"""A nested logit over features of the options: take an item or none, and if one, which.

McFadden, Modelling the choice of residential location (1978).  With an inclusive-value weight of
1 it is the conditional logit with a constant for *none of these*.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_expit, log_softmax, logsumexp

from usermirror_gym.errors import SceneError
from usermirror_gym.types import BoolArray, FloatArray, IntArray

_CLIP = 8.0
"""Standard deviations beyond which a feature says no more."""


@dataclass(frozen=True)
class Leaving:
    """When nothing is taken: logit P(none) = ``constant + by_size log K - inclusive log sum_j
    exp(u_j)`` over the K utilities u.
    """

    constant: float
    by_size: float = 0.0
    inclusive: float = 1.0

    def logit(self, utilities: FloatArray, mask: BoolArray) -> FloatArray:
        """``(S,)`` log-odds of *none of these*."""
        ones, log_size, value = _leaving_features(utilities, mask).T
        return self.constant * ones + self.by_size * log_size - self.inclusive * value


@dataclass(frozen=True)
class NestedLogit:
    """Utility of an option: ``sum_f weights_f * (x_f - centre_f) / scale_f``.

    Attributes:
        weights, centre, scale: one number a feature.
        leaving: ``None``: the choice is forced.
    """

    weights: tuple[float, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    leaving: Leaving | None = None

    def utilities(self, features: FloatArray) -> FloatArray:
        """``(S, K)`` of features ``(S, K, F)``."""
        x = _standard(features, self.centre, self.scale)
        # Unlike a matrix product, it has the same last digits whatever S is.
        return np.einsum("skf,f->sk", x, np.array(self.weights))

    def probs(self, features: FloatArray, mask: BoolArray) -> FloatArray:
        """``(S, K + 1)`` choice probabilities, the last *none of these*; rows sum to 1."""
        utilities = self.utilities(features)
        shares = np.where(mask, np.exp(forced_log_probs(utilities, mask)), 0.0)
        if self.leaving is None:
            none = np.zeros(len(shares))
        else:
            none = np.exp(log_expit(self.leaving.logit(utilities, mask)))
        none[~mask.any(axis=1)] = 1.0
        probs = np.column_stack([shares * (1 - none)[:, None], none])
        return probs / probs.sum(axis=1, keepdims=True)

    def to_json(self) -> dict[str, Any]:
        """Plain types; :meth:`from_json` reads them."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read what :meth:`to_json` gave."""
        leaving = None if values["leaving"] is None else Leaving(**values["leaving"])
        lists = {name: tuple(values[name]) for name in ("weights", "centre", "scale")}
        return cls(**lists, leaving=leaving)


def fit_nested_logit(
    features: FloatArray, mask: BoolArray, targets: IntArray, *, ridge: float = 1.0
) -> NestedLogit:
    """First which item, from the lists that hold the choice, then whether any, from all lists.

    Both are maxima of a likelihood with a small penalty; convex, hence without a seed.

    Args:
        features: ``(S, K, F)``; missing values (NaN) become the mean.
        mask: ``(S, K)`` where there is an option.
        targets: ``(S,)`` the chosen column; K is *none of these*.  Where it is never right the
            choice is forced.
        ridge: penalty of the squared weights, against the scenes together.

    Raises:
        SceneError: no list holds what was chosen.
    """
    held = targets < mask.shape[1]
    if not held.any():
        raise SceneError(
            f"a choice model needs lists that hold the chosen item, none of {len(targets)} does"
        )
    centre, scale = _moments(features[mask])
    x = _standard(features, centre, scale) * mask[:, :, None]
    weights = _fit_weights(x[held], mask[held], targets[held], ridge)
    leaving = None if held.all() else _fit_leaving(x @ weights, mask, ~held, ridge)
    return NestedLogit(
        tuple(weights.tolist()), tuple(centre.tolist()), tuple(scale.tolist()), leaving
    )


def forced_log_probs(utilities: FloatArray, mask: BoolArray) -> FloatArray:
    """``(S, K)`` logarithms of the shares of the items, given that one is taken."""
    with np.errstate(invalid="ignore"):  # lists without items: the caller knows them
        return log_softmax(np.where(mask, utilities, -np.inf), axis=1)


def forced_log_loss(utilities: FloatArray, mask: BoolArray, targets: IntArray) -> float:
    """Mean of minus the log-share of the chosen item, over the lists that hold it."""
    held = np.flatnonzero(targets < mask.shape[1])
    shares = forced_log_probs(utilities[held], mask[held])
    return float(-shares[np.arange(len(held)), targets[held]].mean())


def _fit_weights(x: FloatArray, mask: BoolArray, targets: IntArray, ridge: float) -> FloatArray:
    rows = np.arange(len(targets))

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        log_shares = forced_log_probs(x @ weights, mask)
        excess = np.exp(log_shares)
        excess[rows, targets] -= 1
        slope = np.tensordot(excess, x, axes=2) + ridge * weights
        return float(ridge / 2 * weights @ weights - log_shares[rows, targets].sum()), slope

    return minimize(loss, np.zeros(x.shape[2]), jac=True, method="L-BFGS-B").x


def _fit_leaving(utilities: FloatArray, mask: BoolArray, left: BoolArray, ridge: float) -> Leaving:
    """Logistic regression; the penalty draws towards the plain conditional logit."""
    x = _leaving_features(utilities, mask)
    prior = np.array([0.0, 0.0, -1.0])
    sign = np.where(left, 1.0, -1.0)

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        margin, away = sign * (x @ weights), weights - prior
        missed = np.exp(log_expit(-margin))
        slope = -(sign * missed) @ x + ridge * away
        return float(ridge / 2 * away @ away - log_expit(margin).sum()), slope

    constant, by_size, inclusive = minimize(loss, prior, jac=True, method="L-BFGS-B").x.tolist()
    return Leaving(constant, by_size, -inclusive)


def _leaving_features(utilities: FloatArray, mask: BoolArray) -> FloatArray:
    """``(S, 3)`` 1, log K and the inclusive value of the items."""
    shown = np.where(mask, utilities, -np.inf)
    shown[~mask.any(axis=1)] = 0.0
    size = np.maximum(mask.sum(axis=1), 1)
    return np.column_stack([np.ones(len(shown)), np.log(size), logsumexp(shown, axis=1)])


def _moments(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and deviation of each column; a constant column has a scale of 1 and weight 0."""
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=0), 1)
    centre = np.where(known, values, 0.0).sum(axis=0) / count
    spread = np.sqrt((np.where(known, values - centre, 0.0) ** 2).sum(axis=0) / count)
    return centre, np.where(spread > 1e-9, spread, 1.0)


def _standard(values: FloatArray, centre: Any, scale: Any) -> FloatArray:
    known = np.where(np.isfinite(values), values, centre)
    return np.clip((known - np.asarray(centre)) / np.asarray(scale), -_CLIP, _CLIP)
