"""What a scorer gives back for one question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from usermirror_gym.engines.local.encoding import EncodedPrompt
from usermirror_gym.types import FloatArray

if TYPE_CHECKING:
    from usermirror_gym.engines.local.head import OptionHead


@dataclass(frozen=True)
class Answer:
    """Raw answer to one question.

    Attributes:
        values: ``(K,)`` float64: letter logits, summed log-probabilities of texts, or scores of
            lines.
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

    def lines(self, questions: Sequence[EncodedPrompt], head: OptionHead) -> list[Answer]:
        """What the head reads at the last token of each option, the options standing one after
        another behind each prefix."""
        ...
