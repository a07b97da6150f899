"""Direct answers (loss on the letter), reasoned ones (loss on the rationale and the letter), and
preference pairs of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from usermirror_gym.errors import ConfigError, DataError
from usermirror_gym.scenes.randomness import KeyArray
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.scenes.words.prompt import ANSWER_PREFIX, PromptBuilder
from usermirror_gym.train.config import LossOn, Stage
from usermirror_gym.train.objectives.sequences import (
    Row,
    Wording,
    epoch_keys,
    name_keys,
    orders,
    sequence,
    shortened,
    wrong_options,
)
from usermirror_gym.types import IntArray, Message, Prompt


class SceneExamples:
    """Scenes in tokens, with their options in another order in every epoch.

    Args:
        stage: how many history lines are shown, and what the loss is on.

    Raises:
        ConfigError: no scene has an answer that the prompt offers.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        builder: PromptBuilder,
        wording: Wording,
        stage: Stage,
        *,
        seed: int,
    ) -> None:
        self.scenes = answerable(scenes, builder)
        self._builder, self._wording, self._stage, self._seed = builder, wording, stage, seed
        self._names = name_keys([scene.name for scene in self.scenes])

    def sizes(self, epoch: int) -> IntArray:
        """``(n,)`` lines of history and list."""
        most = self._builder.config.history_lines
        lines = [min(len(s.history), most) + len(s.slate) for s in self.scenes]
        return np.array(lines, np.int64)

    def drawn(self, epoch: int, index: int) -> tuple[KeyArray, Scene]:
        """``(1,)`` the key of an example's draws, and its scene with the history of the epoch."""
        own = epoch_keys(self._seed, epoch, self._names[index : index + 1])
        return own, shortened(self.scenes[index], own, self._stage.history)


class Letters(SceneExamples):
    """Scenes whose answer is a letter; the options are lettered anew in every epoch."""

    def row(self, epoch: int, index: int) -> Row:
        """The question and the right letter."""
        prefix, letters, target = self.question(epoch, index)
        ids = (*prefix, letters[target])
        return sequence(ids, len(prefix), self._stage.loss_on)

    def question(self, epoch: int, index: int) -> tuple[tuple[int, ...], list[int], int]:
        """Ids before the answer, the id of each letter, and the place of the right one."""
        own, scene = self.drawn(epoch, index)
        count = len(scene.slate) + self._builder.config.outside_option
        (order,) = orders(own, count)
        question = self._wording.fitted(self._builder, PromptBuilder.letters, scene, order)
        letters = [_single(option, question.name) for option in question.options]
        return question.prefix, letters, order.index(answer_of(scene))


class _Fitting:
    """Rows of a training file in tokens, as far as they fit into ``max_length``."""

    def __init__(self, rows: Iterable[Row], wording: Wording, what: str) -> None:
        every = list(rows)
        self._rows = [row for row in every if _tokens(row) <= wording.max_length]
        self.left_out = len(every) - len(self._rows)
        if not self._rows:
            raise ConfigError(
                f"none of {len(every)} {what} fits into max_length = {wording.max_length} tokens: "
                "raise it"
            )

    def sizes(self, epoch: int) -> IntArray:
        """``(n,)`` tokens, of a pair those of its longer side."""
        return np.array([_tokens(row) for row in self._rows], np.int64)

    def row(self, epoch: int, index: int) -> Row:
        """The question, then the answer with its end of turn, or both answers."""
        return dict(self._rows[index])


class Reasoned(_Fitting):
    """Rationales with the answer line behind them, as a build writes them.

    Their letters stand in the rationales too, so the lists keep their order.

    Args:
        rows: ``{"prompt": [messages], "completion": [answer], ...}``.

    Raises:
        ConfigError: there are no rows, or none fits into ``max_length``.
    """

    def __init__(
        self, rows: Sequence[Mapping[str, Any]], wording: Wording, loss_on: LossOn = "answer"
    ) -> None:
        if not rows:
            raise ConfigError(
                "the data have no rationales: build them with a 'rationales' part, or train on "
                "'letters'"
            )
        encoded = (answered(row["prompt"], row["completion"], wording) for row in rows)
        sequences = (sequence(a.ids, len(a.question), loss_on) for a in encoded)
        super().__init__(sequences, wording, "rationales")


def answerable(scenes: Sequence[Scene], builder: PromptBuilder) -> list[Scene]:
    """Scenes that offer a choice, and whose choice is known and on offer.

    Raises:
        ConfigError: there is none.
    """
    last = [len(s.slate) - (not builder.config.outside_option) for s in scenes]
    pairs = zip(scenes, last, strict=True)
    kept = [s for s, m in pairs if m > 0 and s.target is not None and s.target <= m]
    if not kept:
        raise ConfigError(
            f"none of {len(scenes)} scenes has a choice that the prompt offers; give scenes with "
            "a target, and outside_option=True if the answer is none of these"
        )
    return kept


def answer_of(scene: Scene) -> int:
    """The target of an answerable scene."""
    if scene.target is None:
        raise DataError(f"{scene.name}: nobody knows what was chosen; it cannot be trained on")
    return scene.target


class Answered(NamedTuple):
    """A question and its answer in tokens.

    Attributes:
        question: up to and including the opened turn of the assistant.
        said: what stands before the letter.
        letter: one token.
        closing: the rest of the line and the end of the turn.
    """

    question: tuple[int, ...]
    said: tuple[int, ...]
    letter: int
    closing: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """Everything."""
        return self.question + self.answer

    @property
    def answer(self) -> tuple[int, ...]:
        """All that the assistant says."""
        return (*self.said, self.letter, *self.closing)


def answered(
    messages: Sequence[Mapping[str, str]], answer: Sequence[Mapping[str, str]], wording: Wording
) -> Answered:
    """A row of a training file in tokens.

    The answer is cut where the readout begins, behind the bracket before the letter: there the
    engine encodes what it has been given and asks for one more token.

    Raises:
        DataError: the answer has no such place.
    """
    text = answer[-1]["content"]
    head, found, tail = text.rpartition(ANSWER_PREFIX)
    if not found or not tail:
        raise DataError(
            f"an answer ends in {text[-40:]!r}; the last line must be '{ANSWER_PREFIX}A]'"
        )
    asked = tuple(Message(m["role"], m["content"]) for m in messages)  # type: ignore[arg-type]
    question = wording.encode(Prompt(asked, "", ())).prefix
    begun = wording.encode(Prompt(asked, head + found, (tail[0], tail[1:])))
    end = wording.tokenizer.eos_token_id
    return Answered(
        question=question,
        said=begun.prefix[len(question) :],
        letter=_single(begun.options[0], begun.name),
        closing=begun.options[1] + (() if end is None else (int(end),)),
    )


def _single(option: tuple[int, ...], name: str) -> int:
    if len(option) != 1:
        raise ConfigError(
            f"{name}: the tokenizer makes {len(option)} tokens of a letter; train this model by "
            "'options' or 'next_item'"
        )
    return option[0]


class ReasonedPairs(_Fitting):
    """Pairs of a chosen and a rejected rationale, each with its answer line.

    Args:
        rows: ``{"prompt": [messages], "chosen": [answer], "rejected": [answer], ...}``.

    Raises:
        ConfigError: none fits into ``max_length``.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], wording: Wording) -> None:
        super().__init__((_pair(row, wording) for row in rows), wording, "preference pairs")


class LetterPairs(Letters):
    """The right letter of each scene against another one, which is drawn anew in every epoch."""

    def row(self, epoch: int, index: int) -> Row:
        """The question and two letters."""
        prefix, letters, target = self.question(epoch, index)
        own = epoch_keys(self._seed, epoch, np.array([index]))
        (other,) = wrong_options(own, np.array([len(letters)]), np.array([target])).tolist()
        return {
            "prompt_ids": list(prefix),
            "chosen_ids": [letters[target]],
            "rejected_ids": [letters[other]],
        }


def _pair(row: Mapping[str, Any], wording: Wording) -> Row:
    chosen, rejected = (
        answered(row["prompt"], row[side], wording) for side in ("chosen", "rejected")
    )
    return {
        "prompt_ids": list(chosen.question),
        "chosen_ids": list(chosen.answer),
        "rejected_ids": list(rejected.answer),
    }


def _tokens(row: Row) -> int:
    if "input_ids" in row:
        return len(row["input_ids"])
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
