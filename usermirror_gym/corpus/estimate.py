"""What writing rationales will cost: tokens counted, time and lengths from a timed probe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

import numpy as np

from usermirror_gym.corpus.rationales.plan import RationaleSettings, Request, Role, sampling_of
from usermirror_gym.engines.base import Engine, Generations, generate_detailed
from usermirror_gym.errors import EngineError, SceneError
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.scenes.words.prompt import PromptBuilder
from usermirror_gym.scenes.words.rationale_prompt import rationale_prompt
from usermirror_gym.types import Prompt

T = TypeVar("T")
_COUNTED = 200
"""Scenes whose questions are counted; the rest is taken to be like them."""


@dataclass(frozen=True)
class Estimate:
    """What one model's rationales will take, if no attempt fails.

    Attributes:
        rationales: how many texts.
        prompt_tokens: each scene's question once, since its n texts are asked together.
        completion_tokens: expected, from the lengths of the probe's texts.
        most_completion_tokens: every text as long as allowed.
        cost, most_cost: in the currency of the prices; ``None`` without prices.
        seconds: at the pace of the probe; larger batches, and servers that work on many questions
            at once, are faster.
        counts_are_estimates: the engine has no tokenizer at hand.
    """

    role: Role
    model: str
    rationales: int
    prompt_tokens: int
    completion_tokens: int
    most_completion_tokens: int
    cost: float | None
    most_cost: float | None
    seconds: float
    counts_are_estimates: bool

    def __str__(self) -> str:
        about = "about " if self.counts_are_estimates else ""
        paid = (
            "" if self.cost is None else f"; cost {self.cost:,.2f}, at most {self.most_cost:,.2f}"
        )
        return (
            f"{self.role} rationales by {self.model}: {self.rationales:,} texts, "
            f"{about}{self.prompt_tokens:,} prompt tokens, {self.completion_tokens:,} expected "
            f"completion tokens (at most {self.most_completion_tokens:,}){paid}; "
            f"{timedelta(seconds=round(self.seconds))} h at the pace of a probe"
        )


def estimate(
    scenes: Sequence[Scene],
    builder: PromptBuilder,
    engine: Engine,
    settings: RationaleSettings,
    *,
    role: Role,
    probe: int = 4,
) -> Estimate:
    """Count the questions, and let the engine write for a few scenes against the clock.

    Args:
        scenes: those of the build.
        probe: for how many of them; each gets its n texts, as in the build.

    Raises:
        SceneError: there are no scenes.
        EngineError: the probe fails.
    """
    if not scenes:
        raise SceneError("there are no scenes to estimate the cost of: build some first.")
    questions = [rationale_prompt(scene, builder) for scene in _spread(scenes, _COUNTED)]
    tokens = np.mean([engine.count_tokens(replace(q, options=())) for q in questions])
    pace, length = _probe(_spread(questions, probe), scenes[0], engine, settings, role)
    count = len(scenes) * settings.n
    asked, expected, most = (
        round(tokens * len(scenes)), round(length * count), count * settings.max_tokens
    )  # fmt: skip
    return Estimate(
        role, engine.model_id, count, asked, expected, most,
        settings.cost(asked, expected), settings.cost(asked, most), pace * len(scenes),
        bool(getattr(engine, "counts_are_estimates", False)),
    )  # fmt: skip


def _probe(
    questions: Sequence[Prompt],
    scene: Scene,
    engine: Engine,
    settings: RationaleSettings,
    role: Role,
) -> tuple[float, float]:
    """Seconds per scene and tokens per text."""
    sampling = sampling_of(settings, role, Request(scene, tuple(range(settings.n)), 0))
    _checked(generate_detailed(engine, questions[:1], replace(sampling, n=1, max_tokens=1)))
    begin = time.perf_counter()  # weights are loaded by now
    answers = _checked(generate_detailed(engine, questions, sampling))
    seconds = time.perf_counter() - begin
    lengths = [tokens for answer in answers for tokens in answer.completion_tokens]
    return seconds / len(questions), float(np.mean(lengths))


def _checked(answers: Sequence[Generations]) -> Sequence[Generations]:
    for answer in answers:
        if answer.error is not None:
            raise EngineError(f"the probe of the estimate failed: {answer.error}")
    return answers


def _spread(things: Sequence[T], count: int) -> list[T]:
    """Up to ``count`` of them, at even distances."""
    places = np.linspace(0, len(things) - 1, min(count, len(things))).round().astype(int)
    return [things[i] for i in places]
