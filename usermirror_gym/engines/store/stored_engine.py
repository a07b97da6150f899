"""An engine that asks another one only what nobody asked before."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Unpack

import numpy as np

from usermirror_gym.engines.base import Engine, OptionScores, Sampling, SamplingOptions
from usermirror_gym.engines.local.local import EngineUsage
from usermirror_gym.engines.reopening import Reopened
from usermirror_gym.engines.store.answer_store import AnswerStore
from usermirror_gym.types import Float32Array, Prompt

_VERSION = 1
"""Changes when the same prompt is encoded, or the same answer kept, in another way."""
Ask = Callable[[Sequence[Prompt]], list[OptionScores]]


@dataclass
class StoredUsage(EngineUsage):
    """Of an engine with an answer store; what came from the store cost no computed tokens.

    Attributes:
        hits: answers that were in the store, or given already in the same call (likelihood: one
            per option).
        misses: answers that the engine had to give.
    """

    hits: int = 0
    misses: int = 0

    @property
    def hit_rate(self) -> float | None:
        """Share of the answers that were in the store; ``None`` before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None


class StoredEngine(Reopened):
    """Wraps an engine; see :class:`~usermirror_gym.engines.base.Engine`.

    An answer is kept under the identity of the model (content of its weights, adapter and head,
    tokenizer and chat template, precision, kind of engine), the question's whole text, and what was
    asked.  It is read back bit for bit.  The likelihood of every option is an answer of its own, so
    that lists that share items share answers too.  Texts are kept under their sampling and seed.
    Hidden states are not kept here: their readers keep them (``simulators.item_vectors``).

    Of a model behind a server nothing is known but its name: let the store go when the server's
    weights change.

    Args:
        engine: answers what is not in the store.
        store: where answers are kept.
    """

    def __init__(self, engine: Engine, store: AnswerStore) -> None:
        self.engine, self.store = engine, store
        self.usage = StoredUsage()

    @cached_property
    def identity(self) -> str:
        """What tells the answers of the engine apart from those of every other: its ``identity``
        (:attr:`identity`), or, of an engine that knows
        nothing of its weights, kind and fingerprint."""
        known: str | None = getattr(self.engine, "identity", None)
        return known or f"{type(self.engine).__name__}: {self.engine.fingerprint}"

    @property
    def model_id(self) -> str:
        """Of the engine: the answers are its own."""
        return self.engine.model_id

    @property
    def fingerprint(self) -> str:
        """Of the engine."""
        return self.engine.fingerprint

    @property
    def context_length(self) -> int:
        """Of the engine."""
        return self.engine.context_length

    def count_tokens(self, prompt: Prompt) -> int:
        """As the engine counts."""
        return self.engine.count_tokens(prompt)

    def count_lines(self, prompt: Prompt) -> int:
        """As the engine counts."""
        return self.engine.count_lines(prompt)

    def report(self) -> dict[str, Any]:
        """Hits and misses, beside what the engine itself reports."""
        inner: dict[str, Any] = getattr(self.engine, "report", dict)()
        usage = self.usage
        return {
            **inner,
            "answers": {
                "hits": usage.hits, "misses": usage.misses, "hit_rate": usage.hit_rate,
                "damaged": self.store.damaged,
            },
        }  # fmt: skip

    def forget(self) -> None:
        """The engine drops what it keeps of earlier questions; the store keeps its answers."""
        if forget := getattr(self.engine, "forget", None):
            forget()

    def choice_logprobs(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        """Letters readout; see :class:`~usermirror_gym.engines.base.Engine`."""
        return self._whole("letters", prompts, self.engine.choice_logprobs)

    def line_scores(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        """Options readout; see :class:`~usermirror_gym.engines.base.Engine`."""
        return self._whole("lines", prompts, self.engine.line_scores)

    def text_logprobs(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        """Likelihood readout; see :class:`~usermirror_gym.engines.base.Engine`."""
        begin = time.perf_counter()
        keys = [[self._key("text", replace(p, options=(o,))) for o in p.options] for p in prompts]
        known = self._kept([key for own in keys for key in own])
        plan = self._missing_options(prompts, keys, known)
        computed = [0] * len(prompts)
        fresh: dict[bytes, OptionScores] = {}
        answers = self.engine.text_logprobs([part for _, part, _ in plan]) if plan else []
        for (i, _, own), answer in zip(plan, answers, strict=True):
            computed[i] = answer.prompt_tokens - answer.cached_tokens
            fresh.update(zip(own, _alone(answer), strict=True))
        self._keep(fresh)
        known |= fresh
        scores = [
            # A prompt without options is for the engine to refuse.
            _joined([known[key] for key in own], cost) if own else answers[i]
            for i, (own, cost) in enumerate(zip(keys, computed, strict=True))
        ]
        self._count(scores, sum(map(len, keys)), len(fresh), sum(computed), begin)
        return scores

    def item_hidden_states(self, lines: Sequence[str], **asked: Any) -> Float32Array:
        """Affinity readout, from the engine."""
        begin = time.perf_counter()
        states = self.engine.item_hidden_states(lines, **asked)
        self.usage.seconds += time.perf_counter() - begin
        return states

    def generate(
        self, prompts: Sequence[Prompt], **options: Unpack[SamplingOptions]
    ) -> list[list[str]]:
        """Sampled continuations; see :class:`~usermirror_gym.engines.base.Engine`."""
        begin = time.perf_counter()
        kind = f"generate {json.dumps(asdict(Sampling(**options)))}"
        keys = [self._key(kind, replace(prompt, options=())) for prompt in prompts]
        known = {
            key: json.loads(value)
            for key, value in zip(keys, self.store.get(keys), strict=True)
            if value is not None
        }
        missing = {k: p for k, p in zip(keys, prompts, strict=True) if k not in known}
        texts = self.engine.generate(list(missing.values()), **options)
        fresh = dict(zip(missing, texts, strict=True))
        self.store.put({key: json.dumps(own).encode() for key, own in fresh.items()})
        self._count((), len(keys), len(fresh), 0, begin)
        return [list((known | fresh)[key]) for key in keys]

    def _whole(self, kind: str, prompts: Sequence[Prompt], ask: Ask) -> list[OptionScores]:
        """Answers that are kept whole, since they are normalised over the prompt's options."""
        begin = time.perf_counter()
        keys = [self._key(kind, prompt) for prompt in prompts]
        known = self._kept(keys)
        missing = {k: p for k, p in zip(keys, prompts, strict=True) if k not in known}
        fresh = dict(zip(missing, ask(list(missing.values())), strict=True))
        self._keep(fresh)
        # What was kept says itself that it cost nothing.
        scores = [(known | fresh)[key] for key in keys]
        computed = sum(score.prompt_tokens - score.cached_tokens for score in fresh.values())
        self._count(scores, len(keys), len(fresh), computed, begin)
        return scores

    def _missing_options(
        self,
        prompts: Sequence[Prompt],
        keys: Sequence[Sequence[bytes]],
        known: dict[bytes, OptionScores],
    ) -> list[tuple[int, Prompt, list[bytes]]]:
        """Number, prompt and keys of what must be asked; an option is asked once a call."""
        plan: list[tuple[int, Prompt, list[bytes]]] = []
        asked: set[bytes] = set()
        for i, (prompt, own) in enumerate(zip(prompts, keys, strict=True)):
            new = {
                key: option
                for key, option in zip(own, prompt.options, strict=True)
                if key not in known and key not in asked
            }
            asked |= new.keys()
            if new or not own:
                plan.append((i, replace(prompt, options=tuple(new.values())), list(new)))
        return plan

    def _kept(self, keys: Sequence[bytes]) -> dict[bytes, OptionScores]:
        values = zip(keys, self.store.get(keys), strict=True)
        return {key: _unpacked(value) for key, value in values if value is not None}

    def _keep(self, scores: Mapping[bytes, OptionScores]) -> None:
        self.store.put({key: _packed(score) for key, score in scores.items()})

    def _key(self, kind: str, prompt: Prompt) -> bytes:
        messages = [(m.role, m.content) for m in prompt.messages]
        parts = (_VERSION, self.identity, kind, messages, prompt.answer_prefix, prompt.options)
        # JSON tells every text apart, lone surrogates included.
        return hashlib.sha256(json.dumps(parts).encode()).digest()

    def _count(
        self, scores: Sequence[OptionScores], wanted: int, fresh: int, computed: int, begin: float
    ) -> None:
        self.usage.add(scores, computed, time.perf_counter() - begin)
        self.usage.hits += wanted - fresh
        self.usage.misses += fresh


def _packed(score: OptionScores) -> bytes:
    numbers = [score.logprobs.astype(np.float64).view(np.int64), score.n_tokens,
               np.array([score.prompt_tokens])]  # fmt: skip
    return np.concatenate(numbers).astype("<i8").tobytes()


def _unpacked(value: bytes) -> OptionScores:
    numbers = np.frombuffer(value, "<i8").astype(np.int64)
    k = len(numbers) // 2
    tokens = int(numbers[-1])
    return OptionScores(numbers[:k].view(np.float64), numbers[k : 2 * k], tokens, tokens)


def _alone(answer: OptionScores) -> list[OptionScores]:
    """The answer about each option as if it had been asked alone."""
    prefix = answer.prompt_tokens - int(answer.n_tokens.sum())
    return [
        OptionScores(answer.logprobs[[k]], answer.n_tokens[[k]], prefix + int(n), prefix + int(n))
        for k, n in enumerate(answer.n_tokens)
    ]


def _joined(parts: Sequence[OptionScores], computed: int) -> OptionScores:
    """One answer about several options of a prompt."""
    n_tokens = np.concatenate([part.n_tokens for part in parts])
    prefix = parts[0].prompt_tokens - int(parts[0].n_tokens[0])
    tokens = prefix + int(n_tokens.sum())
    logprobs = np.concatenate([part.logprobs for part in parts])
    return OptionScores(logprobs, n_tokens, tokens, max(0, tokens - computed))
