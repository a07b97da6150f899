"""From scores of an LLM to choice probabilities, and how the few weights between them are fitted.

Everything here is a conditional logit (McFadden, Conditional logit analysis of qualitative choice
behavior, 1974): the probability of an option is proportional to the exponential of its utility,
and *none of these* is an option with a utility of its own.

Shapes: S scenes, lists padded to K places.  ``mask`` ``(S, K)`` marks the places that hold an
item.  ``targets`` ``(S,)`` are the chosen places; the length of a scene's own list means *none of
these*.  Log-probabilities are ``(S, K + 1)`` float64 natural logarithms, *none of these* last and
minus infinity where there is no option.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from usermirror_gym.errors import ConfigError, DataError
from usermirror_gym.types import BoolArray, FloatArray, IntArray

_PRIOR = 3.0
"""Standard deviation of the normal prior on each (standardised) weight.  It only decides where the
scenes say next to nothing: features that move together, scenes that can be separated."""
_STEEPEST, _FLATTEST = 100.0, 0.01
"""Bounds of the inverse temperature."""


@dataclass(frozen=True)
class LikelihoodWeights:
    """How the likelihood of an item's text becomes its utility.

    With c the log-probability of the text given profile and history, u that given nothing, and n
    its number of tokens::

        utility = conditional * c + unconditional * u
                + conditional_per_token * c / n + unconditional_per_token * u / n + tokens * n
    """

    conditional: float = 0.0
    unconditional: float = 0.0
    conditional_per_token: float = 1.0
    unconditional_per_token: float = -0.5
    tokens: float = 0.0
    outside: float | None = 0.0
    """Utility of *none of these*; ``None``: the choice is forced."""

    @property
    def coefficients(self) -> FloatArray:
        """``(5,)`` in the order of :func:`likelihood_features`."""
        return np.array(
            [self.conditional, self.unconditional, self.conditional_per_token,
             self.unconditional_per_token, self.tokens]
        )  # fmt: skip


@dataclass(frozen=True)
class ChoiceWeights:
    """What is left to correct in probabilities that an LLM gives directly.

    ``utility = log-probability / temperature + position_bias[place]``.
    """

    temperature: float = 1.0
    position_bias: tuple[float, ...] = ()
    """One number per place of the list, and last that of *none of these*, wherever it was shown;
    places beyond have 0.  Empty: all zero."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ConfigError(
                f"temperature must be a number above 0, got {self.temperature!r}; 1 changes nothing"
            )
        if len(self.position_bias) == 1 or not np.isfinite(self.position_bias).all():
            raise ConfigError(
                f"position_bias must be finite numbers, one per place and one for 'none of these', "
                f"got {list(self.position_bias)}; leave it empty for none"
            )

    def bias(self, places: int) -> FloatArray:
        """``(places + 1,)``, *none of these* last."""
        out = np.zeros(places + 1)
        if self.position_bias:
            *items, out[-1] = self.position_bias
            known = min(places, len(items))
            out[:known] = items[:known]
        return out


def likelihood_features(cond: FloatArray, uncond: FloatArray, n_tokens: FloatArray) -> FloatArray:
    """``(..., 5)``: c, u, c / n, u / n, n; 0 tokens (padding) count as one.

    Args:
        cond: ``(...)`` log-probability of each text given profile and history.
        uncond: the same given nothing.
        n_tokens: how many tokens the text has.
    """
    n = np.maximum(np.asarray(n_tokens, np.float64), 1.0)
    return np.stack([cond, uncond, cond / n, uncond / n, n], axis=-1)


def likelihood_logprobs(
    weights: LikelihoodWeights,
    cond: FloatArray,
    uncond: FloatArray,
    n_tokens: FloatArray,
    mask: BoolArray,
) -> FloatArray:
    """``(S, K + 1)`` log-probabilities of the options.

    Args:
        weights: see :class:`LikelihoodWeights`.
        cond, uncond, n_tokens: ``(S, K)``; what stands where ``mask`` is false does not matter.
        mask: ``(S, K)``.
    """
    hold = [np.where(mask, values, 0.0) for values in (cond, uncond, n_tokens)]
    # One product and sum after another, so that a row does not depend on the batch it is in.
    utilities = (likelihood_features(*hold) * weights.coefficients).sum(axis=-1)
    outside = -np.inf if weights.outside is None else weights.outside
    return _log_softmax(_with_outside(utilities, outside, mask))


def choice_logprobs(weights: ChoiceWeights, logprobs: FloatArray) -> FloatArray:
    """``(S, K + 1)`` corrected log-probabilities; options of probability 0 stay at 0."""
    return _log_softmax(logprobs / weights.temperature + weights.bias(logprobs.shape[1] - 1))


def fit_likelihood(
    cond: FloatArray,
    uncond: FloatArray,
    n_tokens: FloatArray,
    mask: BoolArray,
    targets: IntArray,
    *,
    outside: bool = True,
) -> LikelihoodWeights:
    """The weights of largest posterior probability given observed choices.

    Convex, and the same data always give the same weights.

    Args:
        cond, uncond, n_tokens: ``(S, K)``, see :func:`likelihood_features`.
        mask: ``(S, K)``.
        targets: ``(S,)``.
        outside: whether *none of these* is offered.  Its utility is fitted if somebody took it;
            if nobody did, nothing is known about it and the weights force the choice.

    Raises:
        DataError: no scenes, shapes that differ, scores that are not finite, a target that is not
            on its list, or *none of these* chosen although ``outside`` is false.
    """
    _check_choices(mask, targets, outside)
    for name, values in (("cond", cond), ("uncond", uncond), ("n_tokens", n_tokens)):
        _check_finite(name, values, mask)
    none = targets == mask.sum(axis=1)
    with_outside = outside and bool(none.any())
    features = likelihood_features(*(np.where(mask, x, 0.0) for x in (cond, uncond, n_tokens)))
    mean, scale = _mean_and_scale(features[mask])
    design = np.where(mask[..., None], (features - mean) / scale, 0.0)
    places = np.where(none, mask.shape[1], targets)

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        *slopes, level = parameters if with_outside else [*parameters, -np.inf]
        logprobs = _log_softmax(_with_outside(design @ np.array(slopes), level, mask))
        residual = np.exp(logprobs)
        residual[np.arange(len(places)), places] -= 1.0
        gradient = np.einsum("sk,skf->f", residual[:, :-1], design)
        if with_outside:
            gradient = np.append(gradient, residual[:, -1].sum())
        return _posterior(logprobs, places, gradient, parameters)

    found = _minimum(loss, np.zeros(len(mean) + with_outside))
    slopes = found[: len(mean)] / scale
    level = float(found[-1] + slopes @ mean) if with_outside else None
    c, u, c_each, u_each, n = slopes.tolist()
    return LikelihoodWeights(c, u, c_each, u_each, n, level)


def fit_choice(
    logprobs: FloatArray, mask: BoolArray, targets: IntArray, *, position_bias: bool = True
) -> ChoiceWeights:
    """Temperature and position bias of largest posterior probability given observed choices.

    The biases of the places have mean 0.  If nobody took *none of these*, its bias is 0.

    Args:
        logprobs: ``(S, K + 1)``.
        mask: ``(S, K)``.
        targets: ``(S,)``.
        position_bias: false fits the temperature alone.

    Raises:
        DataError: as :func:`fit_likelihood`; *none of these* is offered where its log-probability
            is finite.
    """
    if logprobs.ndim != 2 or logprobs.shape[1] != mask.shape[1] + 1:
        raise DataError(
            f"logprobs have shape {logprobs.shape}, and a mask {mask.shape} needs "
            f"({mask.shape[0]}, {mask.shape[1] + 1}): put 'none of these' into a last column"
        )
    outside = bool((logprobs[:, -1] > -np.inf).any())
    _check_choices(mask, targets, outside)
    none = targets == mask.sum(axis=1)
    fits_outside = outside and bool(none.any())
    options = np.column_stack([mask, np.full(len(mask), fits_outside)])
    _check_finite("logprobs", logprobs, options)
    places = np.where(none, mask.shape[1], targets)
    held = np.where(options, logprobs, 0.0)

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        utilities = parameters[0] * held
        if position_bias:
            utilities = utilities + parameters[1:]
        logs = _log_softmax(np.where(options, utilities, -np.inf))
        residual = np.exp(logs)
        residual[np.arange(len(places)), places] -= 1.0
        gradient = np.array([(residual * held).sum()])
        if position_bias:
            gradient = np.append(gradient, residual.sum(axis=0))
        return _posterior(logs, places, gradient, parameters - neutral)

    neutral = np.zeros(1 + position_bias * logprobs.shape[1])
    neutral[0] = 1.0  # without evidence nothing is changed
    bounds = [(_FLATTEST, _STEEPEST), *[(None, None)] * (len(neutral) - 1)]
    found = _minimum(loss, neutral, bounds)
    bias = found[1:]
    if position_bias:
        bias = bias - bias[:-1].mean()
        bias[-1] *= fits_outside
    return ChoiceWeights(1.0 / float(found[0]), tuple(bias.tolist()))


def _with_outside(utilities: FloatArray, outside: float, mask: BoolArray) -> FloatArray:
    items = np.where(mask, utilities, -np.inf)
    return np.concatenate([items, np.full((len(items), 1), outside)], axis=1)


def _log_softmax(utilities: FloatArray) -> FloatArray:
    shifted = utilities - utilities.max(axis=1, keepdims=True)
    logs: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs


def _posterior(
    logprobs: FloatArray, places: IntArray, gradient: FloatArray, deviation: FloatArray
) -> tuple[float, FloatArray]:
    """Mean log-loss plus the prior's share of one scene, and the gradient of it."""
    count = len(places)
    weight = 1.0 / (count * _PRIOR**2)
    loss = -logprobs[np.arange(count), places].mean() + weight * (deviation @ deviation) / 2
    return float(loss), gradient / count + weight * deviation


def _minimum(
    loss: Callable[[FloatArray], tuple[float, FloatArray]],
    start: FloatArray,
    bounds: list[tuple[float | None, float | None]] | None = None,
) -> FloatArray:
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


def _check_choices(mask: BoolArray, targets: IntArray, outside: bool) -> None:
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


def _check_finite(name: str, values: FloatArray, mask: BoolArray) -> None:
    if values.shape != mask.shape:
        raise DataError(f"{name} have shape {values.shape}, expected {mask.shape}")
    bad = mask & ~np.isfinite(values)
    if bad.any():
        row, place = (int(i) for i in np.argwhere(bad)[0])
        raise DataError(
            f"{name} of scene {row}, place {place} is {values[row, place]}: scores must be finite. "
            "Look at the texts and the precision of the model."
        )
