"""A conditional logit and boosted trees over what the scene prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from usermirror_gym.fidelity.baselines.base import (
    Baseline,
    Columns,
    Past,
    Settings,
    Stages,
    Trial,
    best,
    judge,
)
from usermirror_gym.measures.choice_models import Chooser, fit_logit, fit_trees
from usermirror_gym.types import PAD, BoolArray, FloatArray, IntArray

Learn = Callable[[Past, Settings], Chooser]
"""Learns from the scenes of a past whose list contains the choice."""


def learn_logit(past: Past, settings: Settings) -> Chooser:
    """Settings: ``ridge``, see :func:`~usermirror_gym.measures.choice_models.fit_logit`."""
    return fit_logit(*_known(past), **settings)


def learn_trees(past: Past, settings: Settings) -> Chooser:
    """Settings: those of scikit-learn's HistGradientBoostingClassifier."""
    return fit_trees(*_known(past), past.seed, **settings)


class Printed(Baseline):
    """A model over printed features.

    Args:
        learn: fits it.
        options: settings to try.
    """

    def __init__(self, learn: Learn, options: Sequence[Settings]) -> None:
        self.learn, self.options = learn, options

    def settle(self, stages: Stages) -> Trial:
        choices = stages.calibration
        values = stages.inner.printed.columns(choices.batch)

        def attempt(settings: Settings) -> Trial:
            score = self.learn(stages.inner, settings)
            return judge(settings, _feature(values, choices.shown, score), choices)

        return best(attempt(settings) for settings in self.options)

    def build(self, past: Past, settings: Settings, store: Path | None) -> Columns:
        score = self.learn(past, settings)
        return lambda batch: _feature(past.printed.columns(batch), batch.slates != PAD, score)


def _known(past: Past) -> tuple[FloatArray, BoolArray, IntArray]:
    """Features, lists and choices of the scenes whose list contains the choice."""
    kept = past.choices.contains_choice
    return past.printed_values[kept], past.choices.shown[kept], past.choices.targets[kept]


def _feature(values: FloatArray, mask: BoolArray, score: Chooser) -> FloatArray:
    """``(S, K, 1)`` scores of features ``(S, K, F)``; 0 where there is no option."""
    return np.where(mask, score(values, mask), 0.0)[:, :, None]
