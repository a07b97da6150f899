"""The contract of everything that runs an LLM: all the project knows about a runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from usermirror_gym.types import FloatArray, IntArray, Prompt


@dataclass(frozen=True)
class OptionScores:
    """The answer to one :class:`~usermirror_gym.types.Prompt` with K options.

    Attributes:
        logprobs: ``(K,)`` float64 natural logarithms.
        n_tokens: ``(K,)`` how many tokens each option has.
        prompt_tokens: tokens of the whole question, options included.
        cached_tokens: how many of them came from a KV cache instead of being computed.
    """

    logprobs: FloatArray
    n_tokens: IntArray
    prompt_tokens: int
    cached_tokens: int


class Engine(Protocol):
    """An LLM runtime.  All calls are batched and keep the order of the prompts.

    A prompt that cannot be answered raises an error that names it; no answer is ever made up.
    """

    @property
    def model_id(self) -> str:
        """Name of the weights and their precision, for logs."""
        ...

    @property
    def context_length(self) -> int:
        """The most tokens one question may have."""
        ...

    def count_tokens(self, prompt: Prompt) -> int:
        """Tokens of the question, its longest option included."""
        ...

    def choice_logprobs(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        """Letters readout: log-probabilities of the K one-token options as the next token,
        normalised over them (they sum to one).

        Raises:
            EngineError: an option is not a single token after the answer prefix, or the prompt is
                longer than ``context_length``.
        """
        ...

    def text_logprobs(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        """Likelihood readout: log-probability of the whole text of each option as a continuation
        of the prompt, summed over its tokens (not normalised over the options).

        Raises:
            EngineError: an option has no tokens, or a question is longer than ``context_length``.
        """
        ...

    def count_lines(self, prompt: Prompt) -> int:
        """Tokens of the question with all its options one after another."""
        ...

    def line_scores(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        """Options readout: the K options of a prompt are lines of one text that stand behind it one
        after another; a trained head reads each at its last token.  Log-softmax over the lines.

        Raises:
            EngineError: there is no head, a line has no tokens, or the text is longer than
                ``context_length``.
        """
        ...

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_tokens: int = 256,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> list[list[str]]:
        """``n`` sampled continuations of every prompt (its options are ignored), without the stop
        string.  The same seed gives the same texts, whatever the batch."""
        ...
