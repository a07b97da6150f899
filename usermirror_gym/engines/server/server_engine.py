"""The engine that asks servers with OpenAI's interface: vLLM, llama.cpp, SGLang, hosted models."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Generic, TypeVar, Unpack
from urllib.parse import urlsplit

from usermirror_gym.engines.base import (
    Generations,
    OptionScores,
    Sampling,
    SamplingOptions,
)
from usermirror_gym.engines.checkpoints import resolve_checkpoint
from usermirror_gym.engines.local.encoding import EncodedPrompt, PromptEncoder, check_options
from usermirror_gym.engines.local.local import EngineUsage, answers_of, text_scores
from usermirror_gym.engines.reopening import Reopened
from usermirror_gym.engines.server.bounded_http import bounded_client
from usermirror_gym.engines.server.chat_api import (
    TOP_LOGPROBS,
    chat_body,
    generations_of,
    option_scores_of,
    prompt_seed,
    sampled_scores_of,
    server_model_id,
    token_count,
)
from usermirror_gym.engines.server.replicas import (
    BackgroundLoop,
    Replica,
    assign,
    beginning_of,
    host_of,
)
from usermirror_gym.engines.server.token_api import (
    generate_body,
    letters_body,
    letters_of,
    text_body,
    text_of,
)
from usermirror_gym.errors import ConfigError, EngineError, MissingDependencyError, nearest
from usermirror_gym.foreign import for_terminal
from usermirror_gym.types import Float32Array, Prompt

logger = logging.getLogger(__name__)
T = TypeVar("T")
KEY_VARIABLE = "OPENAI_API_KEY"
_CHARACTERS_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4
_DEFAULT_LENGTH = 32_768
_DEFAULT_ADDRESS = "https://api.openai.com/v1"
_SAMPLED_TOKENS = 4
"""Enough for a letter in brackets."""
_Clients = dict[str | None, Any]


@dataclass(frozen=True)
class _Question(Generic[T]):
    """A prompt, its request (made when it is sent), and how a reply is read."""

    prompt: Prompt
    body: Callable[[], dict[str, Any]]
    read: Callable[[Any], T]


class ServerEngine(Reopened):
    """Asks servers with OpenAI's interface, many questions at a time; the order is kept.

    With ``tokenizer`` it sends token ids to vLLM's completions interface: letters and likelihood
    are then those of the engines in this process.  Without, it asks any chat endpoint, and reads
    letters from the likeliest first tokens that it tells.

    With several replicas a user's questions go to the same one (see
    :func:`assign`).  A replica that does not answer is left alone
    for a growing pause and its questions go to the next; each is answered once.  What failed for a
    moment on the last one to be tried (429, 5xx, lost connections, time outs) is repeated with
    growing pauses and as the server says (a minute at most).  A question thus takes at most
    ``(replicas + max_retries) * timeout`` and the pauses.  The key comes from the environment at
    every call; it is neither kept nor shown.

    Args:
        model: the server's name for it.
        base_url: ``http://host:port/v1``, or several (a list, or separated by commas); default:
            ``OPENAI_BASE_URL``, or OpenAI itself.
        tokenizer: folder or name of the model, as for
            :func:`~usermirror_gym.engines.checkpoints.resolve_checkpoint`, whose tokenizer and chat
            template are those of the model behind a vLLM server.
        key_variable: environment variable with the key; a server of your own may need none.
        concurrency: most questions under way at once.
        timeout: seconds for one answer, to its last byte; it may have 64 MiB.
        max_retries: how often a question is repeated.
        context_length: tokens that a question and its answer may have; ``None``: what the server
            tells where ``tokenizer`` is given, else 32,768.  Without ``tokenizer`` counts are
            estimates, so leave a margin.
        estimate_from_samples: estimate the probabilities of letters from so many sampled answers,
            for servers that tell none; marked in ``model_id``.
        extra_body: further fields of every request; ``None`` takes a field away.  Models that call
            the limit otherwise want ``{"max_tokens": None, "max_completion_tokens": 2048}``.

    Raises:
        ConfigError: a setting that cannot be used.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | Sequence[str] | None = None,
        tokenizer: str | None = None,
        key_variable: str = KEY_VARIABLE,
        concurrency: int = 16,
        timeout: float = 120.0,
        max_retries: int = 4,
        context_length: int | None = None,
        estimate_from_samples: int | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        if not model:
            raise ConfigError("model is empty: name a model of the server.")
        for name, value, least in (
            ("concurrency", concurrency, 1), ("max_retries", max_retries, 0),
            ("context_length", _DEFAULT_LENGTH if context_length is None else context_length, 1),
            ("timeout", timeout, 1e-3),
            ("estimate_from_samples", estimate_from_samples or 1, 1),
        ):  # fmt: skip
            if not isinstance(value, (int, float)) or not value >= least:
                raise ConfigError(f"{name} is {value!r}: use a number from {least:g}.")
        self._model, self._urls = model, _addresses(base_url)
        self._replicas = [Replica(url) for url in self._urls]
        self._tokenizer_name = tokenizer
        self._key_variable = key_variable
        self._concurrency, self._timeout, self._max_retries = concurrency, timeout, max_retries
        self._asked_length, self._extra_body = context_length, dict(extra_body or {})
        self._samples = estimate_from_samples
        self._rerouted = self._unreadable = 0
        self._connections: Any = None
        self.usage = EngineUsage()

    def __repr__(self) -> str:
        return f"ServerEngine({self._model!r}, server={self._server!r})"

    @property
    def counts_are_estimates(self) -> bool:
        """Whether :meth:`count_tokens` has no tokenizer to ask."""
        return self._tokenizer_name is None

    @property
    def model_id(self) -> str:
        """The server's name for the model.  Its precision is the server's secret."""
        sampled = f"/sampled-{self._samples}" if self._samples else ""
        return server_model_id(self._model) + sampled

    @property
    def fingerprint(self) -> str:
        """``model_id``: nothing more is known of a model behind a server."""
        return self.model_id

    @property
    def context_length(self) -> int:
        """The most tokens one question may have, as it was set or as the server tells."""
        if self._asked_length is not None:
            return self._asked_length
        if self._tokenizer_name is None:
            return _DEFAULT_LENGTH
        return self._told_length

    @cached_property
    def _told_length(self) -> int:
        """The server writes a token behind every question, which must fit too."""

        async def ask() -> None:
            clients = await self._clients()
            await asyncio.gather(*(self._check(r, clients[r.url]) for r in self._replicas))

        self._loop.run(ask)
        told = [r.context_length for r in self._replicas if r.context_length]
        return min(told, default=_DEFAULT_LENGTH + 1) - 1

    def report(self) -> dict[str, Any]:
        """What became of the questions: per replica, and how many had to go to another one."""
        replicas = {
            host: replica.report()
            for host, replica in zip(self._hosts, self._replicas, strict=True)
        }
        sampled = {"unreadable_samples": self._unreadable} if self._samples else {}
        return {"replicas": replicas, "rerouted": self._rerouted, **sampled}

    def count_tokens(self, prompt: Prompt) -> int:
        """Tokens of the question with its longest option; without a tokenizer an estimate: one for
        every 4 characters, and 4 for every message's markup."""
        if self._tokenizer_name is not None:
            return self._encoder.encode(prompt).longest
        longest = max(map(len, prompt.options), default=0)
        characters = len(prompt.answer_prefix) + longest
        characters += sum(len(message.content) for message in prompt.messages)
        markup = _TOKENS_PER_MESSAGE * (1 + len(prompt.messages))
        return -(-characters // _CHARACTERS_PER_TOKEN) + markup

    def generate(
        self, prompts: Sequence[Prompt], **options: Unpack[SamplingOptions]
    ) -> list[list[str]]:
        """Sampled continuations; see :class:`~usermirror_gym.engines.base.Engine`.

        Servers take the seed as a wish: the same seed may give other texts.

        Raises:
            EngineError: a prompt could not be answered; the others' answers are lost with it.
                :meth:`generate_detailed` keeps them.
        """
        sampling = Sampling(**options)
        answers = self.generate_detailed(prompts, sampling)
        for answer in answers:
            if answer.error is not None:
                raise EngineError(answer.error)
        return [list(answer.texts) for answer in answers]

    def generate_detailed(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Generations]:
        """Sampled continuations with the tokens that the server counted; a prompt that fails is an
        entry with an error.  Tokens of n texts of one prompt are told apart by their lengths."""
        begin = time.perf_counter()
        asked = [
            _Question(
                prompt,
                partial(self._generate_body, prompt, sampling),
                partial(generations_of, sampling=sampling, name=self._name(prompt)),
            )
            for prompt in prompts
        ]
        found = self._ask_all(asked)
        self.usage.seconds += time.perf_counter() - begin
        return [Generations((), error=str(a)) if isinstance(a, EngineError) else a for a in found]

    def choice_logprobs(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        """Letters readout; see :class:`~usermirror_gym.engines.base.Engine`.

        Raises:
            EngineError: the server gives no log-probabilities of first tokens, a letter is not
                among them, or it could not be asked; the first such prompt is named.
        """
        begin = time.perf_counter()
        ask = self._token_letters if self._tokenizer_name is not None else self._chat_letters
        if self._samples:
            ask = self._sampled_letters
        found = self._ask_all([ask(prompt) for prompt in prompts])
        return self._counted(_all_answered(found), begin)

    def text_logprobs(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        """Likelihood readout, from vLLM's server with ``tokenizer``: chat endpoints do not score
        texts that are given to them.

        Raises:
            EngineError: a chat endpoint, an option without tokens, or as :meth:`choice_logprobs`.
        """
        if not prompts:
            return []
        if self._tokenizer_name is None:
            raise EngineError(
                f"{self._name(prompts[0])}: a chat endpoint cannot score given texts. Use the "
                "engine 'transformers' for the likelihood readout, or vLLM's server with the "
                "setting tokenizer=."
            )
        begin = time.perf_counter()
        encoded = self._encoded(prompts, options="texts")
        asked = [
            _Question(
                prompt,
                partial(text_body, question.prefix, option, self._model),
                partial(text_of, option=option, name=self._name(prompt)),
            )
            for prompt, question in zip(prompts, encoded, strict=True)
            for option in question.options
        ]
        found = self._ask_all(asked)
        answers = answers_of(encoded, _all_answered(found))
        scores = [text_scores(q, a) for q, a in zip(encoded, answers, strict=True)]
        return self._counted(scores, begin)

    def _chat_letters(self, prompt: Prompt) -> _Question[OptionScores]:
        def body() -> dict[str, Any]:
            check_options(prompt)
            self._check_estimate(prompt, 1)
            asked = chat_body(prompt, self._model, Sampling(max_tokens=1))
            return {**asked, "logprobs": True, "top_logprobs": TOP_LOGPROBS}

        return _Question(
            prompt, body, lambda reply: option_scores_of(reply, prompt, self._name(prompt))
        )

    def _sampled_letters(self, prompt: Prompt) -> _Question[OptionScores]:
        assert self._samples is not None
        sampling = Sampling(n=self._samples, max_tokens=_SAMPLED_TOKENS)

        def body() -> dict[str, Any]:
            check_options(prompt)
            return self._generate_body(prompt, sampling)

        def read(reply: Any) -> OptionScores:
            score, unreadable = sampled_scores_of(reply, prompt, sampling, self._name(prompt))
            self._unreadable += unreadable
            return score

        return _Question(prompt, body, read)

    def _token_letters(self, prompt: Prompt) -> _Question[OptionScores]:
        (question,) = self._encoded([prompt], options="letters")
        body = partial(letters_body, question, self._model)
        return _Question(
            prompt, body, partial(letters_of, question=question, name=self._name(prompt))
        )

    def _generate_body(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        if self._tokenizer_name is None:
            self._check_estimate(prompt, sampling.max_tokens)
            return chat_body(prompt, self._model, sampling)
        (question,) = self._encoded([prompt], room=sampling.max_tokens)
        body = generate_body(question.prefix, self._model, sampling)
        return {**body, "seed": prompt_seed(prompt, sampling.seed)}

    def _encoded(self, prompts: Sequence[Prompt], **how: Any) -> list[EncodedPrompt]:
        return self._encoder.encode_all(prompts, self.context_length, **how)

    @cached_property
    def _encoder(self) -> PromptEncoder:
        from usermirror_gym.engines.local.model_loading import load_tokenizer

        assert self._tokenizer_name is not None
        return PromptEncoder(load_tokenizer(resolve_checkpoint(self._tokenizer_name)))

    def _counted(self, scores: list[OptionScores], begin: float) -> list[OptionScores]:
        computed = sum(score.prompt_tokens - score.cached_tokens for score in scores)
        self.usage.add(scores, computed, time.perf_counter() - begin)
        return scores

    def count_lines(self, prompt: Prompt) -> int:
        """As :meth:`count_tokens`, with all options one after another."""
        if self._tokenizer_name is not None:
            return self._encoder.encode(prompt).whole
        return self.count_tokens(replace(prompt, options=("".join(prompt.options),)))

    def line_scores(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        """Not possible: a chat endpoint gives no hidden states to a head of ours; raises
        EngineError unless there are no prompts."""
        if not prompts:
            return []
        raise EngineError(
            f"{self._name(prompts[0])}: a chat endpoint has no option head. Use the engine "
            "'transformers' for the options readout."
        )

    def item_hidden_states(self, lines: Sequence[str], **asked: Any) -> Float32Array:
        """Not possible: chat endpoints do not give hidden states; raises EngineError."""
        raise EngineError(
            f"{len(lines)} lines at {self._server}: a chat endpoint does not give hidden states. "
            "Use the engine 'transformers' for the affinity readout."
        )

    @cached_property
    def _hosts(self) -> list[str]:
        """Names of the replicas for people; numbered where two are on one host and port."""
        hosts = [
            host_of(url or os.environ.get("OPENAI_BASE_URL") or _DEFAULT_ADDRESS)
            for url in self._urls
        ]
        return [h if hosts.count(h) == 1 else f"{h} ({i + 1})" for i, h in enumerate(hosts)]

    @property
    def _server(self) -> str:
        return ", ".join(self._hosts)

    def _name(self, prompt: Prompt) -> str:
        return f"prompt {prompt.name!r} at {self._server}"

    def _host(self, replica: Replica) -> str:
        return self._hosts[self._replicas.index(replica)]

    def _check_estimate(self, prompt: Prompt, room: int) -> None:
        needed = self.count_tokens(prompt) + room
        if needed > self.context_length:
            raise EngineError(
                f"prompt {prompt.name!r} needs about {needed} tokens, context_length is "
                f"{self.context_length}: shorten its history or its list."
            )

    def _ask_all(self, questions: Sequence[_Question[T]]) -> list[T | EngineError]:
        """One answer or error per question."""
        if not questions:
            return []
        _ = self.context_length  # may ask the server, which cannot be done inside the loop

        async def ask_all() -> list[T | EngineError]:
            slots = asyncio.Semaphore(self._concurrency)
            orders = assign([beginning_of(q.prompt) for q in questions], self._replicas)

            async def ask(clients: _Clients, k: int) -> T | EngineError:
                async with slots:
                    return await self._ask(clients, questions[k], orders[k])

            clients = await self._clients()
            return await asyncio.gather(*(ask(clients, k) for k in range(len(questions))))

        return self._loop.run(ask_all)

    async def _ask(
        self, clients: _Clients, question: _Question[T], order: Sequence[Replica]
    ) -> T | EngineError:
        openai = _openai()
        name = self._name(question.prompt)
        try:
            fields = {**question.body(), **self._extra_body}
            fields = {key: value for key, value in fields.items() if value is not None}
            reply = await self._first_reply(openai, clients, fields, order, question.prompt.name)
            self._check_answerer(reply, name)
            return question.read(reply)
        except EngineError as error:
            return EngineError(self._without_key(str(error)))
        except (openai.OpenAIError, ValueError, TypeError, RecursionError) as error:
            return EngineError(f"{name}: {self._told(error)}")

    async def _first_reply(
        self,
        openai: Any,
        clients: _Clients,
        fields: dict[str, Any],
        order: Sequence[Replica],
        name: str,
    ) -> Any:
        """The reply of the first replica that has one, as plain JSON: servers bend the documented
        form.  If none has, one that is busy, or the user's own, is asked repeatedly."""
        retried = (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError)
        tried: dict[str, None] = {}
        busy: list[Replica] = []
        alive = [r for r in order if not r.down]
        for replica in alive if len(alive) > 1 else []:
            client = clients[replica.url].with_options(max_retries=0)
            try:
                return await self._reply(client, fields, replica, order)
            except retried as error:
                tried[f"{self._host(replica)}: {self._told(error)}"] = None
                if not isinstance(error, openai.APIConnectionError):
                    busy.append(replica)
        last = [*busy, *(r for r in order if not r.down), *order][0]
        try:
            return await self._reply(clients[last.url], fields, last, order)
        except retried as error:
            tried[f"{self._host(last)}: {self._told(error)}"] = None
            raise EngineError(f"prompt {name!r} at {'; at '.join(tried)}") from error

    async def _reply(
        self, client: Any, fields: dict[str, Any], replica: Replica, order: Sequence[Replica]
    ) -> Any:
        try:
            await self._check(replica, client)
            path = "/completions" if "prompt" in fields else "/chat/completions"
            reply = await client.post(path, body=fields, cast_to=object)
        except _openai().APIConnectionError as error:
            replica.has_failed(self._told(error))
            raise
        replica.succeeded()
        self._rerouted += replica is not order[0]
        return reply

    async def _check(self, replica: Replica, client: Any) -> None:
        """Whether a replica serves the model; asked once, and again after a failure.

        Raises:
            EngineError: it serves others.
        """
        openai = _openai()
        if replica.checked or replica.url is None:
            return
        try:
            listed = await client.with_options(max_retries=0).get("/models", cast_to=object)
            models = {str(m["id"]): m for m in listed["data"]}
        except (openai.APIStatusError, KeyError, TypeError, ValueError, RecursionError):
            models = {}  # not every server lists its models
        except openai.APIConnectionError:
            return  # the question itself will tell
        if models and self._model not in models:
            near = nearest(self._model, sorted(models))
            hint = f" Did you mean {near!r}?" if near else ""
            raise EngineError(
                f"{self._host(replica)} does not serve the model {self._model!r}.{hint} It serves "
                f"{', '.join(sorted(models)[:10])}."
            )
        replica.checked = True
        length = token_count(models.get(self._model, {}).get("max_model_len"))
        replica.context_length = length or None

    def _check_answerer(self, reply: Any, name: str) -> None:
        told = reply.get("model") if isinstance(reply, dict) else None
        # Hosted models answer under a dated name, others without their owner.
        known = (self._model, self._model.rpartition("/")[2])
        if isinstance(told, str) and told and not told.startswith(known):
            raise EngineError(
                f"{name}: the model {told!r} answered instead of {self._model!r}. Name that one, "
                "or let the server serve yours."
            )

    async def _clients(self) -> _Clients:
        """A client per address, for one call: the key is not kept, the connections are."""
        openai, key = _openai(), self._key()
        if not key and self._server == "api.openai.com":
            raise EngineError(f"{self._server} wants a key: set {self._key_variable}.")
        if self._connections is None:
            # A warning, so that it is seen on stderr where nobody has set up any logging.
            logger.warning("asking the model %r at %s", self._model, for_terminal(self._server))
            self._connections = bounded_client(openai, self._timeout)
        return {
            url: openai.AsyncOpenAI(
                api_key=key or "none", base_url=url, timeout=self._timeout,
                max_retries=self._max_retries, http_client=self._connections,
            )
            for url in self._urls
        }  # fmt: skip

    @cached_property
    def _loop(self) -> BackgroundLoop:
        return BackgroundLoop()

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
        """Some servers send the key back in their complaints, or what a terminal obeys."""
        key, text = self._key(), for_terminal(text)
        return text.replace(key, "***") if key else text


def _addresses(base_url: str | Sequence[str] | None) -> list[str | None]:
    """The replicas' addresses; ``None`` stands for the library's default."""
    if base_url is None:
        return [None]
    given = base_url.split(",") if isinstance(base_url, str) else list(base_url)
    urls = [str(url).strip() for url in given]
    if not urls or any(urlsplit(url).scheme not in ("http", "https") for url in urls):
        raise ConfigError("base_url must begin with http:// or https://, as in http://host/v1")
    if len(set(urls)) < len(urls):
        raise ConfigError("base_url names a server twice: name every replica once")
    return list(urls)


def _all_answered(found: Sequence[T | EngineError]) -> list[T]:
    """The answers; the first error is raised, and tells how many there are."""
    errors = [answer for answer in found if isinstance(answer, EngineError)]
    if errors:
        more = f" ({len(errors)} of {len(found)} questions failed)" if len(found) > 1 else ""
        raise EngineError(f"{errors[0]}{more}")
    return [answer for answer in found if not isinstance(answer, EngineError)]


def _openai() -> Any:
    try:
        import openai
    except ImportError as error:
        raise MissingDependencyError("openai", "server") from error
    return openai
