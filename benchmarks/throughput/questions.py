"""The questions of the benchmark, as files that every way of asking reads."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from usermirror_gym.types import Message, Prompt

BATCH = 32
"""Unrelated questions of one call."""


@dataclass(frozen=True)
class Question:
    """One choice, in the words of each readout.

    Attributes:
        letters: answered by a letter.
        likelihood: each option's text is scored.
        single: one question per item, answered by yes (A) or no (B): how others ask.
    """

    letters: Prompt
    likelihood: Prompt
    single: tuple[Prompt, ...]


@dataclass(frozen=True)
class Pattern:
    """Questions that arrive in a certain way.

    Attributes:
        name: ``slates``, ``episodes`` or ``unrelated``.
        questions: all of them.
        calls: numbers of the questions that arrive together, in order.
        grows: later calls continue earlier ones, so only the whole is representative.
        first: a question of somebody else, for the time to the first choice.
    """

    name: str
    questions: list[Question]
    calls: list[list[int]]
    grows: bool
    first: Question

    def separate_calls(self) -> list[list[int]]:
        """For ways that share nothing: any beginning is representative of the whole."""
        if not self.grows:
            return self.calls
        order = list(range(len(self.questions)))
        random.Random(0).shuffle(order)
        return [order[i : i + BATCH] for i in range(0, len(order), BATCH)]

    def sample(self, every: int) -> list[list[int]]:
        """Every so manieth question, one a call."""
        order = [i for call in self.separate_calls() for i in call]
        return [[i] for i in order[::every]]


def save_patterns(path: Path, patterns: list[Pattern]) -> None:
    """Write them as JSON."""
    path.write_text(json.dumps([asdict(p) for p in patterns]), encoding="utf-8")


def load_patterns(path: Path) -> list[Pattern]:
    """What :func:`save_patterns` wrote."""
    return [
        Pattern(**content | {
            "questions": [_question(q) for q in content["questions"]],
            "first": _question(content["first"]),
        })
        for content in json.loads(path.read_text(encoding="utf-8"))
    ]  # fmt: skip


def _question(content: dict[str, Any]) -> Question:
    single = tuple(_prompt(p) for p in content["single"])
    return Question(_prompt(content["letters"]), _prompt(content["likelihood"]), single)


def _prompt(content: dict[str, Any]) -> Prompt:
    messages = tuple(Message(**m) for m in content["messages"])
    options = tuple(content["options"])
    return Prompt(messages, content["answer_prefix"], options, content["name"])
