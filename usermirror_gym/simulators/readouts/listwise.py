"""Readouts in which the LLM sees the whole list: by letters, or by a head on the options' lines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np

from usermirror_gym.engines.base import Engine, OptionScores
from usermirror_gym.errors import ConfigError
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.scenes.words.prompt import PromptBuilder
from usermirror_gym.simulators.base import ChoiceBatch
from usermirror_gym.simulators.readouts.llm import (
    choice_batch,
    fit_context,
    mean_logprobs,
    places,
    simulator_name,
)
from usermirror_gym.simulators.readouts.utility import ChoiceWeights, choice_logprobs
from usermirror_gym.types import FloatArray, Prompt


@dataclass(eq=False)
class ListSimulator(ABC):
    """Asks about a list in one or several orders, averages the answers, corrects the average.

    Args:
        engine: runs the LLM.
        builder: words the prompt.
        permutations: the list is asked about in so many cyclic orders and the probabilities are
            averaged, which evens out a liking for certain positions.  The first order is the one
            shown.
        weights: temperature and position bias, applied to the average.
    """

    engine: Engine
    builder: PromptBuilder
    permutations: int = 1
    weights: ChoiceWeights = field(default_factory=ChoiceWeights)
    readout: ClassVar[str]

    def __post_init__(self) -> None:
        if self.permutations < 1:
            raise ConfigError(f"permutations must be at least 1, got {self.permutations}")

    @property
    def name(self) -> str:
        orders = f"r={self.permutations}"
        return simulator_name(self.readout, self.engine, self.builder, self.weights, orders)

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        logprobs, answers, rows = self._ask(scenes)
        return choice_batch(choice_logprobs(self.weights, logprobs), answers, rows)

    def logprobs(self, scenes: Sequence[Scene]) -> FloatArray:
        """``(B, K + 1)`` before any correction: what the weights are fitted on."""
        return self._ask(scenes)[0]

    def _ask(self, scenes: Sequence[Scene]) -> tuple[FloatArray, list[OptionScores], list[int]]:
        mask, scenes = places(scenes), list(scenes)  # a SceneBatch builds its rows at each pass
        plans = [
            (row, scene, order) for row, scene in enumerate(scenes) for order in self._orders(scene)
        ]
        answers = self._answers([self._prompt(scene, order) for _, scene, order in plans])
        rows = [row for row, _, _ in plans]
        columns = [
            [-1 if option == len(scene.slate) else option for option in order]
            for _, scene, order in plans
        ]
        return mean_logprobs(mask, answers, rows, columns), answers, rows

    @abstractmethod
    def _prompt(self, scene: Scene, order: tuple[int, ...]) -> Prompt: ...

    @abstractmethod
    def _answers(self, prompts: Sequence[Prompt]) -> list[OptionScores]: ...

    @abstractmethod
    def _orders(self, scene: Scene) -> list[tuple[int, ...]]:
        """Orders of all options; ``len(slate)`` is *none of these*."""


class LettersSimulator(ListSimulator):
    """Reads the probabilities of the letters A, B, C ... (Wei et al., Mirroring Users, 2026).

    *None of these* moves with the others.
    """

    readout = "letters"

    def _prompt(self, scene: Scene, order: tuple[int, ...]) -> Prompt:
        build = partial(self.builder.letters, scene, order)
        return fit_context(self.engine, self.builder, scene, build)

    def _answers(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        return self.engine.choice_logprobs(prompts)

    def _orders(self, scene: Scene) -> list[tuple[int, ...]]:
        return _cyclic(len(scene.slate) + self.builder.config.outside_option, self.permutations)


class OptionsSimulator(ListSimulator):
    """Reads a trained linear head at the end of each option's line, softmax over the lines.

    *None of these* is always the last line.
    """

    readout = "options"

    def _prompt(self, scene: Scene, order: tuple[int, ...]) -> Prompt:
        build = partial(self.builder.lines, scene, order[: len(scene.slate)])
        count = self.engine.count_lines
        return fit_context(self.engine, self.builder, scene, build, count=count)

    def _answers(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        return self.engine.line_scores(prompts)

    def _orders(self, scene: Scene) -> list[tuple[int, ...]]:
        count = len(scene.slate)
        last = (count,) if self.builder.config.outside_option else ()
        return [(*order, *last) for order in _cyclic(count, self.permutations)]


def _cyclic(count: int, wanted: int) -> list[tuple[int, ...]]:
    """``wanted`` evenly spaced rotations of ``0 .. count - 1``, or all if there are fewer."""
    shifts = sorted({round(j * count / wanted) % count for j in range(wanted)})
    return [tuple(((np.arange(count) + shift) % count).tolist()) for shift in shifts]
