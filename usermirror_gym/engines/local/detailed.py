"""Generated texts with what they cost, one by one: an error of one prompt does not lose the rest.

An engine may offer ``generate_detailed`` beside the contract of :mod:`usermirror_gym.engines.base`
(the server engine does: it knows what was billed).  For every other engine the tokens are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from usermirror_gym.engines.base import Engine
from usermirror_gym.errors import EngineError
from usermirror_gym.types import Prompt


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample; the arguments of :meth:`~usermirror_gym.engines.base.Engine.generate`."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Generations:
    """What became of one prompt.

    Attributes:
        texts: n texts; empty if there was an error.
        prompt_tokens: tokens of the question, once for all its texts.
        completion_tokens: tokens of each text.
        error: why there are no texts.
    """

    texts: tuple[str, ...]
    prompt_tokens: int = 0
    completion_tokens: tuple[int, ...] = ()
    error: str | None = None


@runtime_checkable
class DetailedEngine(Protocol):
    """An engine that accounts for every prompt itself."""

    def generate_detailed(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Generations]:
        """One entry per prompt, in order.  A prompt that fails is an entry with an error."""
        ...


def generate_detailed(
    engine: Engine, prompts: Sequence[Prompt], sampling: Sampling
) -> list[Generations]:
    """Sample from any engine, errors and token counts per prompt.

    An engine without a ``generate_detailed`` of its own is asked for all prompts together and, if
    that fails, for each alone.
    """
    if isinstance(engine, DetailedEngine):
        return engine.generate_detailed(prompts, sampling)
    try:
        answers = engine.generate(
            prompts, n=sampling.n, temperature=sampling.temperature, top_p=sampling.top_p,
            max_tokens=sampling.max_tokens, stop=sampling.stop, seed=sampling.seed,
        )  # fmt: skip
    except EngineError as error:
        if len(prompts) == 1:
            return [Generations((), error=str(error))]
        return [one for p in prompts for one in generate_detailed(engine, [p], sampling)]
    return [_counted(engine, p, tuple(texts)) for p, texts in zip(prompts, answers, strict=True)]


def _counted(engine: Engine, prompt: Prompt, texts: tuple[str, ...]) -> Generations:
    bare = replace(prompt, options=())
    asked = engine.count_tokens(bare)
    # Counted behind the prompt, so that no token that opens a text is counted with each.
    written = tuple(
        engine.count_tokens(replace(bare, answer_prefix=bare.answer_prefix + text)) - asked
        for text in texts
    )
    return Generations(texts, asked, written)
