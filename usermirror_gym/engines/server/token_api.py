"""vLLM's completions interface with token ids in plain JSON: what is asked, how a reply is read.

Token ids go past the server's own chat template, so that a question has the same tokens as in
process, and titles that spell a special token stay plain text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from usermirror_gym.engines.base import OptionScores, Sampling
from usermirror_gym.engines.local.encoding import Answer, EncodedPrompt
from usermirror_gym.engines.local.local import letter_scores
from usermirror_gym.engines.server.chat_api import choices_of, counts_of, logprob_of
from usermirror_gym.errors import EngineError

_ASKED = 20
"""Log-probabilities asked for at least: a server that tells them from before the mask may still
tell those of all letters."""
_STARTED = "Start it with --logprobs-mode processed_logprobs --max-logprobs 26."


def letters_body(question: EncodedPrompt, model: str) -> dict[str, Any]:
    """A request for the next token among the letters."""
    letters = [option[0] for option in question.options]
    return {
        "model": model, "prompt": list(question.prefix), "max_tokens": 1, "temperature": 0.0,
        "logprobs": max(len(letters), _ASKED), "allowed_token_ids": letters,
        "return_tokens_as_token_ids": True,
    }  # fmt: skip


def letters_of(reply: Any, question: EncodedPrompt, name: str) -> OptionScores:
    """Letters readout.

    Raises:
        EngineError: no log-probabilities, or not of every letter; ``name`` says whose reply it is.
    """
    try:
        listed = choices_of(reply, name)[0]["logprobs"]["top_logprobs"][0]
        listed = {int(token.removeprefix("token_id:")): v for token, v in listed.items()}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise EngineError(
            f"{name}: no log-probabilities of token ids in the reply. This takes vLLM's server; "
            "leave tokenizer away to use the chat interface of another."
        ) from error
    told = {i: value for i, v in listed.items() if (value := logprob_of(v, name)) is not None}
    letters = [option[0] for option in question.options]
    missing = [i for i in letters if i not in told]
    if missing:
        raise EngineError(
            f"{name}: {len(missing)} of {len(letters)} letters are not among the log-probabilities "
            f"that the server tells (token {missing[0]} first). {_STARTED}"
        )
    values = np.array([told[i] for i in letters], np.float64)
    return letter_scores(question, Answer(values, _computed(reply, len(question.prefix))))


def text_body(prefix: Sequence[int], option: Sequence[int], model: str) -> dict[str, Any]:
    """A request for the log-probabilities of a prompt's own tokens."""
    return {
        "model": model, "prompt": [*prefix, *option], "max_tokens": 1, "temperature": 0.0,
        "prompt_logprobs": 0,
    }  # fmt: skip


def text_of(reply: Any, option: Sequence[int], name: str) -> Answer:
    """Summed log-probability of the last tokens of the prompt.

    Raises:
        EngineError: the reply does not tell them.
    """
    try:
        rows = choices_of(reply, name)[0]["prompt_logprobs"][-len(option) :]
        told = [row[str(i)]["logprob"] for row, i in zip(rows, option, strict=True)]
        values = [value for v in told if (value := logprob_of(v, name)) is not None]
        if len(values) < len(told):
            raise ValueError("a token has none")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise EngineError(
            f"{name}: no log-probabilities of the prompt's tokens in the reply ({error!r}). The "
            "likelihood readout takes vLLM's server, or the engine 'transformers'."
        ) from error
    return Answer(np.array([sum(values)]), _computed(reply, 0))


def generate_body(prefix: Sequence[int], model: str, sampling: Sampling) -> dict[str, Any]:
    """A request for sampled continuations; the caller adds the seed."""
    return {
        "model": model, "prompt": list(prefix), "n": sampling.n, "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature, "top_p": sampling.top_p,
        "stop": list(sampling.stop) or None,
    }  # fmt: skip


def _computed(reply: Any, otherwise: int) -> int:
    counts = counts_of(reply)
    return max(0, (counts.asked or otherwise) - counts.cached)
