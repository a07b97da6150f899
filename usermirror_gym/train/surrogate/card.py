"""The card of a surrogate, and the same facts for programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from usermirror_gym.checkpoints import shipped_folder
from usermirror_gym.configs.settings import written
from usermirror_gym.data import SOURCES, TimeSplit
from usermirror_gym.files import read_json
from usermirror_gym.report.text import MISSING
from usermirror_gym.simulators.surrogate.surrogate import SurrogateSimulator
from usermirror_gym.train.card import write_model_card
from usermirror_gym.train.surrogate.config import SurrogateConfig

FACTS_FILE = "distillation.json"
_TITLES = {
    "new lists": "Lists that were not learned from, users that were",
    "new users": "Users that nothing was learned from",
}


def write_surrogate_card(
    folder: Path,
    config: SurrogateConfig,
    student: SurrogateSimulator,
    split: TimeSplit,
    facts: Mapping[str, Any],
    curve: list[float],
    begun: Literal["teacher", "words", "random"],
) -> None:
    """Write ``README.md`` and, last, ``distillation.json``.

    Args:
        folder: of the checkpoint.
        facts: of :func:`usermirror_gym.train.surrogate.report.report`.
        curve: divergence on the validation questions, epoch by epoch.
        begun: what the item vectors began as: those of the teacher, what its LLM says of the items,
            or random numbers.
    """
    report = facts["report"]
    view = {
        "config": config,
        "student": student,
        "split": split,
        "curve": curve,
        "questions": facts["questions"],
        "weights": sum(p.numel() for p in student.net.parameters()),
        "header": {
            "library_name": "usermirror-gym", "license": _licence(config.teacher),
            "tags": ["distillation"],
        },
        "parts": [
            {"title": _TITLES[role], "constant": facts["constant"][role],
             "rows": [_row(source, own, config) for source, own in rows.items()]}
            for role, rows in report.items()
        ],
        "outside_rows": [
            {"lists": role, **own["all"]["outside"]} for role, own in report.items()
        ],
        "times_as_fast": facts["times_as_fast"],
        "source": SOURCES.get(split.dataset.name),
        "begun": begun,
    }  # fmt: skip
    facts = {
        "name": config.name,
        "recipe": written(config),
        "teacher": student.facts.teacher,
        "surrogate": student.name,
        "t0": split.t0,
        "words": begun == "words",
        "curve": curve,
        **facts,
    }
    write_model_card(folder, "surrogate_card.md", view, FACTS_FILE, facts)


def _row(source: str, own: Mapping[str, Any], config: SurrogateConfig) -> dict[str, Any]:
    kl = own["kl"]
    learned = (
        "" if source in ("all", "recorded", *config.questions.agents) else " (never learned from)"
    )
    return {
        "lists of": source + learned,
        "lists": own["scenes"],
        "users": own["users"],
        "KL": kl["mean"],
        "95 %": MISSING if kl["low"] is None else f"{kl['low']:.2g} .. {kl['high']:.2g}",
        "agreement": f"{own['agreement']['mean']:.1%}",
        "variation": own["total_variation"]["mean"],
        "rho": own["spearman"],
        "tau": own["kendall"],
        "rho in a user": own["within_user_spearman"],
    }


def _licence(teacher: str) -> str:
    """Of the teacher, if it ships with the package; its own card has it otherwise."""
    folder = shipped_folder(teacher)
    path = None if folder is None else folder / "training.json"
    return str(read_json(path).get("licence", "other")) if path and path.is_file() else "other"
