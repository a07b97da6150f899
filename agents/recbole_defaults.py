"""Settings with which each RecBole model trains in seconds on a CPU; ``config=`` overrides them.

Found with a handful of trials per model on ml-100k, with speed first and compared after its T0:
starting points, not tuned baselines.
"""

from __future__ import annotations

from typing import Any, Final

COMMON: Final[dict[str, Any]] = {
    "epochs": 10,
    "train_batch_size": 2048,
    "MAX_ITEM_LIST_LENGTH": 20,
}
"""For every model that has no row below, and for what its row leaves open."""

NO_TRAINING: Final = ("EASE", "ItemKNN", "SLIMElastic", "ADMMSLIM", "NCEPLRec")
"""Solved in closed form while the model is built."""

DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "BPR": {"epochs": 12, "learning_rate": 0.005},
    "DiffRec": {"epochs": 30, "learning_rate": 0.003, "train_batch_size": 128},
    "EASE": {"reg_weight": 250.0},
    "GRU4Rec": {
        "epochs": 3,
        "learning_rate": 0.003,
        "hidden_size": 64,
        "MAX_ITEM_LIST_LENGTH": 10,
    },
    "ItemKNN": {"k": 200, "shrink": 50.0},
    "LightGCN": {"epochs": 15, "learning_rate": 0.01, "train_batch_size": 4096},
    "MultiDAE": {"epochs": 30, "train_batch_size": 128},
    "MultiVAE": {"epochs": 30, "train_batch_size": 128},
    "NARM": {
        "epochs": 3,
        "learning_rate": 0.003,
        "hidden_size": 64,
        "MAX_ITEM_LIST_LENGTH": 10,
    },
    "NCL": {"num_clusters": 20, "warm_up_step": 5},
    "NeuMF": {"epochs": 4, "learning_rate": 0.003},
    "RaCT": {"pretrain_epochs": 30, "train_batch_size": 128},
    "SASRec": {
        "epochs": 3,
        "learning_rate": 0.003,
        "n_layers": 1,
        "inner_size": 64,
        "hidden_dropout_prob": 0.2,
        "attn_dropout_prob": 0.2,
        "MAX_ITEM_LIST_LENGTH": 10,
    },
}
