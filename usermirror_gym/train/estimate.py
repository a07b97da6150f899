"""What a run will take: examples and tokens counted, time from a few steps on this machine."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from usermirror_gym.engines.choosing import load_engine
from usermirror_gym.progress import Display
from usermirror_gym.run_folder import run_folder
from usermirror_gym.train.config import Affinity, Objective, Stage, TrainConfig
from usermirror_gym.train.data import TrainData
from usermirror_gym.train.run import prepare_data, stage_seed

_TRIAL_STEPS = 3
_TRIAL_SCENES = 20
_TRIAL_LINES = 64
_COUNTED = 100
"""Examples whose tokens are counted; the rest is taken to be like them."""


@dataclass(frozen=True)
class StageEstimate:
    """What one stage will take on one process like this one, without early stopping.

    Attributes:
        examples: of all epochs.
        labels: choices that are learned: lines of histories (next_item), else one an example.
        steps: of the optimizer.
        tokens: of all examples, without padding; extrapolated from a sample.
        seconds: of training, at the pace of a trial.
        validation_seconds: of all validations.
    """

    objective: Objective
    examples: int
    labels: int
    steps: int
    tokens: int
    seconds: float
    validation_seconds: float

    def __str__(self) -> str:
        spent, checking = (
            timedelta(seconds=math.ceil(s)) for s in (self.seconds, self.validation_seconds)
        )
        return (
            f"{self.objective}: {self.examples:,} examples with {self.labels:,} labels, about "
            f"{self.tokens:,} tokens, {self.steps:,} steps; {spent} of training and {checking} of "
            "validation on this machine"
        )


@dataclass(frozen=True)
class HeadEstimate:
    """What reading the items for an affinity head will take; the fit itself is short.

    Attributes:
        items: lines to be read.
        seconds: at the pace of a trial.
    """

    items: int
    seconds: float

    def __str__(self) -> str:
        spent = timedelta(seconds=math.ceil(self.seconds))
        return f"affinity: {self.items:,} items are read; {spent} on this machine"


def estimate_training(
    config: TrainConfig, folder: str | Path, *, display: Display
) -> list[StageEstimate | HeadEstimate]:
    """Build the data, which the run then need not do, and estimate each stage.

    Nothing else is left in the folder.

    Raises:
        RunError: see :func:`usermirror_gym.train.run.train`.
        ConfigError: the data have nothing for an objective.
    """
    from usermirror_gym.train.loop.model import load_tokenizer_of, load_trainable

    folder = Path(folder)
    with run_folder(folder, config, "training run"):
        data = prepare_data(config, folder, display=display)
        tokenizer = load_tokenizer_of(config)
        estimates: list[StageEstimate | HeadEstimate] = [
            # A model of its own for each: a trial trains.
            _estimate(config, index, load_trainable(config), tokenizer, data, display)
            for index in range(len(config.stages))
        ]
        if config.affinity is not None:
            estimates.append(_head_estimate(config, config.affinity, data))
        return estimates


def _head_estimate(config: TrainConfig, settings: Affinity, data: TrainData) -> HeadEstimate:
    n_items = data.split.dataset.n_items
    trial = np.unique(np.linspace(1, n_items, _TRIAL_LINES).astype(np.int64))
    asked = data.builder.item_lines(tuple(trial.tolist()))
    engine = load_engine(config.checkpoint, "transformers")
    for lines in (asked.options[:1], asked.options):  # the first call is slower than the others
        begin = time.monotonic()
        engine.item_hidden_states(lines, head=asked.answer_prefix, parts=settings.parts)
    pace = (time.monotonic() - begin) / len(asked.options)
    return HeadEstimate(n_items, pace * n_items)


def _estimate(
    config: TrainConfig, index: int, model: Any, tokenizer: Any, data: TrainData, display: Display
) -> StageEstimate:
    from usermirror_gym.train.objectives.plans import plan_stage

    stage, seed = config.stages[index], stage_seed(config, index)
    plan = plan_stage(stage, tokenizer, data, seed=seed, display=display)
    examples, order, steps = plan.examples, plan.order, plan.steps
    picked = np.linspace(0, len(order) - 1, min(_COUNTED, len(order))).astype(np.int64)
    rows = [examples.row(int(order.epochs[i]), int(order.rows[i])) for i in picked]
    tokens = round(float(np.mean([_tokens(row) for row in rows])) * len(order))
    labels = len(order)
    if stage.objective == "next_item":
        parts = [(e, order.rows[order.epochs == e]) for e in np.unique(order.epochs).tolist()]
        labels = sum(int(examples.sizes(epoch)[rows].sum()) for epoch, rows in parts)
    display.say(f"{stage.objective}: {_TRIAL_STEPS} steps for a trial")
    pace = _seconds_a_token(config, stage, seed, model, tokenizer, data)
    checks = 1 + (steps // plan.every if plan.every else 1)
    one = _validation_seconds(stage, seed, model, tokenizer, data)
    return StageEstimate(
        stage.objective, len(order), labels, steps, tokens, pace * tokens, one * checks
    )


def _seconds_a_token(
    config: TrainConfig, stage: Stage, seed: int, model: Any, tokenizer: Any, data: TrainData
) -> float:
    from usermirror_gym.train.loop.trainers import run_stage

    blind = _with_validation(data, 0)
    pace = 0.0
    for steps in (1, _TRIAL_STEPS):  # the first step of a process is slower than the others
        with tempfile.TemporaryDirectory() as scratch:
            result = run_stage(
                stage.model_copy(update={"max_steps": steps}),
                model,
                tokenizer,
                blind,
                Path(scratch) / "trial",
                seed=seed,
                precision=config.precision,
                display=Display(quiet=True),
                gradient_checkpointing=config.gradient_checkpointing,
            )
        pace = result.seconds / max(result.tokens, 1)
    return pace


def _validation_seconds(
    stage: Stage, seed: int, model: Any, tokenizer: Any, data: TrainData
) -> float:
    """Of one validation, from a few of its scenes."""
    from usermirror_gym.train.objectives.plans import plan_stage

    count = min(len(data.scenes_validation), stage.validation)
    if count == 0:
        return 0.0
    few = _with_validation(data, min(count, _TRIAL_SCENES))
    quiet = Display(quiet=True)
    validate = plan_stage(stage, tokenizer, few, seed=seed, display=quiet).validate
    if validate is None:
        return 0.0
    begin = time.monotonic()
    validate(model)
    return (time.monotonic() - begin) * count / min(count, _TRIAL_SCENES)


def _with_validation(data: TrainData, count: int) -> TrainData:
    """The same data with so many validation scenes at most."""
    sources = []
    for source in data.sources:
        scenes = source.scenes_validation[:count]
        sources.append(replace(source, scenes_validation=scenes))
        count -= len(scenes)
    return replace(data, sources=tuple(sources))


def _tokens(row: dict[str, Any]) -> int:
    """Of an example of any objective; both sides of a pair read the question."""
    if "input_ids" in row:
        return len(row["input_ids"])
    sides: Sequence[str] = ("chosen_ids", "rejected_ids")
    return sum(len(row["prompt_ids"]) + len(row[side]) for side in sides)
