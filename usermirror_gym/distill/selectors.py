"""Scores by which scenes are picked for training: the paper's, and the baselines beside it.

A selector maps an assessment and a seed to ``(S,)`` scores; higher is kept first, NaN never.
Accuracy of a scene is the share of a model's rationales that hit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from usermirror_gym.distill import uncertainty
from usermirror_gym.distill.assessment import Assessment
from usermirror_gym.errors import ConfigError
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
    """Largest IFD below 1; from 1 on the question does not help, and the scene has no score.

    Raises:
        ConfigError: the assessment comes without IFD.
    """
    if assessment.ifd is None:
        raise ConfigError(
            "the selector 'ifd' needs the difficulty of every chosen answer: compute it with "
            "distill.ifd.score_answers and pass it to Assessment.with_ifd"
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
