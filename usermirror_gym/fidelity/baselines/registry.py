"""The classic baselines by name: recommenders, and models over what a scene prints."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from usermirror_gym.fidelity.baselines.base import (
    Baseline,
    Columns,
    Past,
    Settings,
    Stages,
    Trial,
    judge,
)
from usermirror_gym.fidelity.baselines.item_item import EASE, ItemKNN, SequenceKNN
from usermirror_gym.fidelity.baselines.learned import ListModel, NonPersonal, Printed
from usermirror_gym.fidelity.baselines.recommenders import HISTORY, NEIGHBOURS, Recommender


class Pop(Baseline):
    """``a * log(1 + interactions before T0)``."""

    def settle(self, stages: Stages) -> Trial:
        values = self.build(stages.inner, {}, None)(stages.calibration.batch)
        return judge({}, values, stages.calibration)

    def build(self, past: Past, settings: Settings, store: Path | None) -> Columns:
        weights = np.log1p(past.split.popularity.astype(np.float64))
        return lambda batch: weights[batch.slates][:, :, None]


RECIPES: dict[str, Baseline] = {
    "non-personal": NonPersonal(),
    "list model": ListModel(),
    "Pop": Pop(),
    "ItemKNN": ItemKNN(),
    "sequence kNN": SequenceKNN(),
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
    "logit": Printed("logit", [{"ridge": ridge} for ridge in (1.0, 10.0, 30.0, 100.0)]),
    "trees": Printed(
        "trees",
        [
            {"max_iter": rounds, "learning_rate": 0.06, "max_leaf_nodes": leaves}
            for leaves in (7, 15)
            for rounds in (60, 120, 240)
        ],
    ),
}  # fmt: skip
"""The baselines by name; the first know nothing of the user."""
CONTROLS = ("non-personal", "list model")
"""Of them, what a real user has and they lack is the history."""
PAIRS = {"ItemKNN + non-personal": ("ItemKNN", "non-personal")}
"""Utilities of two baselines, weighed together."""
