"""What a scorer gives back for one question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from usermirror_gym.engines.encoding import EncodedPrompt
from usermirror_gym.types import FloatArray


@dataclass(frozen=True)
class Answer:
    """Raw answer to one question.

    Attributes:
        values: ``(K,)`` float64: letter logits, or summed log-probabilities of texts.
        computed: tokens that this question cost.
    """

    values: FloatArray
    computed: int


class Scorer(Protocol):
    """Scores the options of encoded questions, in order."""

    def letters(self, questions: Sequence[EncodedPrompt]) -> list[Answer]:
        """Logits of the options' single tokens behind each prefix."""
        ...

    def texts(self, questions: Sequence[EncodedPrompt]) -> list[Answer]:
        """Summed log-probabilities of the options' tokens behind each prefix."""
        ...
