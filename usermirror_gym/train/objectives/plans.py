"""What a stage trains on, and how it is judged meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from usermirror_gym.progress import Display
from usermirror_gym.train.config import Stage
from usermirror_gym.train.data import TrainData, TrainSource
from usermirror_gym.train.objectives.letters import (
    LetterPairs,
    Letters,
    Reasoned,
    ReasonedPairs,
    answered,
)
from usermirror_gym.train.objectives.next_item import Histories
from usermirror_gym.train.objectives.options import Lines
from usermirror_gym.train.objectives.sequences import Examples, Joined, Wording
from usermirror_gym.train.objectives.validation import (
    LettersLoss,
    LikelihoodLoss,
    Loss,
    OptionsLoss,
    PooledLoss,
    ReasonedLoss,
    held_out,
)


@dataclass(frozen=True)
class Plan:
    """What a stage trains on and how it is judged."""

    examples: Examples
    validate: Loss | None


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
    most = -(-stage.validation // len(data.sources))
    parts = [_of_source(stage, source, wording, seed, most) for source in data.sources]
    losses = [(loss, count) for _, loss, count in parts if loss is not None]
    return Plan(
        Joined([examples for examples, _, _ in parts]), PooledLoss(losses) if losses else None
    )


def _of_source(
    stage: Stage, source: TrainSource, wording: Wording, seed: int, most: int
) -> tuple[Examples, Loss | None, int]:
    """Examples of one data set, its validation loss, and the number of scenes behind that."""
    scenes, builder = source.scenes_train, source.builder
    checks = source.scenes_validation[:most]
    everything = stage.loss_on == "everything"
    examples: Examples
    kind: Callable[..., Loss]
    more: tuple[Any, ...] = ()
    if stage.objective == "next_item":
        kind = LikelihoodLoss
        examples = Histories(
            source.split, builder, wording, seed=seed, lines=stage.history, alone=stage.alone,
            everything=everything,
        )  # fmt: skip
    elif stage.objective == "options":
        kind, more = OptionsLoss, (padding(wording.tokenizer),)
        examples = Lines(scenes, builder, wording, seed=seed, history=stage.history)
    else:
        kind = LettersLoss
        examples = letters = Letters(
            scenes, builder, wording, seed=seed, history=stage.history, everything=everything
        )
        if stage.objective == "dpo":
            examples = LetterPairs(letters, seed=seed)
    loss = kind(checks, builder, wording, *more) if checks else None
    return examples, loss, len(checks)


def _reasoned(stage: Stage, data: TrainData, wording: Wording, seed: int, display: Display) -> Plan:
    dpo = stage.objective == "dpo"
    rows, kept_back = held_out(data.preferences if dpo else data.rationales, seed)
    examples: ReasonedPairs | Reasoned
    if dpo:
        examples = ReasonedPairs(rows, wording)
    else:
        examples = Reasoned(rows, wording, everything=stage.loss_on == "everything")
    if examples.left_out:
        display.say(
            f"{examples.left_out} of {len(rows)} rows are longer than max_length = "
            f"{stage.max_length} tokens and are left out"
        )
    right = "chosen" if dpo else "completion"
    tested = [answered(row["prompt"], row[right], wording) for row in kept_back]
    tested = [row for row in tested if len(row.ids) <= stage.max_length][: stage.validation]
    return Plan(examples, ReasonedLoss(tested) if tested else None)


def padding(tokenizer: Any) -> int:
    """Id of a token that fills short rows; it is masked, so that any will do."""
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(int(i) for i in ids if i is not None)
