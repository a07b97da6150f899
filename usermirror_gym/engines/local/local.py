"""What the engines that have the weights at hand share: names, tokens, checks, answers, counts."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from usermirror_gym.engines.adapters import adapter_files, content_hash, head_files, load_head
from usermirror_gym.engines.base import OptionScores
from usermirror_gym.engines.checkpoints import files_hash, files_stamp, resolve_checkpoint
from usermirror_gym.engines.local.encoding import (
    Answer,
    EncodedPrompt,
    Length,
    PromptEncoder,
    Scorer,
    longest,
    whole,
)
from usermirror_gym.engines.reopening import Reopened
from usermirror_gym.errors import EngineError
from usermirror_gym.types import Prompt

if TYPE_CHECKING:
    from usermirror_gym.engines.local.head import OptionHead


@dataclass
class EngineUsage:
    """What an engine has done so far; benchmarks read it."""

    questions: int = 0
    prompt_tokens: int = 0
    computed_tokens: int = 0
    seconds: float = 0.0

    def add(self, scores: Sequence[OptionScores], computed: int, seconds: float) -> None:
        """Count the answers of one call, the tokens that it computed, and its time."""
        self.questions += len(scores)
        self.prompt_tokens += sum(score.prompt_tokens for score in scores)
        self.computed_tokens += computed
        self.seconds += seconds


class LocalEngine(Reopened, ABC):
    """Base of the engines that load the weights themselves.  Nothing is loaded before it is needed.

    Args:
        path_or_name, adapter, head: see the engines.
        dtype: precision of the weights.

    Raises:
        CheckpointError: the folders of adapter or head hold none.
    """

    def __init__(
        self,
        path_or_name: str | Path,
        *,
        adapter: str | Path | None,
        head: str | Path | None,
        dtype: str,
    ) -> None:
        self._name = str(path_or_name)
        self._adapter, self._head_folder = _folder(adapter), _folder(head)
        self._parts = [] if self._adapter is None else adapter_files(self._adapter)
        self._parts += [] if self._head_folder is None else head_files(self._head_folder)
        names = dict.fromkeys(path.parent.name for path in self._parts)
        self._trained = f"+{'+'.join(names)}@{content_hash(self._parts)}" if names else ""
        self._dtype = dtype
        self._lock = threading.RLock()
        self.usage = EngineUsage()

    @property
    def model_id(self) -> str:
        """Name of the weights, of what was trained on top of them (with a short hash of its
        content), and their precision, for logs."""
        name = Path(self._name).name if Path(self._name).exists() else self._name
        return f"{name}{self._trained}/{self._dtype}"

    @cached_property
    def fingerprint(self) -> str:
        """``model_id`` with a hash of names, sizes and times of the files of the weights."""
        return f"{self.model_id}#{files_stamp(self._path)}"

    @cached_property
    def identity(self) -> str:
        """Kind of engine, content of the weights, tokenizer, chat template and trained parts, and
        precision: what answers are kept under."""
        content = f"{files_hash(self._path)}+{content_hash(self._parts)}"
        return f"{type(self).__name__}: {content}/{self._dtype}"

    @cached_property
    def context_length(self) -> int:
        """The most tokens one question may have."""
        from usermirror_gym.engines.local.model_loading import context_length

        return context_length(self._config)

    def count_tokens(self, prompt: Prompt) -> int:
        """Tokens of the question, its longest option included."""
        return self._encoder.encode(prompt).longest

    def count_lines(self, prompt: Prompt) -> int:
        """Tokens of the question with all its options one after another."""
        return self._encoder.encode(prompt).whole

    def choice_logprobs(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        """Letters readout; see :class:`~usermirror_gym.engines.base.Engine`."""
        questions = self._encode(prompts, options="letters")
        return self._score(questions, lambda scorer, part: scorer.letters(part), letter_scores)

    def text_logprobs(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        """Likelihood readout; see :class:`~usermirror_gym.engines.base.Engine`."""
        questions = self._encode(prompts, options="texts")
        return self._score(questions, lambda scorer, part: scorer.texts(part), text_scores)

    def line_scores(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        """Options readout; see :class:`~usermirror_gym.engines.base.Engine`."""
        if prompts and self._head_folder is None:
            raise EngineError(
                f"prompt {prompts[0].name!r}: the engine has no option head to read its lines "
                f"with. Load it with head=FOLDER of a checkpoint that was trained with one."
            )
        questions = self._encode(prompts, options="texts", length=whole)
        return self._score(
            questions,
            lambda scorer, part: scorer.lines(part, self._option_head),
            line_scores,
            length=whole,
        )

    @cached_property
    def _path(self) -> Path:
        return resolve_checkpoint(self._name)

    @cached_property
    def _config(self) -> Any:
        from usermirror_gym.engines.local.model_loading import load_config

        return load_config(self._path)

    @cached_property
    def _tokenizer(self) -> Any:
        from usermirror_gym.engines.local.model_loading import load_tokenizer

        return load_tokenizer(self._path)

    @cached_property
    def _encoder(self) -> PromptEncoder:
        return PromptEncoder(self._tokenizer)

    def _encode(self, prompts: Sequence[Prompt], **how: Any) -> list[EncodedPrompt]:
        """Questions in tokens, see :meth:`PromptEncoder.encode_all`."""
        if not prompts:  # for which nothing need be loaded
            return []
        return self._encoder.encode_all(prompts, self.context_length, **how)

    def _score(
        self,
        questions: Sequence[EncodedPrompt],
        ask: Callable[[Scorer, Sequence[EncodedPrompt]], list[Answer]],
        finish: Callable[[EncodedPrompt, Answer], OptionScores],
        length: Length = longest,
    ) -> list[OptionScores]:
        """The scores of one call, counted."""
        if not questions:
            return []
        with self._lock:
            begin = time.perf_counter()
            answers: dict[int, Answer] = {}
            for scorer, rows in self._routes(questions, length):
                answers.update(zip(rows, ask(scorer, [questions[i] for i in rows]), strict=True))
            scores = [finish(question, answers[i]) for i, question in enumerate(questions)]
            computed = sum(answer.computed for answer in answers.values())
            self.usage.add(scores, computed, time.perf_counter() - begin)
        return scores

    @abstractmethod
    def _routes(
        self, questions: Sequence[EncodedPrompt], length: Length
    ) -> list[tuple[Scorer, list[int]]]:
        """Which scorer answers which questions."""

    @cached_property
    def _option_head(self) -> OptionHead:
        from usermirror_gym.engines.local.head import OptionHead

        assert self._head_folder is not None
        size = self._config.get_text_config(decoder=True).hidden_size
        weight, bias = load_head(self._head_folder, size)
        return OptionHead(weight.to(self._device), bias.to(self._device))

    @property
    def _device(self) -> Any:
        """Where the head is."""
        return "cpu"


def letter_scores(question: EncodedPrompt, answer: Answer) -> OptionScores:
    """Letters readout: normalised over the options."""
    return _scores(question, answer, fed=len(question.prefix), normalised=True)


def text_scores(question: EncodedPrompt, answer: Answer) -> OptionScores:
    """Likelihood readout."""
    fed = len(question.prefix) + sum(len(o) - 1 for o in question.options)
    return _scores(question, answer, fed)


def line_scores(question: EncodedPrompt, answer: Answer) -> OptionScores:
    """Options readout: normalised over the lines."""
    return _scores(question, answer, fed=question.whole, normalised=True)


def _scores(
    question: EncodedPrompt, answer: Answer, fed: int, *, normalised: bool = False
) -> OptionScores:
    values = answer.values
    if normalised:
        values = values - np.logaddexp.reduce(values)
    lengths = np.array([len(o) for o in question.options], np.int64)
    return OptionScores(
        logprobs=np.asarray(values, np.float64),
        n_tokens=lengths,
        prompt_tokens=len(question.prefix) + int(lengths.sum()),
        cached_tokens=max(0, fed - answer.computed),
    )


def answers_of(questions: Sequence[EncodedPrompt], found: Iterable[Answer]) -> list[Answer]:
    """One answer per question, from one per option of all questions, in order."""
    parts = iter(found)
    own = [[next(parts) for _ in question.options] for question in questions]
    return [
        Answer(np.concatenate([a.values for a in some]), sum(a.computed for a in some))
        for some in own
    ]


def _folder(place: str | Path | None) -> Path | None:
    return None if place is None else Path(place).expanduser()
