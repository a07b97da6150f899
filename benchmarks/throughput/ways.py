"""Ways of asking the questions, each timed in a process of its own."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from usermirror_gym.engines import resolve_checkpoint
from usermirror_gym.engines.base import OptionScores
from usermirror_gym.engines.choosing import load_engine
from usermirror_gym.engines.local.encoding import PromptEncoder
from usermirror_gym.engines.local.model_loading import load_model, load_tokenizer, torch_dtype
from usermirror_gym.engines.store.answer_store import AnswerStore
from usermirror_gym.engines.store.stored_engine import StoredEngine
from usermirror_gym.scenes.words.rationale_prompt import STOP, tidy
from usermirror_gym.types import Prompt

from .questions import Pattern, Question, load_patterns

WAYS = {
    "naive": "one full forward pass a question",
    "batched": "batched, nothing shared",
    "transformers": "transformers: beginnings shared, cached",
    "stored": "the same, answer store warm",
    "vllm": "vLLM",
    "per-item": "one question per item (as SUBER asks)",
    "rationale": "a rationale, then the letter",
}
_RATIONALE_TOKENS = 96


@dataclass(frozen=True)
class Job:
    """One row of the table.

    Attributes:
        way: of :data:`WAYS`.
        pattern: of the questions.
        readout: letters or likelihood.
        every: ask every so manieth question only.
        budget: seconds after which no further call is begun; episodes are played to their end.
        answers: output of the row whose answers fill the store, for the way ``stored``.
    """

    way: str
    pattern: str
    readout: str
    checkpoint: str
    dtype: str
    device: str
    every: int = 1
    budget: float = 60.0
    answers: str = ""


@dataclass
class Row:
    """What came of a job.  Seconds are of the timed calls alone, without loading and warm-up."""

    way: str
    pattern: str
    readout: str
    asked: list[int] = field(default_factory=list)
    probs: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    first_seconds: float = 0.0
    calls: int = 0
    prompt_tokens: int = 0
    computed_tokens: int = 0
    peak_bytes: int = 0
    logprobs: list[list[float]] = field(default_factory=list)


@dataclass
class Asked:
    """Answers of one call."""

    probs: list[np.ndarray]
    prompt_tokens: int
    computed_tokens: int
    logprobs: list[np.ndarray] = field(default_factory=list)


Ask = Callable[[Sequence[Question]], Asked]


def run_job(job: Job, patterns: Path) -> Row:
    """Load, warm up, ask, measure."""
    (pattern,) = [p for p in load_patterns(patterns) if p.name == job.pattern]
    kept = set(_earlier(job)["asked"]) if job.way == "stored" else set[int]()
    ask = _ask(job, pattern)
    _warm_up(ask, pattern)
    row = Row(job.way, job.pattern, job.readout)
    begin = time.perf_counter()
    ask([pattern.first])
    row.first_seconds = time.perf_counter() - begin
    shares = job.way in ("transformers", "stored", "vllm")
    calls = pattern.sample(job.every) if job.every > 1 else (
        pattern.calls if shares else pattern.separate_calls())  # fmt: skip
    whole = pattern.grows and shares
    if job.way == "stored":
        calls = [numbers for numbers in calls if kept.issuperset(numbers)]
    for numbers in calls:
        if row.seconds > job.budget and not whole:
            break
        _timed(ask, [pattern.questions[i] for i in numbers], numbers, row)
    row.peak_bytes = _peak(job.device)
    return row


def _timed(ask: Ask, questions: list[Question], numbers: list[int], row: Row) -> None:
    cpu, begin = time.process_time(), time.perf_counter()
    found = ask(questions)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    row.seconds += time.perf_counter() - begin
    row.cpu_seconds += time.process_time() - cpu
    row.calls += 1
    row.asked += numbers
    row.probs += [p.tolist() for p in found.probs]
    row.logprobs += [p.tolist() for p in found.logprobs]
    row.prompt_tokens += found.prompt_tokens
    row.computed_tokens += found.computed_tokens


def _warm_up(ask: Ask, pattern: Pattern) -> None:
    """The first call of a runtime compiles, allocates and checks."""
    bare = Prompt((), "Choice: [", ("A", "B"), "warm-up")
    text = Prompt((), "Films:\n", ("A\n", "B\n"), "warm-up")
    message = pattern.first.letters.messages[:1]
    ask([Question(Prompt(message, "Choice: [", ("A", "B"), "warm-up"), text, (bare,))])


def _ask(job: Job, pattern: Pattern) -> Ask:
    if job.way == "naive":
        return _Naive(job).ask
    if job.way == "per-item":
        return _Naive(job).ask_per_item
    if job.way == "rationale":
        return _rationales(_engine(job))
    if job.way == "stored":
        return _from_engine(_stored(job, pattern), job.readout)
    return _from_engine(_engine(job), job.readout)


def _engine(job: Job) -> Any:
    if job.way == "vllm":
        return load_engine(job.checkpoint, "vllm", dtype=job.dtype)
    return load_engine(
        job.checkpoint, "transformers", dtype=job.dtype, device=job.device,
        reuse_prefix=job.way != "batched",
    )  # fmt: skip


def _from_engine(engine: Any, readout: str) -> Ask:
    call = engine.choice_logprobs if readout == "letters" else engine.text_logprobs

    def ask(questions: Sequence[Question]) -> Asked:
        before = engine.usage.prompt_tokens, engine.usage.computed_tokens
        scores = call([getattr(q, readout) for q in questions])
        values = [s.logprobs for s in scores]
        probs = [np.exp(v - np.logaddexp.reduce(v)) for v in values]
        after = engine.usage.prompt_tokens, engine.usage.computed_tokens
        return Asked(probs, after[0] - before[0], after[1] - before[1], values)

    return ask


def _earlier(job: Job) -> dict[str, Any]:
    """The row whose answers are in the store."""
    row: dict[str, Any] = json.loads(Path(job.answers).read_text("utf-8"))
    return row


class _Recorded:
    """Gives the answers that the engine gave in an earlier row, under the engine's identity."""

    def __init__(self, engine: Any, job: Job, pattern: Pattern) -> None:
        self._engine = engine
        earlier = _earlier(job)
        questions = [getattr(pattern.questions[i], job.readout) for i in earlier["asked"]]
        self.prompts = dict(zip(questions, earlier["logprobs"], strict=True))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def choice_logprobs(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        return [
            OptionScores(np.array(self.prompts[p]), np.ones(len(p.options), np.int64),
                         self._engine.count_tokens(p), 0)
            for p in prompts
        ]  # fmt: skip


def _stored(job: Job, pattern: Pattern) -> StoredEngine:
    """An engine whose store holds all answers already."""
    store = Path(job.answers).with_suffix(".sqlite")
    recorded: Any = _Recorded(_engine(job), job, pattern)
    StoredEngine(recorded, AnswerStore(store)).choice_logprobs(list(recorded.prompts))
    return StoredEngine(_engine(job), AnswerStore(store))


def _rationales(engine: Any) -> Ask:
    def ask(questions: Sequence[Question]) -> Asked:
        prompts = [q.letters for q in questions]
        bare = [Prompt(p.messages, "", (), p.name) for p in prompts]
        texts = engine.generate(
            bare, temperature=1.0, top_p=0.9, max_tokens=_RATIONALE_TOKENS, stop=STOP
        )
        thought = [
            Prompt(p.messages, f"{tidy(own[0])}\n{p.answer_prefix}", p.options, p.name)
            for p, own in zip(prompts, texts, strict=True)
        ]
        found = _from_engine(engine, "letters")([Question(p, p, ()) for p in thought])
        written = sum(
            engine.count_tokens(b) - engine.count_tokens(a)
            for a, b in zip(prompts, thought, strict=True)
        )
        return Asked(found.probs, found.prompt_tokens, found.prompt_tokens + written)

    return ask


class _Naive:
    """As a notebook would: the model of transformers, one sequence at a time, all logits."""

    def __init__(self, job: Job) -> None:
        self.path, self.job = resolve_checkpoint(job.checkpoint), job

    @cached_property
    def _model(self) -> Any:
        return load_model(self.path, torch_dtype(self.job.dtype), torch.device(self.job.device))

    @cached_property
    def _encoder(self) -> PromptEncoder:
        return PromptEncoder(load_tokenizer(self.path))

    def _logits(self, ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            return self._model(torch.tensor([ids], device=self.job.device)).logits[0].float()

    def ask(self, questions: Sequence[Question]) -> Asked:
        tell = self._letters if self.job.readout == "letters" else self._texts
        found = [tell(getattr(q, self.job.readout)) for q in questions]
        tokens = sum(n for _, n in found)
        return Asked([p for p, _ in found], tokens, tokens)

    def ask_per_item(self, questions: Sequence[Question]) -> Asked:
        """The probability of yes (A) for every item alone, normalised over the list."""
        probs, tokens = [], 0
        for question in questions:
            found = [self._letters(p) for p in question.single]
            liked = np.array([p[0] for p, _ in found])
            probs.append(liked / liked.sum())
            tokens += sum(n for _, n in found)
        return Asked(probs, tokens, tokens)

    def _letters(self, prompt: Prompt) -> tuple[np.ndarray, int]:
        question = self._encoder.encode(prompt)
        last = self._logits(list(question.prefix))[-1, [o[0] for o in question.options]]
        return last.double().softmax(0).cpu().numpy(), len(question.prefix)

    def _texts(self, prompt: Prompt) -> tuple[np.ndarray, int]:
        question = self._encoder.encode(prompt)
        start, sums, tokens = len(question.prefix), [], 0
        for option in question.options:
            rows = self._logits([*question.prefix, *option])[start - 1 : -1].log_softmax(-1)
            wanted = torch.tensor(option, device=rows.device)[:, None]
            sums.append(rows.gather(1, wanted).sum().item())
            tokens += start + len(option)
        return torch.tensor(sums, dtype=torch.float64).softmax(0).numpy(), tokens


def _peak(device: str) -> int:
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated())
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * (1 if sys.platform == "darwin" else 1024)


def work(spec: Path) -> None:
    """Run the job in a file and write its row beside it."""
    content = json.loads(spec.read_text("utf-8"))
    row = run_job(Job(**content["job"]), Path(content["patterns"]))
    Path(content["output"]).write_text(json.dumps(asdict(row)), encoding="utf-8")
