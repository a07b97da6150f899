"""The engine that asks a server with OpenAI's chat interface: hosted models, vLLM and others."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from usermirror_gym.engines.base import OptionScores, StatePart
from usermirror_gym.engines.chat_api import (
    TOP_LOGPROBS,
    chat_body,
    generations_of,
    option_scores_of,
    server_model_id,
)
from usermirror_gym.engines.detailed import Generations, Sampling
from usermirror_gym.errors import ConfigError, EngineError, MissingDependencyError
from usermirror_gym.types import Float32Array, Prompt

T = TypeVar("T")
KEY_VARIABLE = "OPENAI_API_KEY"
_CHARACTERS_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4


class OpenAIEngine:
    """Asks a chat endpoint, several questions at a time; the order of the prompts is kept.

    The library of that name repeats what failed for a moment (429, 5xx, lost connections, time
    outs), with growing pauses and as the server says.  The key comes from the environment at every
    call; it is neither kept nor shown.

    Args:
        model: the server's name for it.
        base_url: ``http://host:port/v1``; default: ``OPENAI_BASE_URL``, or OpenAI itself.
        key_variable: environment variable with the key; a server of your own may need none.
        concurrency: most questions under way at once.
        timeout: seconds to wait for one answer.
        max_retries: how often a question is repeated.
        context_length: tokens that a question and its answer may have.  Counts are estimates here,
            so leave a margin.
        extra_body: further fields of every request; ``None`` takes a field away.  Models that call
            the limit otherwise want ``{"max_tokens": None, "max_completion_tokens": 2048}``.

    Raises:
        ConfigError: a setting that cannot be used.
    """

    counts_are_estimates = True
    """:meth:`count_tokens` has no tokenizer to ask."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        key_variable: str = KEY_VARIABLE,
        concurrency: int = 16,
        timeout: float = 120.0,
        max_retries: int = 4,
        context_length: int = 32_768,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        if not model:
            raise ConfigError("model is empty: name a model of the server.")
        if base_url is not None and urlsplit(base_url).scheme not in ("http", "https"):
            raise ConfigError("base_url must begin with http:// or https://, as in http://host/v1")
        for name, value, least in (
            ("concurrency", concurrency, 1), ("max_retries", max_retries, 0),
            ("context_length", context_length, 1), ("timeout", timeout, 1e-3),
        ):  # fmt: skip
            if not isinstance(value, (int, float)) or not value >= least:
                raise ConfigError(f"{name} is {value!r}: use a number from {least:g}.")
        self._model, self._base_url = model, base_url
        self._key_variable = key_variable
        self._concurrency, self._timeout, self._max_retries = concurrency, timeout, max_retries
        self._context_length, self._extra_body = context_length, dict(extra_body or {})

    def __repr__(self) -> str:
        return f"OpenAIEngine({self._model!r}, server={self._server!r})"

    @property
    def model_id(self) -> str:
        """The server's name for the model.  Its precision is the server's secret."""
        return server_model_id(self._model)

    @property
    def fingerprint(self) -> str:
        """``model_id``: nothing more is known of a model behind a server."""
        return self.model_id

    @property
    def context_length(self) -> int:
        """The most tokens one question may have, as it was set."""
        return self._context_length

    def count_tokens(self, prompt: Prompt) -> int:
        """An estimate: a token for every 4 characters, and 4 for every message's markup."""
        longest = max(map(len, prompt.options), default=0)
        characters = len(prompt.answer_prefix) + longest
        characters += sum(len(message.content) for message in prompt.messages)
        markup = _TOKENS_PER_MESSAGE * (1 + len(prompt.messages))
        return -(-characters // _CHARACTERS_PER_TOKEN) + markup

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
        """Sampled continuations; see :class:`~usermirror_gym.engines.base.Engine`.

        Servers take the seed as a wish: the same seed may give other texts.

        Raises:
            EngineError: a prompt could not be answered; the others' answers are lost with it.
                :meth:`generate_detailed` keeps them.
        """
        sampling = Sampling(n, temperature, top_p, max_tokens, tuple(stop), seed)
        answers = self.generate_detailed(prompts, sampling)
        for answer in answers:
            if answer.error is not None:
                raise EngineError(answer.error)
        return [list(answer.texts) for answer in answers]

    def generate_detailed(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Generations]:
        """Sampled continuations with the tokens that the server counted; a prompt that fails is an
        entry with an error.  Tokens of n texts of one prompt are told apart by their lengths."""

        def read(prompt: Prompt, reply: Any) -> Generations:
            return generations_of(reply, sampling, self._name(prompt))

        def body(prompt: Prompt) -> dict[str, Any]:
            self._check_length(prompt, sampling.max_tokens)
            return chat_body(prompt, self._model, sampling)

        found = self._ask_all(prompts, body, read)
        return [Generations((), error=str(a)) if isinstance(a, EngineError) else a for a in found]

    def choice_logprobs(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        """Letters readout, from the likeliest first tokens that the server tells.

        Raises:
            EngineError: the server gives no log-probabilities of first tokens, or a letter is not
                among them; see also :class:`~usermirror_gym.engines.base.Engine`.
        """

        def body(prompt: Prompt) -> dict[str, Any]:
            if not prompt.options:
                raise EngineError(f"prompt {prompt.name!r} has no options: give it at least one.")
            self._check_length(prompt, 1)
            asked = chat_body(prompt, self._model, Sampling(max_tokens=1))
            return {**asked, "logprobs": True, "top_logprobs": TOP_LOGPROBS}

        def read(prompt: Prompt, reply: Any) -> OptionScores:
            return option_scores_of(reply, prompt, self._name(prompt))

        answers = []
        for found in self._ask_all(prompts, body, read):
            if isinstance(found, EngineError):
                raise found
            answers.append(found)
        return answers

    def text_logprobs(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        """Not possible: chat endpoints do not score texts that are given to them.

        Raises:
            EngineError: always, unless there are no prompts.
        """
        if not prompts:
            return []
        raise EngineError(
            f"{self._name(prompts[0])}: a chat endpoint cannot score given texts. Use the engine "
            "'transformers' for the likelihood readout."
        )

    def count_lines(self, prompt: Prompt) -> int:
        """An estimate, as :meth:`count_tokens`, with all options one after another."""
        return self.count_tokens(replace(prompt, options=("".join(prompt.options),)))

    def line_scores(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        """Not possible: chat endpoints do not give hidden states to a head of ours.

        Raises:
            EngineError: always, unless there are no prompts.
        """
        if not prompts:
            return []
        raise EngineError(
            f"{self._name(prompts[0])}: a chat endpoint has no option head. Use the engine "
            "'transformers' for the options readout."
        )

    def line_states(
        self,
        lines: Sequence[str],
        *,
        head: str,
        parts: Sequence[StatePart],
        progress: Callable[[int], None] = lambda done: None,
    ) -> Float32Array:
        """Not possible: chat endpoints do not give hidden states.

        Raises:
            EngineError: always.
        """
        raise EngineError(
            f"{len(lines)} lines at {self._server}: a chat endpoint does not give hidden states. "
            "Use the engine 'transformers' for the affinity readout."
        )

    @property
    def _server(self) -> str:
        """Host and port only: an address may carry a password."""
        url = self._base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        parts = urlsplit(url)
        return parts.hostname or "?" if parts.port is None else f"{parts.hostname}:{parts.port}"

    def _name(self, prompt: Prompt) -> str:
        return f"prompt {prompt.name!r} at {self._server}"

    def _check_length(self, prompt: Prompt, room: int) -> None:
        needed = self.count_tokens(prompt) + room
        if needed > self._context_length:
            raise EngineError(
                f"prompt {prompt.name!r} needs about {needed} tokens, context_length is "
                f"{self._context_length}: shorten its history or its list."
            )

    def _ask_all(
        self,
        prompts: Sequence[Prompt],
        body: Callable[[Prompt], dict[str, Any]],
        read: Callable[[Prompt, Any], T],
    ) -> list[T | EngineError]:
        """One answer or error per prompt."""
        if not prompts:
            return []
        openai = _openai()

        async def ask_all() -> list[T | EngineError]:
            slots = asyncio.Semaphore(self._concurrency)

            async def ask(client: Any, prompt: Prompt) -> T | EngineError:
                try:
                    fields = _merged(body(prompt), self._extra_body)
                    async with slots:
                        # The reply is read here as plain JSON: servers bend the documented form.
                        reply = await client.post("/chat/completions", body=fields, cast_to=object)
                    return read(prompt, reply)
                except EngineError as error:
                    return EngineError(self._without_key(str(error)))
                except (openai.OpenAIError, ValueError, TypeError) as error:
                    return EngineError(f"{self._name(prompt)}: {self._told(error)}")

            async with self._client(openai) as client:
                return await asyncio.gather(*(ask(client, prompt) for prompt in prompts))

        return _run(ask_all)

    def _client(self, openai: Any) -> Any:
        key = self._key()
        if not key and self._server == "api.openai.com":
            raise EngineError(f"{self._server} wants a key: set {self._key_variable}.")
        return openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=self._base_url,
            timeout=self._timeout,
            max_retries=self._max_retries,
        )

    def _key(self) -> str:
        key = os.environ.get(self._key_variable, "").strip()
        if not (key.isascii() and (key + " ").isprintable() and " " not in key):
            raise EngineError(
                f"{self._key_variable} holds characters that no key has: set it anew."
            )
        return key

    def _told(self, error: Exception) -> str:
        """What happened and why."""
        cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
        text = f"{type(error).__name__}: {error}{cause}"
        return self._without_key(" ".join(text.split()))[:500]

    def _without_key(self, text: str) -> str:
        """Some servers send the key back in their complaints."""
        key = self._key()
        return text.replace(key, "***") if key else text


def _merged(body: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**body, **extra}.items() if value is not None}


def _run(ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run to the end, also where a loop is running already (notebooks)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(ask())
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(ask())).result()


def _openai() -> Any:
    try:
        import openai
    except ImportError as error:
        raise MissingDependencyError("openai", "server") from error
    return openai
