"""A conditional logit over features of the options, with a constant for *none of these*.

McFadden, Conditional logit analysis of qualitative choice behavior (1974).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from usermirror_gym.errors import SceneError
from usermirror_gym.types import BoolArray, FloatArray, IntArray

_CLIP = 8.0
"""Standard deviations beyond which a feature says no more."""


@dataclass(frozen=True)
class OutsideLogit:
    """Utility of an option: ``sum_f weights_f * (x_f - centre_f) / scale_f``.

    Attributes:
        weights, centre, scale: one number a feature.
        outside: utility of *none of these*; ``None``: the choice is forced.
        outside_by_size: what it gains with each unit of ``log K``.  At 1 the length of a list does
            not change how often nothing is taken, at 0 every option more makes it rarer.
    """

    weights: tuple[float, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    outside: float | None = 0.0
    outside_by_size: float = 0.0

    def utilities(self, features: FloatArray) -> FloatArray:
        """``(S, K)`` of features ``(S, K, F)``."""
        return _standard(features, self.centre, self.scale) @ np.array(self.weights)

    def log_probs(self, features: FloatArray, mask: BoolArray) -> FloatArray:
        """``(S, K + 1)`` natural logarithms of the choice probabilities; the last is *none*."""
        leaves = -np.inf if self.outside is None else self.outside
        return _log_probs(self.utilities(features), mask, leaves, self.outside_by_size)

    def to_json(self) -> dict[str, Any]:
        """Plain types; :meth:`from_json` reads them."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read what :meth:`to_json` gave."""
        lists = {name: tuple(values[name]) for name in ("weights", "centre", "scale")}
        return cls(**{**values, **lists})


def fit_outside_logit(
    features: FloatArray, mask: BoolArray, targets: IntArray, *, ridge: float = 1.0
) -> OutsideLogit:
    """The maximum of the likelihood with a small penalty; convex, hence without a seed.

    Args:
        features: ``(S, K, F)``; missing values (NaN) become the mean.
        mask: ``(S, K)`` where there is an option.
        targets: ``(S,)`` the chosen column; K is *none of these*.  Where it is never right the
            choice is forced.
        ridge: penalty of the squared weights, against the S scenes together.

    Raises:
        SceneError: there is no scene to fit on.
    """
    if not len(targets):
        raise SceneError("a conditional logit needs at least one scene whose choice is known")
    centre, scale = _moments(features[mask])
    x = _standard(features, centre, scale) * mask[:, :, None]
    width, count = mask.shape[1], features.shape[2]
    leaves = bool((targets == width).any())
    rows, log_size = np.arange(len(targets)), _log_size(mask)

    def loss(theta: FloatArray) -> tuple[float, FloatArray]:
        outside = theta[-2] if leaves else -np.inf
        log_probs = _log_probs(x @ theta[:count], mask, outside, theta[-1])
        excess = np.exp(log_probs)
        excess[rows, targets] -= 1
        slope = np.concatenate([
            np.einsum("sk,skf->f", excess[:, :-1], x),
            [excess[:, -1].sum(), excess[:, -1] @ log_size],
        ])  # fmt: skip
        penalty = ridge / 2 * float(theta @ theta)
        return float(-log_probs[rows, targets].sum()) + penalty, slope + ridge * theta

    theta = minimize(loss, np.zeros(count + 2), jac=True, method="L-BFGS-B").x.tolist()
    return OutsideLogit(
        tuple(theta[:count]), tuple(centre.tolist()), tuple(scale.tolist()),
        theta[-2] if leaves else None, theta[-1] if leaves else 0.0,
    )  # fmt: skip


def log_loss(log_probs: FloatArray, targets: IntArray) -> float:
    """Mean of minus the logarithm of what was chosen, *none of these* included."""
    return float(-log_probs[np.arange(len(targets)), targets].mean())


def forced_log_loss(utilities: FloatArray, mask: BoolArray, targets: IntArray) -> float:
    """The same among the items alone, over the scenes whose list holds the choice."""
    held = np.flatnonzero(targets < mask.shape[1])
    shares = log_softmax(np.where(mask, utilities, -np.inf)[held], axis=1)
    return log_loss(shares, targets[held])


def probabilities(log_probs: FloatArray) -> FloatArray:
    """Rows that sum to 1 to the last digit that float64 has."""
    return softmax(log_probs, axis=1)


def _log_probs(
    utilities: FloatArray, mask: BoolArray, outside: float, by_size: float
) -> FloatArray:
    leaving = outside + by_size * _log_size(mask)
    everything = np.column_stack([np.where(mask, utilities, -np.inf), leaving])
    return log_softmax(everything, axis=1)


def _log_size(mask: BoolArray) -> FloatArray:
    return np.log(np.maximum(mask.sum(axis=1), 1))


def _moments(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and deviation of each column; a constant column gets an infinite one, and no say."""
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=0), 1)
    filled = np.where(known, values, 0.0)
    centre = filled.sum(axis=0) / count
    spread = np.sqrt((np.where(known, filled - centre, 0.0) ** 2).sum(axis=0) / count)
    return centre, np.where(spread > 1e-9, spread, np.inf)


def _standard(values: FloatArray, centre: Any, scale: Any) -> FloatArray:
    standard = (values - np.asarray(centre)) / np.asarray(scale)
    return np.clip(np.where(np.isfinite(values), standard, 0.0), -_CLIP, _CLIP)
