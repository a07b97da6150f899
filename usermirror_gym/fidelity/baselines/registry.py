"""The classic baselines by name."""

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
from usermirror_gym.fidelity.baselines.item_item import EASE, ItemKNN
from usermirror_gym.fidelity.baselines.learned import Printed, learn_logit, learn_trees
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
    "Pop": Pop(),
    "ItemKNN": ItemKNN(),
    "BPR": Recommender(
        "BPR",
        [
            {"learning_rate": 0.005, "embedding_size": size, "weight_decay": decay}
            for size, decay in ((64, 0.0), (32, 1e-5))
        ],
        servings=((HISTORY, 1.0), *((NEIGHBOURS, decay) for decay in (1.0, 0.8, 0.65))),
        max_epochs=60,
    ),
    "EASE": EASE(),
    "SASRec": Recommender(
        "SASRec",
        [
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
