"""Settings with which each RecBole model trains in seconds on a CPU; ``config=`` overrides them.

Found with a handful of trials per model on ml-100k, with speed first and compared after its T0:
starting points, not tuned baselines.
"""

from __future__ import annotations

import importlib.util
import math
import re
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from usermirror_gym.errors import AgentError, MissingDependencyError, UnknownNameError, nearest

COMMON: Final[dict[str, Any]] = {
    "epochs": 10,
    "train_batch_size": 2048,
    "MAX_ITEM_LIST_LENGTH": 20,
}
"""For every model that has no row below, and for what its row leaves open."""

NO_TRAINING: Final = ("EASE", "ItemKNN", "SLIMElastic", "ADMMSLIM", "NCEPLRec")
"""Solved in closed form while the model is built."""

_SHORT: Final = {"epochs": 3, "learning_rate": 0.003, "MAX_ITEM_LIST_LENGTH": 10}

DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "BPR": {"epochs": 12, "learning_rate": 0.005},
    "DiffRec": {"epochs": 30, "learning_rate": 0.003, "train_batch_size": 128},
    "EASE": {"reg_weight": 250.0},
    "GRU4Rec": {**_SHORT, "hidden_size": 64},
    "ItemKNN": {"k": 200, "shrink": 50.0},
    "LightGCN": {"epochs": 15, "learning_rate": 0.01, "train_batch_size": 4096},
    "MultiDAE": {"epochs": 30, "train_batch_size": 128},
    "MultiVAE": {"epochs": 30, "train_batch_size": 128},
    "NARM": {**_SHORT, "hidden_size": 64},
    "NCL": {"num_clusters": 20, "warm_up_step": 5},
    "NeuMF": {"epochs": 4, "learning_rate": 0.003},
    "RaCT": {"pretrain_epochs": 30, "train_batch_size": 128},
    "SASRec": {
        **_SHORT,
        "n_layers": 1,
        "inner_size": 64,
        "hidden_dropout_prob": 0.2,
        "attn_dropout_prob": 0.2,
    },
}


_NEVER_FOREIGN: Final = (
    "additional_feat_suffix", "checkpoint_dir", "data_path", "dataloaders_save_path",
    "dataset_save_path", "device", "gpu_id", "load_col", "log_wandb", "mf_pretrain_path",
    "mlp_pretrain_path", "pre_model_path", "preload_weight", "pretrain_path", "save_dataloaders",
    "save_dataset", "teacher", "transform", "unload_col", "use_gpu", "wandb_project", "warm_up",
)  # fmt: skip
"""Settings that name files, devices, servers, or classes that RecBole looks up by evaluating."""
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}(@\d{1,4})?")


def check_saved(model: str, settings: Any) -> dict[str, Any]:
    """Settings of a model that stand in a file, which may be anybody's.

    Raises:
        ValueError: one that this model does not have, that could reach beyond the model, or whose
            value is more than numbers and words, or lists of them.
    """
    if not isinstance(settings, dict):
        raise ValueError(f"its settings are {type(settings).__name__}, and must be a mapping")
    own = _own_settings(model)
    known = {*COMMON, *DEFAULTS.get(model, {}), *own} - {*_NEVER_FOREIGN}
    for name, value in settings.items():
        if name in own and (value in (None, False, "") or value == own[name]):
            continue  # off, or as it is anyway
        if name not in known:
            near = nearest(str(name), sorted(known))
            raise ValueError(
                f"its setting {name!r} is none that a saved {model} may have"
                + (f"; did you mean {near!r}?" if near else "")
            )
        if not _is_plain(value):
            raise ValueError(
                f"its setting {name} = {value!r} is more than numbers and words, or lists of them"
            )
    return settings


@cache
def _own_settings(model: str) -> dict[str, Any]:
    """What RecBole's own files set for a model."""
    folder = model_files()[model].parent
    kinds = sorted((folder.parent / "quick_start_config").glob("*.yaml"))
    files = [*kinds, folder.parent / "overall.yaml", model_files()[model]]
    found: dict[str, Any] = {}
    for file in files:
        found |= yaml.safe_load(file.read_text("utf-8")) or {}
    return found


def _is_plain(value: Any, levels: int = 2) -> bool:
    if isinstance(value, dict):
        return all(_WORD.fullmatch(str(name)) for name in value) and _is_plain([*value.values()])
    if isinstance(value, list):
        return levels > 0 and len(value) <= 100 and all(_is_plain(v, levels - 1) for v in value)
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    return value is None or (isinstance(value, int | float) and math.isfinite(value))


_NEEDS_TREE = "it is a wrapper around a tree-boosting package with a training loop of its own"

UNUSABLE: dict[str, str] = {
    "GRU4RecKG": "it needs pretrained entity embeddings",
    "KGAT": "it needs the package dgl, which has no build for this Python and torch",
    "KGIN": "it needs the package torch_scatter, which has no build for this torch",
    "KSR": "it needs pretrained entity embeddings",
    "MCCLK": "it needs the package torch_scatter, which has no build for this torch",
    "S3Rec": "it is pretrained in one run and fine-tuned in another",
    "lightgbm": _NEEDS_TREE,
    "xgboost": _NEEDS_TREE,
}


def unusable_reason(name: str) -> str | None:
    """Why a model that RecBole has cannot run here; ``None`` if there is no known reason."""
    folded = {key.casefold(): why for key, why in UNUSABLE.items()}
    return folded.get(name.casefold())


@cache
def model_files() -> dict[str, Path]:
    """RecBole's own settings of all models that it has, by name."""
    # find_spec does not import RecBole, which would load torch.
    spec = importlib.util.find_spec("recbole")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError("recbole", "dev")
    folder = Path(spec.submodule_search_locations[0]) / "properties" / "model"
    return {path.stem: path for path in folder.glob("*.yaml")}


def available_models() -> list[str]:
    """Names of the RecBole models that can be served, alphabetical."""
    return sorted(name for name in model_files() if name not in UNUSABLE)


def canonical_model(name: str) -> str:
    """RecBole's spelling of a model name, whatever its upper and lower case.

    Raises:
        UnknownNameError: RecBole has no such model; suggests the nearest one.
        AgentError: the model is known not to run here; says why.
    """
    if reason := unusable_reason(name):
        raise AgentError(f"RecBole model {name!r} cannot be used: {reason}. Choose another one.")
    for model in available_models():
        if model.casefold() == name.casefold():
            return model
    raise UnknownNameError("RecBole model", name, available_models())
