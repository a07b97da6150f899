"""The likelihood readout: each option's text is scored as the next line of the user's history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from usermirror_gym.engines.base import Engine, OptionScores
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.scenes.words.prompt import PromptBuilder
from usermirror_gym.simulators.base import ChoiceBatch
from usermirror_gym.simulators.readouts.llm import (
    choice_batch,
    fit_context,
    padded,
    places,
    simulator_name,
)
from usermirror_gym.simulators.readouts.utility import LikelihoodWeights, likelihood_logprobs
from usermirror_gym.types import BoolArray, FloatArray


class LikelihoodScores(NamedTuple):
    """What the LLM says about S lists, ``(S, K)`` each: the arguments of ``fit_likelihood``."""

    cond: FloatArray
    uncond: FloatArray
    n_tokens: FloatArray
    mask: BoolArray


@dataclass(eq=False)
class LikelihoodSimulator:
    """Scores the text of every option as the next line of the user's history.

    No letters, hence no liking for positions by construction; the unconditional part is asked once
    per item and kept.
    """

    engine: Engine
    builder: PromptBuilder
    weights: LikelihoodWeights
    _alone: dict[int, float] = field(default_factory=dict, init=False, repr=False)

    @property
    def name(self) -> str:
        return simulator_name("likelihood", self.engine, self.builder, self.weights)

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        scores, answers = self._ask(scenes)
        logprobs = likelihood_logprobs(self.weights, *scores)
        return choice_batch(logprobs, answers, range(len(answers)))

    def scores(self, scenes: Sequence[Scene]) -> LikelihoodScores:
        """What the weights are fitted on."""
        return self._ask(scenes)[0]

    def _ask(self, scenes: Sequence[Scene]) -> tuple[LikelihoodScores, list[OptionScores]]:
        mask, scenes = places(scenes), list(scenes)  # a SceneBatch builds its rows at each pass
        prompts = [
            fit_context(self.engine, self.builder, scene, partial(self.builder.likelihood, scene))
            for scene in scenes
        ]
        answers = self.engine.text_logprobs(prompts)
        self._learn_alone({item for scene in scenes for item in scene.slate})
        alone = (np.array([self._alone[item] for item in scene.slate]) for scene in scenes)
        cond = padded((answer.logprobs for answer in answers), mask)
        n_tokens = padded((answer.n_tokens.astype(np.float64) for answer in answers), mask)
        return LikelihoodScores(cond, padded(alone, mask), n_tokens, mask), answers

    def _learn_alone(self, items: set[int]) -> None:
        new = tuple(sorted(items - self._alone.keys()))
        if new:
            (answer,) = self.engine.text_logprobs([self.builder.unconditional(new)])
            self._alone.update(zip(new, answer.logprobs.tolist(), strict=True))
