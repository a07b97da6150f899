"""The contract of everything that runs an LLM: all the project knows about a runtime."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, Protocol, TypedDict, Unpack

from usermirror_gym.errors import ConfigError, EngineError
from usermirror_gym.types import Float32Array, FloatArray, IntArray, Prompt

Pool = Literal["mean", "last"]
"""Which tokens of a line are read: the mean of all but the last, or the last, which holds the line
break."""
StatePart = tuple[int, Pool]
"""Layer and pool of hidden states; layers as transformers counts them, 0 is the embeddings and the
last one stands behind the final norm."""


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


class SamplingOptions(TypedDict, total=False):
    """What :meth:`Engine.generate` may be told, see :class:`Sampling`."""

    n: int
    temperature: float
    top_p: float
    max_tokens: int
    stop: Sequence[str]
    seed: int


@dataclass(frozen=True)
class Sampling:
    """How to sample.  ``temperature`` 0 takes the most likely token; a text ends before any of the
    ``stop`` strings.

    Raises:
        ConfigError: a value that cannot be used.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 256
    stop: Sequence[str] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", tuple(self.stop))
        if self.n < 1 or self.max_tokens < 1:
            raise ConfigError(f"n={self.n}, max_tokens={self.max_tokens}: both must be 1 or more.")
        if self.temperature < 0:
            raise ConfigError(f"temperature is {self.temperature}: use 0 or more.")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}: use a value in (0, 1].")

    def cut(self, text: str) -> str:
        """What stands before the first stop string."""
        return text[
            : min((at for s in self.stop if s and (at := text.find(s)) >= 0), default=len(text))
        ]

    def row_seed(self, prefix: tuple[int, ...], sample: int) -> int:
        """Seed of one sample: of its prompt's tokens, not of its place in the batch."""
        text = f"{self.seed}:{sample}:{','.join(map(str, prefix))}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")


class Engine(Protocol):
    """An LLM runtime.  All calls are batched and keep the order of the prompts.

    A prompt that cannot be answered raises an error that names it; no answer is ever made up.
    """

    @property
    def model_id(self) -> str:
        """Name of the weights and their precision, for logs."""
        ...

    @property
    def fingerprint(self) -> str:
        """``model_id`` and what tells weights of the same name apart: what is computed from hidden
        states is kept under it."""
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

    def item_hidden_states(
        self,
        lines: Sequence[str],
        *,
        head: str,
        parts: Sequence[StatePart],
        progress: Callable[[int], None] = lambda done: None,
    ) -> Float32Array:
        """Affinity readout: hidden states of n lines, each of which stands alone behind the head.

        Args:
            lines: texts that end in a line break.
            head: plain text before every line.
            parts: what is read of a line.
            progress: told how many lines were read since the last call.

        Returns:
            ``(n, F)``, the parts one after another; whatever the batch, but for rounding.

        Raises:
            EngineError: a line without text, without a line break at its end, or longer than
                ``context_length``; a layer that the model does not have.
        """
        ...

    def generate(
        self, prompts: Sequence[Prompt], **options: Unpack[SamplingOptions]
    ) -> list[list[str]]:
        """``n`` sampled continuations of every prompt (its options are ignored), without the stop
        string.  The same seed gives the same texts, whatever the batch."""
        ...


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


def generate_detailed(
    engine: Engine, prompts: Sequence[Prompt], sampling: Sampling
) -> list[Generations]:
    """Sample from any engine, errors and token counts per prompt.

    An engine without a ``generate_detailed`` of its own is asked for all prompts together and, if
    that fails, for each alone.
    """
    own: Callable[..., list[Generations]] | None = getattr(engine, "generate_detailed", None)
    if own is not None:
        return own(prompts, sampling)
    try:
        answers = engine.generate(prompts, **asdict(sampling))
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
