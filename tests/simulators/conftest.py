from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from usermirror_gym.data import TimeSplit
from usermirror_gym.engines.base import OptionScores
from usermirror_gym.testing.data import tiny_split
from usermirror_gym.types import Prompt


class ArithmeticEngine:
    """Scores that can be computed by hand: letters by rank, texts by length and a taste."""

    model_id = "arithmetic"

    def __init__(self, context_length: int = 100_000, taste: str = "") -> None:
        self.context_length = context_length
        self.taste = taste
        self.asked: list[Prompt] = []
        self.lines: list[str] = []

    def count_tokens(self, prompt: Prompt) -> int:
        texts = [prompt.answer_prefix, *(m.content for m in prompt.messages)]
        return sum(len(t) for t in texts) + max(map(len, prompt.options))

    def choice_logprobs(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        self.asked += prompts
        return [self._letters(p) for p in prompts]

    def text_logprobs(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        self.asked += prompts
        return [self._texts(p) for p in prompts]

    def count_lines(self, prompt: Prompt) -> int:
        return len(prompt.answer_prefix) + sum(map(len, prompt.options))

    def line_scores(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        self.asked += prompts
        return [self._letters(p) for p in prompts]

    @property
    def fingerprint(self) -> str:
        return self.model_id

    def item_hidden_states(
        self,
        lines: Sequence[str],
        *,
        head: str,
        parts: Sequence[tuple[int, str]],
        progress: Callable[[int], None] = lambda done: None,
    ) -> np.ndarray:
        """Two numbers per part that belong to the line, whatever the others are."""
        self.lines += lines
        progress(len(lines))
        states = []
        for line in lines:
            digest = hashlib.sha256((head + line).encode()).digest()
            states.append([digest[2 * layer + i] / 128 - 1 for layer, _ in parts for i in (0, 1)])
        return np.array(states, np.float32)

    def _letters(self, prompt: Prompt) -> OptionScores:
        """Letter j (A = 0) has probability proportional to 1 / (1 + j), whatever it stands for."""
        weights = 1 / (1 + np.arange(len(prompt.options)))
        ones = np.ones(len(weights), np.int64)
        return OptionScores(np.log(weights / weights.sum()), ones, 40, 10)

    def _texts(self, prompt: Prompt) -> OptionScores:
        """Minus one a character, and plus five for the taste if there is a history."""
        known = prompt.answer_prefix.count("\n") > 1
        sums = [-float(len(o)) + 5.0 * (known and self.taste in o) for o in prompt.options]
        return OptionScores(np.array(sums), np.array([len(o) for o in prompt.options]), 50, 20)


@pytest.fixture
def arithmetic() -> type[ArithmeticEngine]:
    return ArithmeticEngine


@pytest.fixture(scope="session")
def split() -> TimeSplit:
    return tiny_split(n_users=60, n_items=60, seed=3)
