"""What a stage trains on, and how it is judged meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from accelerate import PartialState

from usermirror_gym.progress import Display
from usermirror_gym.train.config import Stage
from usermirror_gym.train.data import TrainData
from usermirror_gym.train.objectives.letters import (
    LetterPairs,
    Letters,
    Reasoned,
    ReasonedPairs,
    answered,
)
from usermirror_gym.train.objectives.next_item import Histories
from usermirror_gym.train.objectives.options import Lines
from usermirror_gym.train.objectives.sequences import Examples, Joined, Order, Wording
from usermirror_gym.train.objectives.validation import (
    LettersLoss,
    LikelihoodLoss,
    Loss,
    OptionsLoss,
    ReasonedLoss,
    held_out,
    pooled_loss,
)


@dataclass(frozen=True)
class Plan:
    """What a stage trains on, in which order, and how it is judged."""

    stage: Stage
    seed: int
    examples: Examples
    validate: Loss | None

    @property
    def per_step(self) -> int:
        """Examples of one optimizer step, of all processes."""
        return self.stage.batch_size * self.stage.accumulation * PartialState().num_processes

    @cached_property
    def order(self) -> Order:
        """When which example is met."""
        stage, seed = self.stage, self.seed
        most = None if stage.max_steps is None else stage.max_steps * self.per_step
        return Order.of(
            self.examples, epochs=stage.epochs, batch_size=stage.batch_size, most=most, seed=seed
        )

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return math.ceil(len(self.order) / self.per_step)

    @property
    def every(self) -> int:
        """Steps between two validations; 0: only at both ends."""
        steps = self.stage.eval_every * self.order.per_epoch / self.per_step
        return max(round(steps), 1) if self.stage.eval_every else 0


def plan_stage(
    stage: Stage, tokenizer: Any, data: TrainData, *, seed: int, display: Display
) -> Plan:
    """The examples of a stage and its validation, without training anything.

    Raises:
        ConfigError: the data have nothing for this objective.
    """
    wording = Wording(tokenizer, stage.max_length)
    if stage.objective == "rationale" or (stage.objective == "dpo" and data.preferences):
        return _reasoned(stage, data, wording, seed, display)
    make, loss = _KINDS[stage.objective]
    parts = [
        (source.split if stage.objective == "next_item" else source.scenes_train, source.builder)
        for source in data.sources
    ]
    examples = Joined([make(part, builder, wording, stage, seed=seed) for part, builder in parts])
    most = -(-stage.validation // len(data.sources))
    checks = [(source.scenes_validation[:most], source.builder) for source in data.sources]
    losses = [(loss(own, builder, wording), len(own)) for own, builder in checks if own]
    return Plan(stage, seed, examples, partial(pooled_loss, losses) if losses else None)


_KINDS: dict[str, tuple[Callable[..., Examples], Callable[..., Loss]]] = {
    "next_item": (Histories, LikelihoodLoss),
    "options": (Lines, OptionsLoss),
    "letters": (Letters, LettersLoss),
    "dpo": (LetterPairs, LettersLoss),
}


def _reasoned(stage: Stage, data: TrainData, wording: Wording, seed: int, display: Display) -> Plan:
    dpo = stage.objective == "dpo"
    rows, kept_back = held_out(data.preferences if dpo else data.rationales, seed)
    examples = ReasonedPairs(rows, wording) if dpo else Reasoned(rows, wording, stage.loss_on)
    if examples.left_out:
        display.say(
            f"{examples.left_out} of {len(rows)} rows are longer than max_length = "
            f"{stage.max_length} tokens and are left out"
        )
    right = "chosen" if dpo else "completion"
    tested = [answered(row["prompt"], row[right], wording) for row in kept_back]
    tested = [row for row in tested if len(row.ids) <= stage.max_length][: stage.validation]
    return Plan(stage, seed, examples, ReasonedLoss(tested) if tested else None)
