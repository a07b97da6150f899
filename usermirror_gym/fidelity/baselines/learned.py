"""A conditional logit and boosted trees over what the scene prints."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from usermirror_gym.fidelity.baselines.past import Past
from usermirror_gym.fidelity.baselines.readings import Settings
from usermirror_gym.measures.choice_models import Chooser, fit_logit, fit_trees
from usermirror_gym.types import BoolArray, FloatArray

Learn = Callable[[Past, Settings], Chooser]
"""Learns from the scenes of a past whose list holds the choice."""


def learn_logit(past: Past, settings: Settings) -> Chooser:
    """Settings: ``ridge``, see :func:`~usermirror_gym.measures.choice_models.fit_logit`."""
    held = past.choices.held
    return fit_logit(
        past.printed_values[held], past.choices.mask[held], past.choices.targets[held], **settings
    )


def learn_trees(past: Past, settings: Settings) -> Chooser:
    """Settings: those of scikit-learn's HistGradientBoostingClassifier."""
    held = past.choices.held
    return fit_trees(
        past.printed_values[held], past.choices.mask[held], past.choices.targets[held],
        past.seed, **settings,
    )  # fmt: skip


def score_feature(values: FloatArray, mask: BoolArray, score: Chooser) -> FloatArray:
    """``(S, K, 1)`` scores of features ``(S, K, F)``; 0 where there is no option."""
    return np.where(mask, score(values, mask), 0.0)[:, :, None]
