"""Scores by which scenes are picked for training: the paper's, and the baselines beside it.

A selector maps an assessment and a seed to ``(S,)`` scores; higher is kept first, NaN never.
Accuracy of a scene is the share of a model's rationales that hit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from usermirror_gym.distill import uncertainty
from usermirror_gym.distill.assessment import Assessment
from usermirror_gym.errors import ConfigError, DataError
from usermirror_gym.types import FloatArray

Selector = Callable[[Assessment, int], FloatArray]


def difficulty(assessment: Assessment, seed: int) -> FloatArray:
    """Epistemic uncertainty of the weak model minus that of the strong one (Wei et al. 2026)."""
    weak, strong = assessment.weak.predictions, assessment.strong.predictions
    return uncertainty.difficulty(weak, strong)


def random(assessment: Assessment, seed: int) -> FloatArray:
    """A number of each scene's own, in [0, 1)."""
    return np.array(
        [uncertainty.scene_generator(seed, "random", s).random() for s in assessment.scene_ids]
    )


def high_accuracy(assessment: Assessment, seed: int) -> FloatArray:
    """Scenes that the strong model gets right."""
    return assessment.strong.hit_rate


def low_accuracy(assessment: Assessment, seed: int) -> FloatArray:
    """Scenes that the strong model gets wrong."""
    return -assessment.strong.hit_rate


def accuracy_difference(assessment: Assessment, seed: int) -> FloatArray:
    """Scenes that the strong model gets right and the weak one does not."""
    return assessment.strong.hit_rate - assessment.weak.hit_rate


def highest_ifd(assessment: Assessment, seed: int) -> FloatArray:
    """Largest :func:`ifd` below 1; from 1 on the prompt does not help, and the scene has no score.

    Raises:
        ConfigError: the assessment comes without IFD.
    """
    if assessment.ifd is None:
        raise ConfigError(
            "the selector 'ifd' needs token log-likelihoods of the answers: compute "
            "distill.selectors.ifd and pass it to Assessment.with_ifd"
        )
    return np.where(assessment.ifd < 1, assessment.ifd, np.nan)


SELECTORS: dict[str, Selector] = {
    "difficulty": difficulty,
    "random": random,
    "high_accuracy": high_accuracy,
    "low_accuracy": low_accuracy,
    "accuracy_difference": accuracy_difference,
    "ifd": highest_ifd,
}


def ifd(given_prompt: Sequence[FloatArray], alone: Sequence[FloatArray]) -> FloatArray:
    """``(S,)`` instruction-following difficulty: ``PPL(answer | prompt) / PPL(answer)``.

    The perplexity of an answer of T tokens is ``exp(-mean_t log p_t)``.  Source: Li et al.,
    *Superfiltering*, ACL 2024 (with perplexities; *From Quantity to Quality*, NAACL 2024, has the
    ratio of the mean losses).

    Args:
        given_prompt: of each scene ``(T_s,)`` natural log-likelihoods of the answer's tokens.
        alone: the same tokens without the prompt before them.

    Raises:
        DataError: the two do not fit, or a value is not the logarithm of a probability.
    """
    if len(given_prompt) != len(alone):
        raise DataError(f"IFD of {len(given_prompt)} answers with, {len(alone)} without prompt")
    means = np.array(
        [_means(s, *pair) for s, pair in enumerate(zip(given_prompt, alone, strict=True))]
    ).reshape(-1, 2)
    return np.exp(means[:, 1] - means[:, 0])


def _means(row: int, given: FloatArray, alone: FloatArray) -> tuple[float, float]:
    given, alone = np.asarray(given, np.float64), np.asarray(alone, np.float64)
    if given.shape != alone.shape or given.ndim != 1 or not len(given):
        raise DataError(
            f"answer {row} (counted from 0): {given.shape} log-likelihoods with the prompt, "
            f"{alone.shape} without; it must be the same tokens, at least one"
        )
    both = np.stack([given, alone])
    if not (np.isfinite(both) & (both <= 0)).all():
        raise DataError(
            f"answer {row} (counted from 0): log-likelihoods must be finite and at most 0, got "
            f"{both.min()} .. {both.max()}"
        )
    return float(given.mean()), float(alone.mean())
