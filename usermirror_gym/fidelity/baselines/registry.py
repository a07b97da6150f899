"""The classic baselines by name: recommenders, and models over what a scene prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from usermirror_gym.fidelity.baselines.item_item import EASE, ItemKNN
from usermirror_gym.fidelity.baselines.recommenders import HISTORY, NEIGHBOURS, Recommender
from usermirror_gym.measures.choice_models import OptionScorer, fit_logit, fit_trees
from usermirror_gym.types import PAD, BoolArray, FloatArray, IntArray

Learn = Callable[[Past, Settings], OptionScorer]
"""Learns from the scenes of a past whose list contains the choice."""


class Pop(Baseline):
    """``a * log(1 + interactions before T0)``."""

    def settle(self, stages: Stages) -> Trial:
        values = self.build(stages.inner, {}, None)(stages.calibration.batch)
        return judge({}, values, stages.calibration)

    def build(self, past: Past, settings: Settings, store: Path | None) -> Columns:
        weights = np.log1p(past.split.popularity.astype(np.float64))
        return lambda batch: weights[batch.slates][:, :, None]


def learn_logit(past: Past, settings: Settings) -> OptionScorer:
    """Settings: ``ridge``, see :func:`~usermirror_gym.measures.choice_models.fit_logit`."""
    return fit_logit(*_known(past), **settings)


def learn_trees(past: Past, settings: Settings) -> OptionScorer:
    """Settings: those of scikit-learn's HistGradientBoostingClassifier."""
    return fit_trees(*_known(past), past.seed, **settings)


@dataclass
class Printed(Baseline):
    """A model over printed features.

    Attributes:
        learn: fits it.
        options: settings to try.
    """

    learn: Learn
    options: Sequence[Settings]

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


def _feature(values: FloatArray, mask: BoolArray, score: OptionScorer) -> FloatArray:
    """``(S, K, 1)`` scores of features ``(S, K, F)``; 0 where there is no option."""
    return np.where(mask, score(values, mask), 0.0)[:, :, None]


RECIPES: dict[str, Baseline] = {
    "Pop": Pop(),
    "ItemKNN": ItemKNN(),
    "BPR": Recommender(
        model="BPR",
        configs=[
            {"learning_rate": 0.005, "embedding_size": size, "weight_decay": decay}
            for size, decay in ((64, 0.0), (32, 1e-5))
        ],
        servings=((HISTORY, 1.0), *((NEIGHBOURS, decay) for decay in (1.0, 0.8, 0.65))),
        max_epochs=60,
    ),
    "EASE": EASE(),
    "SASRec": Recommender(
        model="SASRec",
        configs=[
            {
                "learning_rate": 0.002, "n_layers": 1, "inner_size": 128,
                "hidden_dropout_prob": 0.3, "attn_dropout_prob": 0.3, "MAX_ITEM_LIST_LENGTH": 10,
            },
        ],
        max_epochs=30,
    ),
    "logit": Printed(learn_logit, [{"ridge": ridge} for ridge in (1.0, 10.0, 30.0, 100.0)]),
    "trees": Printed(
        learn_trees,
        [
            {"max_iter": rounds, "learning_rate": 0.06, "max_leaf_nodes": leaves}
            for leaves in (7, 15)
            for rounds in (60, 120, 240)
        ],
    ),
}  # fmt: skip
"""The classic baselines by name."""
