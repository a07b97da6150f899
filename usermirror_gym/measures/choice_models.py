"""Choice models: the conditional logit, with one objective and one fit, and boosted trees.

The probability of an option is proportional to the exponential of its utility, a weighted sum of
its features, and *none of these* is an option with a utility of its own (McFadden, Conditional
logit analysis of qualitative choice behavior, 1974).  In a nested logit, whether anything is taken
depends on the inclusive value of the list, the logarithm of the sum of exponential utilities, with
a weight of its own (McFadden, Modelling the choice of residential location, 1978); with a weight of
1 it is the conditional logit.

Shapes and names are those of :mod:`usermirror_gym.simulators.readouts.utility`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_expit, logsumexp, softmax

from usermirror_gym.errors import DataError, SceneError
from usermirror_gym.types import BoolArray, FloatArray, IntArray

Loss = Callable[[FloatArray], tuple[float, FloatArray]]
"""Weights -> what is to be small, and its gradient."""
OptionScorer = Callable[[FloatArray, BoolArray], FloatArray]
"""Features ``(S, K, F)`` and mask ``(S, K)`` -> scores ``(S, K)``; the highest is chosen."""

PRIOR = 3.0
"""Standard deviation of the normal prior on each (standardised) weight of a simulator.  It only
decides where the scenes say next to nothing: features that move together, scenes that can be
separated."""
_CLIP = 8.0
"""Standard deviations beyond which a feature says no more to a nested logit."""
_TIGHT = {"maxiter": 2_000, "maxfun": 20_000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 20}


class Standard(NamedTuple):
    """What makes F features comparable: mean and deviation, ``(F,)`` each."""

    centre: FloatArray
    scale: FloatArray
    """1 where a feature does not vary; its weight stays 0."""
    clip: float = np.inf

    @classmethod
    def of(cls, values: FloatArray, clip: float = np.inf) -> Self:
        """Of values ``(N, F)``; what is not finite is left out."""
        known = np.isfinite(values)
        count = np.maximum(known.sum(axis=0), 1)
        centre = np.where(known, values, 0.0).sum(axis=0) / count
        spread = np.sqrt((np.where(known, values - centre, 0.0) ** 2).sum(axis=0) / count)
        varies = spread > 1e-9 * np.maximum(np.abs(centre), 1.0)
        return cls(centre, np.where(varies, spread, 1.0), clip)

    def __call__(self, values: FloatArray) -> FloatArray:
        """Values ``(..., F)`` in deviations from the mean; what is not finite is the mean."""
        known = np.where(np.isfinite(values), values, self.centre)
        found: FloatArray = np.clip((known - self.centre) / self.scale, -self.clip, self.clip)
        return found


Sums = Literal["mean", "ratio", "blas"]
"""How the objective is added up, which decides last digits and tolerance; what is stored keeps its
own.  A mean over scenes, to a tight tolerance; or sums, with shares that are ratios of exponentials
instead of exponentials of logarithms, or with a gradient that is a product of matrices."""


def log_softmax(utilities: FloatArray) -> FloatArray:
    """Along each row; what scipy's gives, and quicker where rows are few, as in every step."""
    shifted = utilities - utilities.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def fit_weights(
    x: FloatArray, mask: BoolArray, places: IntArray, sums: Sums, *, ridge: float,
    outside: bool | None = None, whether: bool = False,
) -> FloatArray:  # fmt: skip
    """Weights of largest posterior probability given observed choices; convex, without a seed.

    Args:
        x: ``(S, K, F)`` standardised features, 0 where ``mask`` is false.
        mask: ``(S, K)``.
        places: ``(S,)`` the chosen columns; K is *none of these*.
        ridge: penalty of half the squared weights, against the objective.
        outside: whether *none of these* can be taken and has a utility; ``None``: no such option.
        whether: the likelihood is that of taking anything, which needs ``outside``:
            ``P(none) = 1 / (1 + exp(inclusive value - outside))``.

    Returns:
        ``(F,)``, or ``(F + 1,)`` with the utility of *none of these* last.
    """
    rows, n_features, none = np.arange(len(places)), x.shape[2], places == mask.shape[1]
    scale = len(places) if sums == "mean" else 1

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        utilities = np.where(mask, x @ weights[:n_features], -np.inf)
        if outside is not None:
            utilities = with_outside(utilities, weights[-1] if outside else -np.inf, mask)
        logs: FloatArray = log_softmax(utilities)
        if whether:
            chances = np.column_stack([np.logaddexp.reduce(logs[:, :-1], axis=1), logs[:, -1]])
            missed = np.exp(logs[:, -1]) - none
            share = np.exp(log_softmax(utilities[:, :-1]))  # of each item in the inclusive value
            slope = np.append(-np.einsum("s,sk,skf->f", missed, share, x), missed.sum())
            return posterior(chances[rows, none.astype(int)], slope, weights, ridge, scale)
        excess = softmax(utilities, axis=1) if sums == "ratio" else np.exp(logs)
        excess[rows, places] -= 1.0
        items = excess[:, : mask.shape[1]]
        slope = np.tensordot(items, x, 2) if sums == "blas" else np.einsum("sk,skf->f", items, x)
        if outside:
            slope = np.append(slope, excess[:, -1].sum())
        return posterior(logs[rows, places], slope, weights, ridge, scale)

    return minimum(loss, np.zeros(n_features + bool(outside)), _TIGHT if sums == "mean" else {})


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
    options = with_outside(utilities, -np.inf if outside is None else outside, mask)
    logs: FloatArray = log_softmax(options)
    return logs


def fit_linear(
    features: FloatArray, mask: BoolArray, targets: IntArray, *, outside: bool,
    whether: bool = False,
) -> LinearUtility:  # fmt: skip
    """See :func:`fit_weights`; with the prior of simulators.

    Args:
        features: ``(S, K, F)``, finite also where ``mask`` is false.
        mask: ``(S, K)``.
        targets: ``(S,)``, checked before.
        outside: whether *none of these* is offered.  Its utility is fitted if somebody took it;
            if nobody did, nothing is known about it and the weights force the choice.
        whether: fit whether anything is taken, not which.
    """
    none = targets == mask.sum(axis=1)
    fits_outside = outside and bool(none.any())
    standard = Standard.of(features[mask])
    x = np.where(mask[..., None], standard(features), 0.0)
    places, ridge = np.where(none, mask.shape[1], targets), 1.0 / (len(none) * PRIOR**2)
    found = fit_weights(x, mask, places, "mean", ridge=ridge, outside=fits_outside, whether=whether)
    slopes = found[: x.shape[2]] / standard.scale
    level = float(found[-1] + slopes @ standard.centre) if fits_outside else None
    return LinearUtility(slopes, level)


def inclusive_value(features: FloatArray, slopes: FloatArray, mask: BoolArray) -> FloatArray:
    """``(S,)`` what each list is worth: the logarithm of the sum of exponential utilities.

    Args:
        features: ``(S, K, F)``, finite also where ``mask`` is false.
        slopes: ``(F,)``.
        mask: ``(S, K)``; a list without any item is worth minus infinity.
    """
    utilities = np.where(mask, (features * slopes).sum(axis=-1), -np.inf)
    worth: FloatArray = np.logaddexp.reduce(utilities, axis=1)
    return worth


def with_outside(utilities: FloatArray, outside: float, mask: BoolArray) -> FloatArray:
    """``(S, K + 1)``: minus infinity where there is no item, *none of these* last."""
    items = np.where(mask, utilities, -np.inf)
    return np.concatenate([items, np.full((len(items), 1), outside)], axis=1)


def posterior(
    chosen: FloatArray, gradient: FloatArray, deviation: FloatArray, ridge: float, scale: int = 1
) -> tuple[float, FloatArray]:
    """Log-loss of the choices over ``scale``, plus the penalty of the deviation, and its gradient.

    Args:
        chosen: ``(S,)`` log-probabilities of what was chosen.
        gradient: ``(P,)`` of the log-loss, summed over scenes.
        deviation: ``(P,)`` of the parameters from what is assumed without any evidence.
    """
    penalty = ridge * (deviation @ deviation) / 2
    return float(penalty - chosen.sum() / scale), gradient / scale + ridge * deviation


def minimum(
    loss: Loss,
    start: FloatArray,
    options: dict[str, float] = _TIGHT,
    bounds: list[tuple[float | None, float | None]] | None = None,
) -> FloatArray:
    """Where a loss, given with its gradient, is smallest (L-BFGS)."""
    found: FloatArray = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options
    ).x
    return found


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


def fit_logit(
    features: FloatArray, mask: BoolArray, targets: IntArray, ridge: float = 1.0
) -> OptionScorer:
    """A chooser by the conditional logit; *none of these*, if offered, is one of the options.

    Args:
        features: ``(S, K, F)``; standardised here, missing values become the mean.
        mask: ``(S, K)`` where there is an option.
        targets: ``(S,)`` the chosen options.
        ridge: penalty of the squared weights, against the S lists together.
    """
    standard = Standard.of(features[mask], clip=5.0)
    x = standard(features) * mask[:, :, None]
    weights = fit_weights(x, mask, targets, "ratio", ridge=ridge)
    return lambda values, mask: np.where(mask, standard(values) @ weights, -np.inf)


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
        x = Standard(np.array(self.centre), np.array(self.scale), _CLIP)(features)
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
    standard = Standard.of(features[mask], _CLIP)
    x = standard(features) * mask[:, :, None]
    weights = fit_weights(x[held], mask[held], targets[held], "blas", ridge=ridge)
    leaving = None if held.all() else _fit_leaving(x @ weights, mask, ~held, ridge)
    return NestedLogit(
        tuple(weights.tolist()), tuple(standard.centre.tolist()), tuple(standard.scale.tolist()),
        leaving,
    )  # fmt: skip


def forced_log_probs(utilities: FloatArray, mask: BoolArray) -> FloatArray:
    """``(S, K)`` logarithms of the shares of the items, given that one is taken."""
    with np.errstate(invalid="ignore"):  # lists without items: the caller knows them
        logs: FloatArray = log_softmax(np.where(mask, utilities, -np.inf))
    return logs


def forced_log_loss(utilities: FloatArray, mask: BoolArray, targets: IntArray) -> float:
    """Mean of minus the log-share of the chosen item, over the lists that hold it."""
    held = np.flatnonzero(targets < mask.shape[1])
    shares = forced_log_probs(utilities[held], mask[held])
    return float(-shares[np.arange(len(held)), targets[held]].mean())


def _fit_leaving(utilities: FloatArray, mask: BoolArray, left: BoolArray, ridge: float) -> Leaving:
    """Logistic regression; the penalty draws towards the plain conditional logit."""
    x = _leaving_features(utilities, mask)
    prior = np.array([0.0, 0.0, -1.0])
    sign = np.where(left, 1.0, -1.0)

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        margin, away = sign * (x @ weights), weights - prior
        missed = np.exp(log_expit(-margin))
        return posterior(log_expit(margin), -(sign * missed) @ x, away, ridge)

    constant, by_size, inclusive = minimum(loss, prior, {}).tolist()
    return Leaving(constant, by_size, -inclusive)


def _leaving_features(utilities: FloatArray, mask: BoolArray) -> FloatArray:
    """``(S, 3)`` 1, log K and the inclusive value of the items."""
    shown = np.where(mask, utilities, -np.inf)
    shown[~mask.any(axis=1)] = 0.0
    size = np.maximum(mask.sum(axis=1), 1)
    return np.column_stack([np.ones(len(shown)), np.log(size), logsumexp(shown, axis=1)])


def fit_trees(
    features: FloatArray, mask: BoolArray, targets: IntArray, seed: int, **settings: Any
) -> OptionScorer:
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
