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
from dataclasses import dataclass, replace

import numpy as np

from usermirror_gym.errors import ConfigError, DataError
from usermirror_gym.measures.choice_models import (
    PRIOR,
    check_choices,
    check_finite,
    fit_linear,
    inclusive_value,
    linear_logprobs,
    log_softmax,
    minimum,
    posterior,
)
from usermirror_gym.types import BoolArray, FloatArray, IntArray

_STEEPEST, _FLATTEST = 100.0, 0.01
"""Bounds of the inverse temperature."""
_PER_WEIGHT = 50
"""Choices for each number of a kind of users that has numbers of its own."""
RENAMED = {"outside": "outside_utility", "worth": "inclusive_value", "appeal": "item_bias"}
"""Weights by the names that they had before: files and options with those are still read."""


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
    outside_utility: float | None = 0.0
    """Utility of *none of these*; ``None``: the choice is forced."""

    @property
    def coefficients(self) -> FloatArray:
        """``(5,)`` in the order of :func:`likelihood_features`."""
        return np.array(
            [self.conditional, self.unconditional, self.conditional_per_token,
             self.unconditional_per_token, self.tokens]
        )  # fmt: skip


@dataclass(frozen=True)
class AffinityWeights:
    """How much taste and item bias count, in two steps.

    Which item, if any, is a conditional logit of ``affinity * affinity_i + item_bias * bias_i``.
    Whether any is taken depends on the list's inclusive value::

        value = log sum_i exp(inclusive_value * affinity_i)
        P(none of these) = 1 / (1 + exp(value - outside_utility))

    as in a nested logit (Ben-Akiva & Lerman, Discrete Choice Analysis, 1985, ch. 10).  The items'
    biases play no part in it: in lists of items that are alike popular they tell which of them is
    taken, and nothing of the utility of a list of unknown items.
    """

    affinity: float = 1.0
    item_bias: float = 1.0
    outside_utility: float | None = 0.0
    """Utility of *none of these*; ``None``: the choice is forced."""
    inclusive_value: float | None = None
    """``None``: both steps are one conditional logit."""

    @property
    def coefficients(self) -> FloatArray:
        """``(2,)`` of which item."""
        return np.array([self.affinity, self.item_bias])

    @property
    def inclusive_value_coefficients(self) -> FloatArray:
        """``(2,)`` of whether any."""
        return (
            self.coefficients
            if self.inclusive_value is None
            else np.array([self.inclusive_value, 0.0])
        )


@dataclass(frozen=True)
class SessionWeights:
    """How much taste counts, and what can be said of an item without knowing the user.

    Which item is a conditional logit of ``match * match_i + general . g_i``, with g the net's bias
    of the item and then the features of :mod:`usermirror_gym.data.appeal`.  Of users who come back
    after an hour and more the weights are others: ``far`` is added to them.  Whether any item is
    taken, with m and g the two parts of that utility::

        value = log sum_i exp(value_match * m_i + value_general * g_i)
        P(none of these) = 1 / (1 + exp(value - outside_utility))
    """

    match: float = 1.0
    general: tuple[float, ...] = (1.0,)
    """Of the net's bias, then of the features; without features one number."""
    far: tuple[float, ...] = ()
    """What is added to match and general; nothing by default."""
    outside_utility: float | None = 0.0
    """Utility of *none of these*; ``None``: the choice is forced."""
    value_match: float = 1.0
    """With both 1 the two steps are one conditional logit."""
    value_general: float = 1.0

    @property
    def coefficients(self) -> FloatArray:
        """``(2, 1 + F)`` always, and after an hour in addition."""
        near = np.array([self.match, *self.general])
        return np.stack([near, np.array(self.far) if self.far else np.zeros_like(near)])


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
    features = likelihood_features(*_held(mask, cond, uncond, n_tokens))
    return linear_logprobs(features, weights.coefficients, weights.outside_utility, mask)


def affinity_logprobs(
    weights: AffinityWeights, affinity: FloatArray, item_bias: FloatArray, mask: BoolArray
) -> FloatArray:
    """``(S, K + 1)`` log-probabilities of the options.

    Args:
        weights: see :class:`AffinityWeights`.
        affinity: ``(S, K)`` how much each item goes with the memory; what stands where ``mask`` is
            false does not matter, here and in the next.
        item_bias: ``(S, K)`` what each item has for everybody.
        mask: ``(S, K)``.
    """
    features = np.stack(_held(mask, affinity, item_bias), axis=-1)
    which = linear_logprobs(features, weights.coefficients, None, mask)
    if weights.outside_utility is None:
        return which
    value = inclusive_value(features, weights.inclusive_value_coefficients, mask)
    return _or_none(which, value - weights.outside_utility)


def session_logprobs(
    weights: SessionWeights, features: FloatArray, far: BoolArray, mask: BoolArray
) -> FloatArray:
    """``(S, K + 1)`` log-probabilities of the options.

    Args:
        weights: see :class:`SessionWeights`.
        features: ``(S, K, 1 + F)`` match and what is general; what stands where ``mask`` is false
            does not matter.
        far: ``(S,)`` whether an hour and more has passed since the newest line.
        mask: ``(S, K)``.
    """
    near, more = weights.coefficients
    slopes = near + more * far[:, None, None]  # (S, 1, 1 + F)
    parts = np.where(mask[..., None], features, 0.0) * slopes
    both = np.stack([parts[..., 0], parts[..., 1:].sum(axis=-1)], axis=-1)
    which = linear_logprobs(both, np.ones(2), None, mask)
    if weights.outside_utility is None:
        return which
    value = inclusive_value(both, np.array([weights.value_match, weights.value_general]), mask)
    return _or_none(which, value - weights.outside_utility)


def _or_none(which: FloatArray, gain: FloatArray) -> FloatArray:
    """``(S, K + 1)``: which item, times whether any; ``gain`` is the logit of that."""
    taken = -np.logaddexp(0.0, -gain)
    return np.column_stack([which[:, :-1] + taken[:, None], -np.logaddexp(0.0, gain)])


def choice_logprobs(weights: ChoiceWeights, logprobs: FloatArray) -> FloatArray:
    """``(S, K + 1)`` corrected log-probabilities; options of probability 0 stay at 0."""
    biased = logprobs / weights.temperature + weights.bias(logprobs.shape[1] - 1)
    logs: FloatArray = log_softmax(biased)
    return logs


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
    check_choices(mask, targets, outside)
    scores = _checked(mask, cond=cond, uncond=uncond, n_tokens=n_tokens)
    found = fit_linear(likelihood_features(*scores), mask, targets, outside=outside)
    c, u, c_each, u_each, n = found.slopes.tolist()
    return LikelihoodWeights(c, u, c_each, u_each, n, found.outside)


def fit_affinity(
    affinity: FloatArray,
    item_bias: FloatArray,
    mask: BoolArray,
    targets: IntArray,
    *,
    outside: bool = True,
) -> AffinityWeights:
    """As :func:`fit_likelihood`, for the two numbers of the affinity readout and their two steps.

    Args:
        affinity, item_bias: ``(S, K)``, see :func:`affinity_logprobs`.
        mask: ``(S, K)``.
        targets: ``(S,)``.
        outside: see :func:`fit_likelihood`.

    Raises:
        DataError: as :func:`fit_likelihood`.
    """
    check_choices(mask, targets, outside)
    features = np.stack(_checked(mask, affinity=affinity, item_bias=item_bias), axis=-1)
    none = targets == mask.sum(axis=1)
    if none.all():
        raise DataError(
            "nobody took an item in these scenes: nothing says which one is liked. Give more scenes"
        )
    took = ~none
    which = fit_linear(features[took], mask[took], targets[took], outside=False)
    taste, general = which.slopes.tolist()
    if not (outside and none.any()):
        return AffinityWeights(taste, general, None)
    value = fit_linear(features[..., :1], mask, targets, outside=True, whether=True)
    return AffinityWeights(taste, general, value.outside, float(value.slopes[0]))


def fit_session(
    features: FloatArray,
    far: BoolArray,
    mask: BoolArray,
    targets: IntArray,
    *,
    outside: bool = True,
) -> SessionWeights:
    """As :func:`fit_likelihood`, for the numbers of the session readout and their two steps.

    Users who come back after an hour have numbers of their own if there are choices enough of both
    kinds of users: 50 for each number.  A log whose lists are hours apart says nothing of what is
    taken within a session, and numbers fitted on the few choices that are there would be noise.

    Args:
        features, far: see :func:`session_logprobs`.
        mask: ``(S, K)``.
        targets: ``(S,)``.
        outside: see :func:`fit_likelihood`.

    Raises:
        DataError: as :func:`fit_likelihood`.
    """
    check_choices(mask, targets, outside)
    check_finite("features", features, np.broadcast_to(mask[..., None], features.shape))
    features = np.where(mask[..., None], features, 0.0)
    none = targets == mask.sum(axis=1)
    if none.all():
        raise DataError(
            "nobody took an item in these scenes: nothing says which one is liked. Give more scenes"
        )
    held, size = far[:, None, None] * features, features.shape[2]
    some = min((far & ~none).sum(), (~far & ~none).sum()) >= _PER_WEIGHT * size
    wide = np.concatenate([features, held], axis=2) if some else features
    slopes = fit_linear(wide[~none], mask[~none], targets[~none], outside=False).slopes
    near, more = slopes[:size], slopes[size:]
    match, *general = near.tolist()
    weights = SessionWeights(match, tuple(general), tuple(more.tolist()), None)
    if not (outside and none.any()):
        return weights
    parts = features * (near + (more * far[:, None, None] if some else 0.0))
    both = np.stack([parts[..., 0], parts[..., 1:].sum(axis=-1)], axis=-1)
    value = fit_linear(both, mask, targets, outside=True, whether=True)
    return replace(
        weights, outside_utility=value.outside, value_match=float(value.slopes[0]),
        value_general=float(value.slopes[1]),
    )  # fmt: skip


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
    check_choices(mask, targets, outside)
    none = targets == mask.sum(axis=1)
    fits_outside = outside and bool(none.any())
    options = np.column_stack([mask, np.full(len(mask), fits_outside)])
    check_finite("logprobs", logprobs, options)
    places = np.where(none, mask.shape[1], targets)
    held = np.where(options, logprobs, 0.0)
    rows, ridge = np.arange(len(places)), 1.0 / (len(places) * PRIOR**2)

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        utilities = parameters[0] * held
        if position_bias:
            utilities = utilities + parameters[1:]
        logs = log_softmax(np.where(options, utilities, -np.inf))
        residual = np.exp(logs)
        residual[rows, places] -= 1.0
        gradient = np.array([(residual * held).sum()])
        if position_bias:
            gradient = np.append(gradient, residual.sum(axis=0))
        chosen = logs[rows, places]
        return posterior(chosen, gradient, parameters - neutral, ridge, len(rows))

    neutral = np.zeros(1 + position_bias * logprobs.shape[1])
    neutral[0] = 1.0  # without evidence nothing is changed
    bounds = [(_FLATTEST, _STEEPEST), *[(None, None)] * (len(neutral) - 1)]
    found = minimum(loss, neutral, bounds=bounds)
    bias = found[1:]
    if position_bias:
        bias = bias - bias[:-1].mean()
        bias[-1] *= fits_outside
    return ChoiceWeights(1.0 / float(found[0]), tuple(bias.tolist()))


def _checked(mask: BoolArray, **values: FloatArray) -> list[FloatArray]:
    for name, own in values.items():
        check_finite(name, own, mask)
    return _held(mask, *values.values())


def _held(mask: BoolArray, *values: FloatArray) -> list[FloatArray]:
    """With 0 where there is no item."""
    return [np.where(mask, own, 0.0) for own in values]
