"""Users played by an LLM, read in one forward pass: by letters or by likelihood."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from usermirror_gym.engines.base import Engine, OptionScores
from usermirror_gym.errors import ConfigError, SceneError
from usermirror_gym.scenes.prompt import PromptBuilder
from usermirror_gym.scenes.scene import Scene, SceneBatch
from usermirror_gym.simulators.base import ChoiceBatch
from usermirror_gym.types import FloatArray, IntArray, Prompt


class LettersSimulator:
    """Reads the probabilities of the letters A, B, C ... (Wei et al., Mirroring Users, 2026).

    Args:
        engine: runs the LLM.
        builder: words the prompt.
        permutations: the list is asked about in so many cyclic orders and the answers are
            averaged, which evens out a liking for certain letters.  The first order is the one
            shown.
    """

    def __init__(self, engine: Engine, builder: PromptBuilder, *, permutations: int = 1) -> None:
        if permutations < 1:
            raise ConfigError(f"permutations must be at least 1, got {permutations}")
        self.engine = engine
        self.builder = builder
        self.permutations = permutations

    @property
    def name(self) -> str:
        return f"letters({self.engine.model_id}, {self.builder.config.form}, r={self.permutations})"

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        width, scenes = _width(scenes), list(scenes)  # a SceneBatch builds its rows at each pass
        plans = [
            (row, scene, order) for row, scene in enumerate(scenes) for order in self._orders(scene)
        ]
        prompts = [
            fit_context(
                self.engine, self.builder, scene, partial(self.builder.letters, scene, order)
            )
            for _, scene, order in plans
        ]
        answers = self.engine.choice_logprobs(prompts)
        probs = np.zeros((len(scenes), width + 1))
        for (row, scene, order), answer in zip(plans, answers, strict=True):
            columns = [-1 if option == len(scene.slate) else option for option in order]
            probs[row, columns] += np.exp(answer.logprobs)
        # Every scene was asked in its own number of orders: _batch makes the sums probabilities.
        return _batch(probs, [row for row, _, _ in plans], answers)

    def _orders(self, scene: Scene) -> list[tuple[int, ...]]:
        count = len(scene.slate) + self.builder.config.outside_option
        shifts = sorted({round(j * count / self.permutations) % count
                         for j in range(self.permutations)})  # fmt: skip
        return [tuple((np.arange(count) + shift) % count) for shift in shifts]


@dataclass(frozen=True)
class LikelihoodWeights:
    """How the likelihood of an item's text becomes its utility.

    ``utility = scale * (conditional * c + unconditional * u)``, where c is the log-probability of
    the text given profile and history, and u that given nothing; each divided by the number of
    tokens if ``per_token``.  Choice is a conditional logit over the utilities and ``outside``, the
    utility of *none of these* (McFadden, Conditional logit analysis, 1974).
    """

    conditional: float = 1.0
    unconditional: float = -0.5
    per_token: bool = True
    scale: float = 1.0
    outside: float | None = 0.0
    """``None``: the choice is forced."""


class LikelihoodSimulator:
    """Scores the text of every option as the next line of the user's history.

    No letters, hence no liking for positions by construction; the unconditional part is asked once
    per item and kept.
    """

    def __init__(self, engine: Engine, builder: PromptBuilder, weights: LikelihoodWeights) -> None:
        self.engine = engine
        self.builder = builder
        self.weights = weights
        self._alone: dict[int, float] = {}

    @property
    def name(self) -> str:
        return f"likelihood({self.engine.model_id}, {self.builder.config.form})"

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        width, scenes = _width(scenes), list(scenes)
        prompts = [
            fit_context(self.engine, self.builder, scene, partial(self.builder.likelihood, scene))
            for scene in scenes
        ]
        answers = self.engine.text_logprobs(prompts)
        self._learn_alone({item for scene in scenes for item in scene.slate})
        probs = np.zeros((len(scenes), width + 1))
        for row, (scene, answer) in enumerate(zip(scenes, answers, strict=True)):
            shares = self._logit(self._utilities(scene, answer))
            probs[row, : len(scene.slate)] = shares[:-1]
            probs[row, -1] = shares[-1]
        return _batch(probs, list(range(len(scenes))), answers)

    def _utilities(self, scene: Scene, answer: OptionScores) -> FloatArray:
        weights = self.weights
        alone = np.array([self._alone[item] for item in scene.slate])
        return weights.scale * (
            weights.conditional * self._scaled(answer) + weights.unconditional * alone
        )

    def _logit(self, utilities: FloatArray) -> FloatArray:
        outside = -np.inf if self.weights.outside is None else self.weights.outside
        everything = np.append(utilities, outside)
        shares = np.exp(everything - everything.max())
        return shares / shares.sum()

    def _learn_alone(self, items: set[int]) -> None:
        new = tuple(sorted(items - self._alone.keys()))
        if new:
            (answer,) = self.engine.text_logprobs([self.builder.unconditional(new)])
            self._alone.update(zip(new, self._scaled(answer).tolist(), strict=True))

    def _scaled(self, answer: OptionScores) -> FloatArray:
        return answer.logprobs / answer.n_tokens if self.weights.per_token else answer.logprobs


def fit_context(
    engine: Engine,
    builder: PromptBuilder,
    scene: Scene,
    build: Callable[..., Prompt],
    *,
    room: int = 0,
) -> Prompt:
    """The prompt with as much history as the context holds; the oldest lines go first.

    Args:
        build: makes the prompt without the ``skip=`` oldest history lines.
        room: tokens that must stay free behind the prompt, for a text to be written.

    Raises:
        SceneError: it does not fit even without any history; names the scene.
    """
    limit = engine.context_length - room
    prompt = build(skip=0)
    if _surely_fits(prompt, limit):
        return prompt
    lines = builder.history_lines_shown(scene)
    for skip in range(lines + 1):
        prompt = build(skip=skip)
        if engine.count_tokens(prompt) <= limit:
            return prompt
    kept = f" ({room} of them kept free for its answer)" if room else ""
    raise SceneError(
        f"{scene.name}: the list and the session need {engine.count_tokens(prompt)} tokens without "
        f"any history, the model holds {engine.context_length}{kept}; use shorter lists or fewer "
        "turns"
    )


def _surely_fits(prompt: Prompt, limit: int) -> bool:
    # No tokenizer makes more tokens than bytes; the margin is for the chat template's markup.
    texts = [prompt.answer_prefix, *prompt.options, *(m.content for m in prompt.messages)]
    return sum(len(t.encode()) for t in texts) + 32 * (1 + len(prompt.messages)) <= limit


def _width(scenes: Sequence[Scene]) -> int:
    if isinstance(scenes, SceneBatch):
        return scenes.slate_size
    return max((len(scene.slate) for scene in scenes), default=0)


def _batch(probs: FloatArray, rows: list[int], answers: Sequence[OptionScores]) -> ChoiceBatch:
    def per_scene(counts: list[int]) -> IntArray:
        return np.bincount(rows, counts, minlength=len(probs)).astype(np.int64)

    return ChoiceBatch(
        probs / probs.sum(axis=1, keepdims=True),
        prompt_tokens=per_scene([a.prompt_tokens for a in answers]),
        cached_tokens=per_scene([a.cached_tokens for a in answers]),
    )
