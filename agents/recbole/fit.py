"""Build and train one RecBole model in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import yaml

from usermirror_gym.agents.recbole.data import IdMap, Tables, build_dataset
from usermirror_gym.agents.recbole.models import COMMON, DEFAULTS, NO_TRAINING, model_files

_USER_BATCHES = (
    "CDAE", "DiffRec", "ENMF", "LDiffRec", "MacridVAE", "MultiDAE", "MultiVAE", "RaCT", "RecVAE",
)  # fmt: skip
"""Trained on whole rows of users, hence without sampled negatives."""


@dataclass(frozen=True)
class Built:
    """A RecBole model with its configuration, its data, and both id maps."""

    config: Any
    dataset: Any
    model: Any
    user_ids: IdMap
    item_ids: IdMap


def settings_for(model: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """Our defaults for a model with the user's settings on top."""
    return {**COMMON, **DEFAULTS.get(model, {}), **overrides}


def build(
    model: str,
    settings: dict[str, Any],
    tables: Tables,
    seed: int,
    folder: str,
    *,
    solve: bool = True,
) -> Built:
    """Configuration, data and an untrained model; call inside ``recbole_shim.contained``.

    Args:
        solve: models of ``NO_TRAINING`` solve their equations while they are constructed; false
            leaves that out, for a model whose solution is about to be loaded.
    """
    from recbole.data.transform import construct_transform

    config = _configure(model, settings, tables, seed, folder)
    dataset = build_dataset(config, tables)
    dataset._change_feat_format()  # as Dataset.build() does before it splits
    construct_transform(config)  # adds names of fields to the configuration that models look up
    built = config.model_class(config, dataset) if solve else _unsolved(config, dataset)
    built = built.to(config["device"])
    users = IdMap(dataset.field2id_token[dataset.uid_field], int(tables.users.max()))
    items = IdMap(dataset.field2id_token[dataset.iid_field], tables.n_items)
    return Built(config, dataset, built, users, items)


def _unsolved(config: Any, dataset: Any) -> Any:
    """The model's class with only what its base class sets."""
    import torch
    from recbole.model.abstract_recommender import GeneralRecommender

    model = config.model_class.__new__(config.model_class)
    GeneralRecommender.__init__(model, config, dataset)
    model.center_columns = bool(config["center_columns"])
    model.dummy_param = torch.nn.Parameter(torch.zeros(1))
    return model


class _EnoughError(Exception):
    """Leaves RecBole's loop over epochs."""


def train(built: Built, *, progress: bool, after_epoch: Callable[[], bool] | None = None) -> None:
    """Train on all events; nothing is written to disk.

    Args:
        after_epoch: called after every epoch; training ends when it says True.
    """
    from recbole.utils import get_trainer
    from tqdm import tqdm

    config = built.config
    if config["model"] in NO_TRAINING:
        return
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, built.model)
    with tqdm(
        total=trainer.epochs, desc=config["model"], unit="epoch", disable=not progress
    ) as bar:
        run_epoch = trainer._train_epoch

        def epoch(*args: Any, **kwargs: Any) -> Any:
            loss = run_epoch(*args, **kwargs)
            bar.update()
            if after_epoch is not None and after_epoch():
                raise _EnoughError
            return loss

        trainer._train_epoch = epoch
        with suppress(_EnoughError):
            trainer.fit(_loader(built), saved=False, verbose=False, show_progress=False)


def _configure(model: str, settings: dict[str, Any], tables: Tables, seed: int, folder: str) -> Any:
    from recbole.config import Config

    fixed = {
        "data_path": folder,
        "checkpoint_dir": folder,
        "seed": seed,
        "gpu_id": os.environ.get("CUDA_VISIBLE_DEVICES", "0"),
        "eval_args": {
            "split": {"RS": [1, 0, 0]}, "order": "TO", "group_by": "none", "mode": "full",
        },
        "metrics": ["NDCG"],
        "valid_metric": "NDCG@10",
        "selected_features": list(tables.item_features),
        "load_col": None,
    }  # fmt: skip
    return Config(model, "frame", config_dict={**fixed, **_by_kind(model), **settings})


def _by_kind(model: str) -> dict[str, Any]:
    """What depends on the kind of model: negative sampling and repeated events."""
    from recbole.utils import ModelType, get_model

    negatives = {"distribution": "uniform", "sample_num": 1}
    settings: dict[str, Any] = {"train_neg_sample_args": negatives, "rm_dup_inter": "last"}
    if model in _USER_BATCHES:
        settings["train_neg_sample_args"] = None
    if get_model(model).type == ModelType.SEQUENTIAL:
        del settings["rm_dup_inter"]
        own = yaml.safe_load(model_files()[model].read_text()) or {}
        if own.get("loss_type") == "CE":
            settings["train_neg_sample_args"] = None
    return settings


def _loader(built: Built) -> Any:
    """All events as training batches, as RecBole's ``data_preparation`` makes them."""
    from recbole.data.utils import get_dataloader
    from recbole.sampler import KGSampler, RepeatableSampler, Sampler
    from recbole.utils import ModelType

    config, dataset = built.config, built.dataset
    negatives = config["train_neg_sample_args"]
    sampler = None
    if negatives["distribution"] != "none":
        make = RepeatableSampler if config["repeatable"] else Sampler
        sampler = make(["train"], dataset, negatives["distribution"], negatives["alpha"])
        sampler = sampler.set_phase("train")
    arguments = [config, dataset, sampler]
    if config["MODEL_TYPE"] == ModelType.KNOWLEDGE:
        arguments.append(KGSampler(dataset, negatives["distribution"], negatives["alpha"]))
    return get_dataloader(config, "train")(*arguments, shuffle=True)
