"""What the simulators played by an LLM share: questions that fit its context, and answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from usermirror_gym.engines.base import Engine, OptionScores
from usermirror_gym.errors import SceneError
from usermirror_gym.scenes.scene import Scene, SceneBatch
from usermirror_gym.scenes.words.prompt import PromptBuilder
from usermirror_gym.simulators.base import ChoiceBatch
from usermirror_gym.simulators.readouts.utility import RENAMED
from usermirror_gym.types import BoolArray, FloatArray, IntArray, Prompt


def fit_context(
    engine: Engine,
    builder: PromptBuilder,
    scene: Scene,
    build: Callable[..., Prompt],
    *,
    room: int = 0,
    count: Callable[[Prompt], int] | None = None,
) -> Prompt:
    """The prompt with as much history as the context holds; the oldest lines go first.

    Args:
        build: makes the prompt without the ``skip=`` oldest history lines.
        room: tokens that must stay free behind the prompt, for a text to be written.
        count: tokens of the question; by default with its longest option.

    Raises:
        SceneError: it does not fit even without any history; names the scene.
    """
    limit = engine.context_length - room
    count = engine.count_tokens if count is None else count
    prompt = build(skip=0)
    if _surely_fits(prompt, limit):
        return prompt
    lines = builder.history_lines_shown(scene)
    for skip in range(lines + 1):
        prompt = build(skip=skip)
        if count(prompt) <= limit:
            return prompt
    kept = f" ({room} of them kept free for its answer)" if room else ""
    raise SceneError(
        f"{scene.name}: the list and the session need {count(prompt)} tokens without "
        f"any history, the model holds {engine.context_length}{kept}; use shorter lists or fewer "
        "turns"
    )


def simulator_name(
    readout: str, engine: Engine, builder: PromptBuilder, weights: object, *more: str
) -> str:
    """Readout, model, prompt form, and a short hash of the prompt's and the readout's settings.

    Args:
        weights: a frozen dataclass.
        more: what else the name should say.
    """
    told = f"{builder.config!r} {weights!r}"
    for old, new in RENAMED.items():  # the simulators that reports know keep their names
        told = told.replace(f"{new}=", f"{old}=")
    settings = hashlib.sha256(told.encode()).hexdigest()[:6]
    return f"{readout}({', '.join([engine.model_id, builder.config.form, *more, settings])})"


def places(scenes: Sequence[Scene]) -> BoolArray:
    """``(B, K)``: which places of the lists hold an item."""
    width = max((len(scene.slate) for scene in scenes), default=0)
    if isinstance(scenes, SceneBatch):
        width = scenes.slate_size
    counts = np.array([len(scene.slate) for scene in scenes], np.int64)
    return np.arange(width) < counts[:, None]


def padded(rows: Iterable[FloatArray], mask: BoolArray) -> FloatArray:
    """``(B, K)`` float64 with one row per list, 0 where there is no item."""
    out = np.zeros(mask.shape)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = values
    return out


def mean_logprobs(
    mask: BoolArray,
    answers: Sequence[OptionScores],
    rows: Sequence[int],
    columns: Sequence[Sequence[int]],
) -> FloatArray:
    """``(B, K + 1)`` logarithm of the mean probability of every option over a scene's answers.

    Args:
        mask: ``(B, K)`` from :func:`places`.
        rows: the scene that each answer belongs to.
        columns: of each answer, the place of every option; -1 is *none of these*.
    """
    total = np.full((len(mask), mask.shape[1] + 1), -np.inf)
    for row, own, answer in zip(rows, columns, answers, strict=True):
        total[row, own] = np.logaddexp(total[row, own], answer.logprobs)
    asked = np.bincount(rows, minlength=len(mask))
    mean: FloatArray = total - np.log(np.maximum(asked, 1))[:, None]
    return mean


def choice_batch(
    logprobs: FloatArray, answers: Sequence[OptionScores], rows: Sequence[int]
) -> ChoiceBatch:
    """Probabilities ``(B, K + 1)``, and the tokens of all questions about each scene.

    Args:
        rows: the scene that each answer belongs to.
    """

    def per_scene(counts: list[int]) -> IntArray:
        return np.bincount(rows, counts, minlength=len(logprobs)).astype(np.int64)

    probs = np.exp(logprobs)
    return ChoiceBatch(
        probs / probs.sum(axis=1, keepdims=True),
        prompt_tokens=per_scene([a.prompt_tokens for a in answers]),
        cached_tokens=per_scene([a.cached_tokens for a in answers]),
    )


def _surely_fits(prompt: Prompt, limit: int) -> bool:
    # No tokenizer makes more tokens than bytes; the margin is for the chat template's markup.
    texts = [prompt.answer_prefix, *prompt.options, *(m.content for m in prompt.messages)]
    return sum(len(t.encode()) for t in texts) + 32 * (1 + len(prompt.messages)) <= limit
