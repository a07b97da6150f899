"""OpenAI's chat interface in plain JSON: what is asked, and how a reply is read.

Requests of a live engine and lines of a batch file are the same, so both go through here.  Servers
bend the documented form in many ways; a reply is checked before anything is taken from it.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from usermirror_gym.engines.base import Generations, OptionScores, Sampling
from usermirror_gym.errors import EngineError
from usermirror_gym.types import Prompt

TOP_LOGPROBS = 20
"""First tokens whose log-probabilities are asked for: the most that such servers give."""
_MOST_LOGPROB = 1e-3
"""Rounding may bring a log-probability above 0."""
_MOST_TOKENS = 1 << 24
"""Of a question or an answer; what a server counts above is an error of its own."""
_LETTER = re.compile(r"\W*([A-Z])(?![\w'])")
"""An answer that begins with a letter, in brackets or not."""
_CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}
"""How vLLM and its like are told that the last message is the beginning of the answer."""


def server_model_id(model: str) -> str:
    """How journals call a model behind a server, whether it is asked live or through files."""
    return f"{model}/server"


def chat_body(prompt: Prompt, model: str, sampling: Sampling) -> dict[str, Any]:
    """The request for a prompt, as OpenAI's chat interface documents it.

    An answer that the prompt has begun is a last message of the assistant, with the two fields by
    which vLLM continues it.  The seed is made of the sampling's and the prompt's text.

    Raises:
        EngineError: the prompt has no messages.
    """
    if not prompt.messages:
        raise EngineError(
            f"prompt {prompt.name!r} is plain text, and a chat endpoint takes messages only: use "
            "the engine 'transformers' for it."
        )
    messages = [{"role": m.role, "content": m.content} for m in prompt.messages]
    body: dict[str, Any] = {
        "model": model,
        "messages": messages,
        "n": sampling.n,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": prompt_seed(prompt, sampling.seed),
    }
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if prompt.answer_prefix:
        messages.append({"role": "assistant", "content": prompt.answer_prefix})
        body |= _CONTINUE
    return body


def generations_of(reply: Any, sampling: Sampling, name: str) -> Generations:
    """Texts and token counts of a completion in plain JSON.

    Raises:
        EngineError: it has not the documented form, or fewer texts than asked for; ``name`` says
            whose reply it is.
    """
    texts = [_text(choice, name) for choice in choices_of(reply, name)]
    if len(texts) != sampling.n:
        raise EngineError(
            f"{name}: {len(texts)} texts instead of {sampling.n}. Servers that write one text a "
            "request want n=1."
        )
    counts = counts_of(reply, 2 * sampling.n * sampling.max_tokens)
    kept = tuple(map(sampling.cut, texts))  # some servers leave the stop string in
    return Generations(kept, counts.asked, _shares(counts.written, [len(text) for text in texts]))


def option_scores_of(reply: Any, prompt: Prompt, name: str) -> OptionScores:
    """Letters readout from the likeliest first tokens of a chat completion in plain JSON.

    Raises:
        EngineError: it tells no log-probabilities, or a letter is not among those that it tells.
    """
    first = _first_tokens(choices_of(reply, name)[0], name)
    missing = [option for option in prompt.options if option not in first]
    if missing:
        raise EngineError(
            f"{name}: {', '.join(map(repr, missing))} are not among the {len(first)} likeliest "
            f"first tokens that it tells (these begin {list(first)[:6]}). Either the server does "
            "not continue a begun answer, or the letters are too unlikely: use the engine "
            "'transformers' for the letters readout."
        )
    values = np.array([first[option] for option in prompt.options])
    counts, logprobs = counts_of(reply), values - np.logaddexp.reduce(values)
    return OptionScores(logprobs, np.ones(len(values), np.int64), counts.asked, counts.cached)


def sampled_scores_of(
    reply: Any, prompt: Prompt, sampling: Sampling, name: str
) -> tuple[OptionScores, int]:
    """Letters readout estimated from sampled answers, and how many of them named no option.

    With c of n readable answers for one of K options its probability is (c + 1/2) / (n + K/2), the
    estimator of Krichevsky and Trofimov (1981), which gives no option 0.

    Raises:
        EngineError: no answer names an option.
    """
    found = generations_of(reply, sampling, name)
    letters = [match[1] for text in found.texts if (match := _LETTER.match(text))]
    counts = np.array([letters.count(option) for option in prompt.options], np.float64)
    if not counts.sum():
        raise EngineError(
            f"{name}: none of {sampling.n} sampled answers begins with one of "
            f"{', '.join(prompt.options)} (the first is {found.texts[0][:80]!r}): the model does "
            "not answer by letters."
        )
    probs = (counts + 0.5) / (counts.sum() + 0.5 * len(counts))
    score = OptionScores(np.log(probs), np.ones(len(counts), np.int64), found.prompt_tokens, 0)
    return score, sampling.n - int(counts.sum())


def _first_tokens(choice: Any, name: str) -> dict[str, float]:
    """Log-probability of each first token of which the server tells one."""
    first: dict[str, float] = {}
    try:
        listed = choice["logprobs"]["content"][0]["top_logprobs"]
        told = [(str(entry["token"]), entry["logprob"]) for entry in listed]
    except (KeyError, IndexError, TypeError):
        told = []
    for token, value in told:
        if (logprob := logprob_of(value, name)) is not None:
            first[token] = float(np.logaddexp(first.get(token, -np.inf), logprob))
    if not first:
        raise EngineError(
            f"{name}: no log-probabilities of first tokens (top_logprobs) in the reply. This "
            "server cannot be a predictor: use the engine 'transformers', or vLLM; or let the "
            "setting estimate_from_samples=N estimate them from N sampled answers."
        )
    return first


def logprob_of(value: Any, name: str) -> float | None:
    """A log-probability in plain JSON; ``None`` for null and minus infinity, which say that there
    is none.

    Raises:
        EngineError: it is not a number up to 0.
    """
    if value is None or value == -math.inf:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not -1e300 < value <= _MOST_LOGPROB:
        raise EngineError(
            f"{name}: the server tells {str(value)[:40]!r}, and there are no log-probabilities but "
            "numbers up to 0. Use another server, or the engine 'transformers'."
        )
    return float(value)


def choices_of(reply: Any, name: str) -> list[Any]:
    """The choices of a completion.

    Raises:
        EngineError: it is none.
    """
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or not choices:
        raise EngineError(f"{name}: the reply is no chat completion: {str(reply)[:200]!r}")
    return choices


def _text(choice: Any, name: str) -> str:
    if isinstance(choice, dict) and isinstance(choice.get("text"), str):
        return str(choice["text"])  # of the interface without messages
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict) or not isinstance(message.get("content"), str | None):
        raise EngineError(f"{name}: the reply has a choice without a message.")
    if choice.get("finish_reason") == "content_filter" or message.get("refusal"):
        raise EngineError(f"{name}: the server refused to answer.")
    # A model that thinks up to the token limit says nothing: an empty text, not an error.
    return message.get("content") or ""


class TokenCounts(NamedTuple):
    """What the server counted; 0 what it does not tell, or tells oddly."""

    asked: int
    cached: int
    written: int


def token_count(told: Any, most: int = _MOST_TOKENS) -> int:
    """A number of tokens in plain JSON; 0 if it is none, or absurd."""
    number = isinstance(told, int) and not isinstance(told, bool)
    return told if number and 0 <= told <= most else 0


def counts_of(reply: Mapping[str, Any], most_written: int = _MOST_TOKENS) -> TokenCounts:
    """Token counts of a completion in plain JSON."""
    usage = reply.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    asked, written = token_count(usage.get("prompt_tokens")), usage.get("completion_tokens")
    return TokenCounts(asked, token_count(cached, asked), token_count(written, most_written))


def _shares(total: int, lengths: Sequence[int]) -> tuple[int, ...]:
    """Whole numbers in proportion to the lengths, with the given sum."""
    weights = np.array(lengths, np.float64) + 1
    ends = np.round(total * weights.cumsum() / weights.sum()).astype(int)
    return tuple(np.diff(ends, prepend=0).tolist())


def prompt_seed(prompt: Prompt, seed: int) -> int:
    """A seed made of the sampling's and the prompt's text."""
    text = repr((seed, [(m.role, m.content) for m in prompt.messages], prompt.answer_prefix))
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1
