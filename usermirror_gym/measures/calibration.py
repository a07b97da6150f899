"""Whether probabilities mean what they say: calibration error, entropy, places in the list."""

from __future__ import annotations

from typing import Any

import numpy as np

from usermirror_gym.measures.bootstrap import Interval, UserBootstrap
from usermirror_gym.measures.choice_scores import FLOOR, ObservedChoices, forced, likeliest
from usermirror_gym.types import FloatArray, IntArray

BINS = 15
_CALIBRATED_DRAWS = 200


def calibration(
    probs: FloatArray,
    choices: ObservedChoices,
    bootstrap: UserBootstrap | None = None,
    seed: int = 0,
) -> dict[str, Any] | None:
    """Calibration of the likeliest item in lists that hold the true one; plain types.

    The expected calibration error is ``sum_b n_b / n * |accuracy_b - confidence_b|`` over bins b
    of confidence, the probability of the likeliest option (Guo et al., On calibration of modern
    neural networks, ICML 2017, eq. 3), with :data:`BINS` bins of equal count, equal confidences
    in one bin (Nguyen & O'Connor, Posterior calibration and exploratory analysis for natural
    language processing models, EMNLP 2015).  It is above 0 even for a calibrated chooser, because
    the accuracy of a bin is measured on finitely many lists; ``if_calibrated`` says how far.

    Resampling adds the same noise once more, so the percentiles of resampled errors lie too high.
    The interval reaches up as far as they rise above their mean, and down as far as they rise
    above the error (the reflected interval of Davison & Hinkley, Bootstrap methods and their
    application, 1997, eq. 5.6), or to 0 where chance alone explains the error.  The bins stay.

    Args:
        probs: ``(S, K + 1)``.
        choices: of the same scenes.
        bootstrap: over their users; without it there are no intervals.
        seed: of the simulated choices behind ``if_calibrated``.

    Returns:
        ``ece``, ``bins`` (:func:`reliability`), ``if_calibrated`` (``mean`` and ``high``, the
        95th percentile, of the error if the choices were drawn from these probabilities),
        ``options_ece`` (every item of every list is a forecast: was it the choice?), and
        ``outside``: ``ece`` and ``bins`` with *none of these* among the options, on all lists.
        Errors are intervals.  ``None`` if no list holds its true item.
    """
    rows, held = np.arange(len(choices)), choices.contains_choice
    if not held.any():
        return None
    shown, targets = choices.shown[held], choices.targets[held]
    items = forced(probs[held], shown)
    confidence = items.max(axis=1)
    best = likeliest(items, shown)
    hit = best[np.arange(len(best)), targets]
    bins = equal_count_bins(confidence)
    chosen = targets[:, None] == np.arange(shown.shape[1])
    everything = likeliest(probs, choices.offered)[rows, choices.targets]
    top = probs.max(axis=1)
    top_bins = equal_count_bins(top)
    of_option = np.nonzero(shown)[0]
    noise = _if_calibrated(confidence, bins, seed)
    return {
        "ece": expected_error(
            confidence, hit, bins, bootstrap, rows[held], noise["high"]
        )._asdict(),
        "if_calibrated": noise,
        "bins": reliability(confidence, hit, bins),
        "options_ece": expected_error(
            items[shown], chosen[shown].astype(float), equal_count_bins(items[shown]), bootstrap,
            rows[held][of_option],
        )._asdict(),
        "outside": {
            "ece": expected_error(top, everything, top_bins, bootstrap, rows)._asdict(),
            "bins": reliability(top, everything, top_bins),
        },
    }  # fmt: skip


def equal_count_bins(confidence: FloatArray, n: int = BINS) -> IntArray:
    """``(N,)`` bin of each value, numbered without gaps; equal values share one."""
    edges = np.unique(np.quantile(confidence, np.arange(1, n) / n))
    bins = np.searchsorted(edges, confidence, side="left")
    return np.unique(bins, return_inverse=True)[1].astype(np.int64)


def expected_error(
    confidence: FloatArray,
    hit: FloatArray,
    bins: IntArray,
    bootstrap: UserBootstrap | None = None,
    scenes: IntArray | None = None,
    chance: float = 0.0,
) -> Interval:
    """The sum in :func:`calibration` over N forecasts, with its interval.

    Args:
        confidence, bins: ``(N,)``.
        hit: ``(N,)`` 1, 0, or a share where options tie.
        bootstrap: over the users of the scenes; without it there is no interval.
        scenes: ``(N,)`` the scene of each forecast.
        chance: errors up to this one are no evidence of any.
    """
    # n_b times the difference of two means is the difference of two sums.
    excess = hit - confidence
    value = float(np.abs(np.bincount(bins, excess)).sum() / len(excess))
    if bootstrap is None or scenes is None or len(np.unique(bootstrap.user_ids[scenes])) < 2:
        return Interval(value, np.nan, np.nan)
    n_scenes, n_bins = len(bootstrap.user_ids), int(bins.max()) + 1
    cells = np.bincount(scenes * n_bins + bins, excess, n_scenes * n_bins)
    totals = bootstrap.weights @ cells.reshape(n_scenes, n_bins)
    counts = bootstrap.weights @ np.bincount(scenes, minlength=n_scenes).astype(np.float64)
    errors = np.full(len(counts), np.nan)
    np.divide(np.abs(totals).sum(axis=1), counts, out=errors, where=counts > 0)
    _, _, high = bootstrap.interval(value, errors)
    low = 0.0 if value <= chance else max(0.0, 2 * value - high)
    return Interval(value, low, value + high - float(np.nanmean(errors)))


def reliability(confidence: FloatArray, hit: FloatArray, bins: IntArray) -> list[dict[str, Any]]:
    """Of each bin: ``low`` and ``high`` confidence in it, the means, and ``n``."""
    return [
        {
            "low": float(confidence[member].min()), "high": float(confidence[member].max()),
            "confidence": float(confidence[member].mean()),
            "accuracy": float(hit[member].mean()), "n": int(member.sum()),
        }
        for member in (bins == number for number in range(int(bins.max()) + 1))
    ]  # fmt: skip


def _if_calibrated(confidence: FloatArray, bins: IntArray, seed: int) -> dict[str, float]:
    """The error that remains when every confidence is the true chance of a hit."""
    draws = np.random.default_rng(seed).random((_CALIBRATED_DRAWS, len(confidence)))
    excess = (draws < confidence) - confidence
    member = bins[:, None] == np.arange(int(bins.max()) + 1)
    errors = np.abs(excess @ member.astype(float)).sum(axis=1) / len(confidence)
    return {"mean": float(errors.mean()), "high": float(np.quantile(errors, 0.95))}


def entropy(probs: FloatArray, choices: ObservedChoices) -> dict[str, float | None]:
    """Entropies in nats, on lists that hold the true item, *none of these* left out.

    Returns:
        ``mean``: of the probabilities, list by list.  ``real``: the mean surprise ``-log p`` at the
        real choices; the same number if the probabilities are right, more if they are too sure.
    """
    held = choices.contains_choice
    if not held.any():
        return {"mean": None, "real": None}
    items, targets = forced(probs[held], choices.shown[held]), choices.targets[held]
    logs = np.log(np.maximum(items, FLOOR))
    return {
        "mean": float(-(items * logs).sum(axis=1).mean()),
        "real": float(-logs[np.arange(len(items)), targets].mean()),
    }


def positions(
    probs: FloatArray, choices: ObservedChoices, bootstrap: UserBootstrap
) -> list[dict[str, float]]:  # fmt: skip
    """Mean probability of each place among the items, on lists of the commonest length.

    Returns:
        one interval per place; the means add up to 1.
    """
    sizes = choices.shown.sum(axis=1)
    common = int(np.bincount(sizes).argmax())
    shares = forced(probs, choices.shown)[:, :common]
    shares[sizes != common] = np.nan
    return [interval._asdict() for interval in bootstrap.intervals(shares)]
