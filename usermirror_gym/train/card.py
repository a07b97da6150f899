"""The model card of a trained simulator, and the same facts for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import metadata_load

from usermirror_gym.configs.settings import written
from usermirror_gym.engines import DEFAULT_CHECKPOINT, resolve_checkpoint
from usermirror_gym.files import write_json, write_text
from usermirror_gym.report.page import render
from usermirror_gym.report.text import date
from usermirror_gym.run_folder import package_versions
from usermirror_gym.train.config import TrainConfig

Facts = Mapping[str, Any]
_LICENCES = {DEFAULT_CHECKPOINT: "apache-2.0"}
"""Of checkpoints that come without a model card."""
_CURVE_ROWS = 12


def write_card(
    config: TrainConfig,
    folder: Path,
    stages: Sequence[Facts],
    scores: Facts,
    manifest: Facts,
    manifest_sha256: str,
) -> None:
    """Write ``README.md`` and, last, ``training.json``.

    Args:
        folder: of the checkpoint.
        stages: what each stage did, see :class:`~usermirror_gym.train.loop.trainers.StageResult`.
        scores: from :func:`usermirror_gym.train.calibrate.scores_of`.
        manifest: of the build that was trained on.
    """
    sources = manifest["sources"]
    terms = licence(config.checkpoint)
    view = {
        "config": config,
        "manifest": manifest_sha256,
        "header": {
            "base_model": config.checkpoint,
            "library_name": _library(config),
            "license": terms,
        },
        "scores": scores,
        "score_rows": _score_rows(scores),
        "source_rows": [{"source": n, **row} for n, row in scores["by_source"].items()],
        "stage_rows": [_stage_row(config, i, facts) for i, facts in enumerate(stages)],
        "curve_rows": _curve_rows(stages),
        "data_rows": [_data_row(name, source) for name, source in sources.items()],
        "sources": [{"name": name, **source} for name, source in sources.items()],
        "sampled": any(not source.get("impressions") for source in sources.values()),
    }
    facts = {
        "name": config.name,
        "recipe": written(config),
        "stages": list(stages),
        "scores": scores,
        "data": {
            "manifest_sha256": manifest_sha256,
            "sources": {
                name: {key: source.get(key) for key in _SOURCE_FACTS}
                for name, source in sources.items()
            },
        },
        "licence": terms,
    }
    write_model_card(folder, "checkpoint_card.md", view, "training.json", facts)


def write_model_card(folder: Path, template: str, view: Facts, name: str, facts: Facts) -> None:
    """``README.md`` with the header that the hub reads, then the facts for programs.

    Args:
        view: of the template, which gets the versions and completes the tags of ``header``.
        name: of the file of facts, which gets its format and the versions.
    """
    versions = package_versions("training")
    tags = ["usermirror-gym", "recommender-systems", "user-simulation"]
    header = view["header"] | {"tags": tags + view["header"].get("tags", [])}
    page = render(template, {**view, "header": header, "versions": versions})
    write_text(folder / "README.md", page)
    write_json(folder / name, {"format": 1, **facts, "versions": versions})


_SOURCE_FACTS = (
    "dataset", "domain", "t0", "t_validation", "scenes", "files", "title", "homepage", "terms",
    "citation",
)  # fmt: skip


def licence(checkpoint: str) -> str:
    """Of base weights, by their own model card; ``other`` if it says nothing."""
    if checkpoint in _LICENCES:
        return _LICENCES[checkpoint]
    path = resolve_checkpoint(checkpoint)
    card = (path if path.is_dir() else path.parent) / "README.md"
    try:
        return str((metadata_load(card) or {}).get("license", "other"))
    except (OSError, ValueError, yaml.YAMLError):
        return "other"


def _library(config: TrainConfig) -> str:
    if config.writes_adapter:
        return "peft"
    return "transformers" if config.stages else "usermirror-gym"


def _score_rows(scores: Facts) -> list[dict[str, Any]]:
    own, uniform = scores["all"], scores["uniform"]
    return [
        {
            "score": label,
            "simulator": unit * own[key],
            "all options alike": unit * uniform[alike],
        }
        for label, unit, key, alike in (
            ("log-loss (nats)", 1, "log_loss", "log_loss"),
            ("accuracy of the likeliest option (%)", 100, "accuracy", "accuracy"),
            ("mean probability of the true option (%)", 100, "expected_accuracy", "accuracy"),
        )
    ]


def _stage_row(config: TrainConfig, index: int, facts: Facts) -> dict[str, Any]:
    stage = config.stages[index]
    best = facts.get("best")
    return {
        "stage": index + 1,
        "objective": stage.objective,
        "epochs": stage.epochs,
        "learning rate": stage.learning_rate,
        "batch": stage.batch_size * stage.accumulation,
        "steps": facts["steps"],
        "examples": facts["samples"],
        "tokens": facts["tokens"],
        "minutes": facts["seconds"] / 60,
        "best validation at step": None if best is None else best[0],
    }


def _curve_rows(stages: Sequence[Facts]) -> list[dict[str, Any]]:
    """Validations of all stages, thinned out evenly if there are many."""
    rows = []
    for number, facts in enumerate(stages, start=1):
        points = [(p[0], p[2]) for p in facts["history"] if p[2] is not None]
        step = max(-(-len(points) // _CURVE_ROWS), 1)
        kept = points[::step] + ([points[-1]] if points and (len(points) - 1) % step else [])
        rows += [{"stage": number, "step": s, "validation log-loss": loss} for s, loss in kept]
    return rows or [{"stage": None, "step": None, "validation log-loss": None}]


def _data_row(name: str, source: Facts) -> dict[str, Any]:
    counts = source.get("scenes", {})
    return {
        "source": name,
        "users": source.get("users"),
        "items": source.get("items"),
        "train scenes": counts.get("train", 0),
        "validation scenes": counts.get("validation", 0),
        "validation time": date(source["t_validation"]),
        "T0": date(source["t0"]),
    }
