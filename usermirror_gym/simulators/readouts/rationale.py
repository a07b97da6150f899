"""The user who thinks before choosing: decision processes in words, then the letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from usermirror_gym.engines.base import Engine
from usermirror_gym.errors import ConfigError
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.scenes.words.prompt import PromptBuilder
from usermirror_gym.scenes.words.rationale_prompt import (
    STOP,
    rationale_prompt,
    reading_prompt,
    tidy,
)
from usermirror_gym.simulators.base import ChoiceBatch
from usermirror_gym.simulators.readouts.llm import (
    choice_batch,
    fit_context,
    mean_logprobs,
    places,
    simulator_name,
)
from usermirror_gym.simulators.readouts.utility import ChoiceWeights, choice_logprobs
from usermirror_gym.types import Prompt

_ANSWER_LINE = 16
"""Tokens kept free behind a rationale for the line that holds the letter."""


@dataclass(frozen=True)
class Thinking:
    """How decision processes are written.  The sampling is that of Wei et al., *Mirroring Users*,
    ACL 2026; they allow 1,024 tokens.

    Attributes:
        count: n, how many per scene; probabilities are averaged over them.
        max_tokens: most tokens of one.
        temperature, top_p: of the sampling.
        seed: same seed and scene, same words.
    """

    count: int = 1
    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1 or self.max_tokens < 1:
            raise ConfigError(
                f"count={self.count}, max_tokens={self.max_tokens}: a rationale user writes at "
                "least one rationale of at least one token"
            )


@dataclass(eq=False)
class RationaleSimulator:
    """``P(Y | X) = mean over n rationales D of P(Y | X, D)``, the letters read behind each.

    The second question is the first one with the rationale behind it, so that an engine with a
    prefix cache computes little more than the answer line.  An empty rationale is read as an answer
    without reasons.

    Args:
        engine: writes and reads.
        builder: words the question.
        thinking: how rationales are written.
        weights: temperature and position bias, applied to the average.
    """

    engine: Engine
    builder: PromptBuilder
    thinking: Thinking = Thinking()
    weights: ChoiceWeights = field(default_factory=ChoiceWeights)

    @property
    def name(self) -> str:
        thought = f"n={self.thinking.count}"
        settings = (self.weights, self.thinking)
        return simulator_name("rationale", self.engine, self.builder, settings, thought)

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        """See :class:`~usermirror_gym.simulators.base.UserSimulator`; ``rationales`` holds the
        first text of every scene."""
        mask, scenes = places(scenes), list(scenes)
        skips, texts = self._write(scenes)
        rows = np.repeat(np.arange(len(scenes)), self.thinking.count).tolist()
        prompts = [
            reading_prompt(scene, self.builder, text, skip=skip)
            for scene, skip, own in zip(scenes, skips, texts, strict=True)
            for text in own
        ]
        answers = self.engine.choice_logprobs(prompts)
        outside = [-1] if self.builder.config.outside_option else []
        columns = [[*range(len(scenes[row].slate)), *outside] for row in rows]
        logprobs = mean_logprobs(mask, answers, rows, columns)
        batch = choice_batch(choice_logprobs(self.weights, logprobs), answers, rows)
        return replace(batch, rationales=tuple(own[0] for own in texts))

    def _write(self, scenes: Sequence[Scene]) -> tuple[list[int], list[list[str]]]:
        """How many history lines each scene must leave out, and its n rationales."""
        fitted = [self._fitted(scene) for scene in scenes]
        settings = self.thinking
        written = self.engine.generate(
            [prompt for _, prompt in fitted], n=settings.count, temperature=settings.temperature,
            top_p=settings.top_p, max_tokens=settings.max_tokens, stop=STOP, seed=settings.seed,
        )  # fmt: skip
        return [skip for skip, _ in fitted], [[tidy(text) for text in own] for own in written]

    def _fitted(self, scene: Scene) -> tuple[int, Prompt]:
        tried: list[int] = []

        def build(skip: int) -> Prompt:
            tried.append(skip)
            return rationale_prompt(scene, self.builder, skip=skip)

        room = self.thinking.max_tokens + _ANSWER_LINE
        prompt = fit_context(self.engine, self.builder, scene, build, room=room)
        return tried[-1], prompt
