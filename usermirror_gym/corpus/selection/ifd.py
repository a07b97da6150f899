"""Instruction-following difficulty of the chosen answers, for the selector ``ifd``.

    IFD = PPL(answer | question) / PPL(answer),    PPL = exp(-log p(answer) / its tokens)

Below 1 the question makes the answer likelier; the larger, the less it does so.  Source: Li et al.,
*Superfiltering*, ACL 2024 (with perplexities; *From Quantity to Quality*, NAACL 2024, has the ratio
of the mean losses).  Every answer scored is a record of a journal, like the rationales themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from usermirror_gym.corpus.rationales.journal import Journal, Record, texts_version
from usermirror_gym.corpus.rationales.plan import chunks
from usermirror_gym.corpus.rationales.write import Question, answer_missing
from usermirror_gym.engines.base import Engine
from usermirror_gym.errors import DataError
from usermirror_gym.progress import Display
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.scenes.words.prompt import PromptBuilder
from usermirror_gym.scenes.words.rationale_prompt import questions_version, rationale_prompt
from usermirror_gym.types import FloatArray, IntArray, Prompt

_BATCH = 16


def ifd(given_question: FloatArray, alone: FloatArray, n_tokens: IntArray) -> FloatArray:
    """``(S,)`` IFD of S answers.

    Args:
        given_question: ``(S,)`` natural log-probability of each answer after its question.
        alone: ``(S,)`` that of the same tokens after nothing.
        n_tokens: ``(S,)`` tokens of each answer.

    Raises:
        DataError: a value is not the logarithm of a probability, or an answer has no tokens.
    """
    both = np.stack([given_question, alone]).astype(np.float64)
    if not (np.isfinite(both) & (both <= 0)).all():
        raise DataError(
            "log-probabilities of answers must be finite and at most 0, got "
            f"{both.min()} .. {both.max()}"
        )
    if not (np.asarray(n_tokens) >= 1).all():
        raise DataError(f"an answer has {np.min(n_tokens)} tokens; it must have at least 1")
    return np.exp((both[1] - both[0]) / n_tokens)


def score_answers(
    scenes: Sequence[Scene],
    builder: PromptBuilder,
    engine: Engine,
    answers: Mapping[str, str],
    path: Path,
    *,
    display: Display,
) -> dict[str, float]:
    """IFD of the answer of each scene that has one, or go on computing it.

    Args:
        scenes, builder, engine, path, display: as for
            :func:`~usermirror_gym.corpus.rationales.write.write_rationales`.
        answers: by scene name, all that the assistant says.

    Returns:
        Scene name -> IFD; without the scenes whose question and answer together are too long.

    Raises:
        RunError: the journal was begun with another engine, scenes or answers.
        EngineError: the engine cannot score texts.
    """
    questions: dict[tuple[str], Question] = {
        (s.name,): (s, partial(_question, s, builder, answers[s.name]))
        for s in scenes
        if s.name in answers
    }
    wanted = [scene for scene, _ in questions.values()]

    def ask(prompts: list[Prompt]) -> list[Record | str]:
        given = engine.text_logprobs(prompts)
        alone = engine.text_logprobs([Prompt((), "", p.options, p.name) for p in prompts])
        return [
            {"given": float(after.logprobs[0]), "alone": float(bare.logprobs[0]),
             "n_tokens": int(after.n_tokens[0])}
            for after, bare in zip(given, alone, strict=True)
        ]  # fmt: skip

    batches = (dict(batch) for batch in chunks(list(questions.items()), _BATCH))
    blank = {"given": None, "alone": None, "n_tokens": 0, "error": None}
    header = {
        "journal": "ifd", "model": engine.model_id, "scenes": len(wanted),
        "questions": questions_version(rationale_prompt(scene, builder) for scene in wanted),
        "answers": texts_version((scene.name, answers[scene.name]) for scene in wanted),
    }  # fmt: skip
    with Journal(path, header) as journal:
        with display.phase("chosen answers", len(wanted), "answer") as advance:
            advance(sum(1 for _ in journal.records()))
            for new in answer_missing(journal, ("scene_id",), batches, engine, builder, ask, blank):
                advance(len(new))
        scored = [record for record in journal.records() if record["error"] is None]
    columns = (np.array([r[name] for r in scored]) for name in ("given", "alone", "n_tokens"))
    return dict(zip((r["scene_id"] for r in scored), ifd(*columns).tolist(), strict=True))


def _question(scene: Scene, builder: PromptBuilder, answer: str, *, skip: int = 0) -> Prompt:
    return replace(rationale_prompt(scene, builder, skip=skip), options=(answer,))
