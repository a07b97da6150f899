"""The conditional logit behind every readout, and how its few weights are fitted.

The probability of an option is proportional to the exponential of its utility, and *none of these*
is an option with a utility of its own (McFadden, Conditional logit analysis of qualitative choice
behavior, 1974).  Shapes and names are those of :mod:`usermirror_gym.simulators.readouts.utility`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from usermirror_gym.errors import DataError
from usermirror_gym.types import BoolArray, FloatArray, IntArray

_PRIOR = 3.0
"""Standard deviation of the normal prior on each (standardised) weight.  It only decides where the
scenes say next to nothing: features that move together, scenes that can be separated."""


class LinearUtility(NamedTuple):
    """``utility = features . slopes``, and that of *none of these*; ``None``: a forced choice."""

    slopes: FloatArray
    outside: float | None


def linear_logprobs(
    features: FloatArray, slopes: FloatArray, outside: float | None, mask: BoolArray
) -> FloatArray:
    """``(S, K + 1)`` log-probabilities of the options.

    Args:
        features: ``(S, K, F)``, finite also where ``mask`` is false.
        slopes: ``(F,)``.
        outside: utility of *none of these*; ``None``: the choice is forced.
        mask: ``(S, K)``.
    """
    # One product and sum after another, so that a row does not depend on the batch it is in.
    utilities = (features * slopes).sum(axis=-1)
    return log_softmax(with_outside(utilities, -np.inf if outside is None else outside, mask))


def fit_linear(
    features: FloatArray, mask: BoolArray, targets: IntArray, *, outside: bool
) -> LinearUtility:
    """Weights of largest posterior probability given observed choices; convex.

    Args:
        features: ``(S, K, F)``, finite also where ``mask`` is false.
        mask: ``(S, K)``.
        targets: ``(S,)``, checked before.
        outside: whether *none of these* is offered.  Its utility is fitted if somebody took it;
            if nobody did, nothing is known about it and the weights force the choice.
    """
    none = targets == mask.sum(axis=1)
    fits_outside = outside and bool(none.any())
    mean, scale = _mean_and_scale(features[mask])
    design = np.where(mask[..., None], (features - mean) / scale, 0.0)
    places = np.where(none, mask.shape[1], targets)

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        *slopes, level = parameters if fits_outside else [*parameters, -np.inf]
        logprobs = log_softmax(with_outside(design @ np.array(slopes), level, mask))
        residual = np.exp(logprobs)
        residual[np.arange(len(places)), places] -= 1.0
        gradient = np.einsum("sk,skf->f", residual[:, :-1], design)
        if fits_outside:
            gradient = np.append(gradient, residual[:, -1].sum())
        return posterior(logprobs, places, gradient, parameters)

    found = minimum(loss, np.zeros(len(mean) + fits_outside))
    slopes = found[: len(mean)] / scale
    return LinearUtility(slopes, float(found[-1] + slopes @ mean) if fits_outside else None)


def linear_worth(features: FloatArray, slopes: FloatArray, mask: BoolArray) -> FloatArray:
    """``(S,)`` what each list is worth: the logarithm of the sum of exponential utilities.

    Args:
        features: ``(S, K, F)``, finite also where ``mask`` is false.
        slopes: ``(F,)``.
        mask: ``(S, K)``; a list without any item is worth minus infinity.
    """
    utilities = np.where(mask, (features * slopes).sum(axis=-1), -np.inf)
    worth: FloatArray = np.logaddexp.reduce(utilities, axis=1)
    return worth


def fit_worth(features: FloatArray, mask: BoolArray, none: BoolArray) -> LinearUtility:
    """Weights of largest posterior probability given whether anything was taken.

    ``P(none) = 1 / (1 + exp(worth - outside))``.

    Args:
        features: ``(S, K, F)``, finite also where ``mask`` is false.
        mask: ``(S, K)``.
        none: ``(S,)`` *none of these* was taken, at least once and not always.
    """
    mean, scale = _mean_and_scale(features[mask])
    design = np.where(mask[..., None], (features - mean) / scale, 0.0)

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        *slopes, level = parameters
        utilities = np.where(mask, design @ np.array(slopes), -np.inf)
        logs = log_softmax(with_outside(utilities, level, mask))
        residual = np.exp(logs[:, -1]) - none
        share = np.exp(log_softmax(utilities))  # of each item in the worth of its list
        gradient = -np.einsum("s,sk,skf->f", residual, share, design)
        gradient = np.append(gradient, residual.sum())
        steps = np.column_stack([np.logaddexp.reduce(logs[:, :-1], axis=1), logs[:, -1]])
        return posterior(steps, none.astype(np.int64), gradient, parameters)

    found = minimum(loss, np.zeros(len(mean) + 1))
    slopes = found[:-1] / scale
    return LinearUtility(slopes, float(found[-1] + slopes @ mean))


def with_outside(utilities: FloatArray, outside: float, mask: BoolArray) -> FloatArray:
    """``(S, K + 1)``: minus infinity where there is no item, *none of these* last."""
    items = np.where(mask, utilities, -np.inf)
    return np.concatenate([items, np.full((len(items), 1), outside)], axis=1)


def log_softmax(utilities: FloatArray) -> FloatArray:
    """Each row less the logarithm of the sum of its exponentials."""
    shifted = utilities - utilities.max(axis=1, keepdims=True)
    logs: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs


def posterior(
    logprobs: FloatArray, places: IntArray, gradient: FloatArray, deviation: FloatArray
) -> tuple[float, FloatArray]:
    """Mean log-loss plus the prior's share of one scene, and the gradient of it."""
    count = len(places)
    weight = 1.0 / (count * _PRIOR**2)
    loss = -logprobs[np.arange(count), places].mean() + weight * (deviation @ deviation) / 2
    return float(loss), gradient / count + weight * deviation


def minimum(
    loss: Callable[[FloatArray], tuple[float, FloatArray]],
    start: FloatArray,
    bounds: list[tuple[float | None, float | None]] | None = None,
) -> FloatArray:
    """Where a loss, given with its gradient, is smallest (L-BFGS)."""
    options = {"maxiter": 2_000, "maxfun": 20_000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 20}
    found: FloatArray = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options
    ).x
    return found


def _mean_and_scale(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Of each column; a column that does not vary has scale 1, and its weight stays 0."""
    mean, scale = values.mean(axis=0), values.std(axis=0)
    varies = scale > 1e-9 * np.maximum(np.abs(mean), 1.0)
    return mean, np.where(varies, scale, 1.0)


def check_choices(mask: BoolArray, targets: IntArray, outside: bool) -> None:
    """Raise DataError unless every target is on its list."""
    if mask.ndim != 2 or targets.shape != mask.shape[:1] or not len(targets):
        raise DataError(
            f"mask has shape {mask.shape} and targets {targets.shape}: give (S, K) and (S,) with "
            "at least one scene"
        )
    counts = mask.sum(axis=1)
    if (mask != (np.arange(mask.shape[1]) < counts[:, None])).any():
        raise DataError("mask has gaps: a list takes the first places of its row")
    wrong = (targets < 0) | (targets > counts - (not outside)) | (counts + outside == 0)
    if wrong.any():
        row = int(wrong.argmax())
        ends = f"0..{counts[row] - 1}" + (f", or {counts[row]} for none of these" * outside)
        raise DataError(
            f"target {int(targets[row])} of scene {row} is not on its list of {counts[row]} items "
            f"(valid: {ends})"
        )


def check_finite(name: str, values: FloatArray, mask: BoolArray) -> None:
    """Raise DataError, with scene and place, if a number of an item is not finite."""
    if values.shape != mask.shape:
        raise DataError(f"{name} have shape {values.shape}, expected {mask.shape}")
    bad = mask & ~np.isfinite(values)
    if bad.any():
        row, place = (int(i) for i in np.argwhere(bad)[0])
        raise DataError(
            f"{name} of scene {row}, place {place} is {values[row, place]}: scores must be finite. "
            "Look at the texts and the precision of the model."
        )
