"""A model that can be scripted, and scenes for it; also run as a program that is killed."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from usermirror_gym.corpus.rationales.plan import RationaleSettings
from usermirror_gym.corpus.rationales.predictions import predict_choices
from usermirror_gym.corpus.rationales.write import read_rationales, write_rationales
from usermirror_gym.engines.base import OptionScores
from usermirror_gym.progress import Display
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.scenes.words.prompt import PromptBuilder, PromptConfig
from usermirror_gym.scenes.words.template import domain_text
from usermirror_gym.testing.data import tiny_split
from usermirror_gym.types import Prompt

GOOD = "Stimulus: rain, tag {tag}.\nKnowledge: I know it.\nEvaluation: gut feeling.\n"


class ScriptedEngine:
    """Texts are a function of seed, question and sample; ``script(prompt, seed, k)`` may replace
    one, or raise."""

    context_length = 100_000

    def __init__(
        self,
        script: Callable[[Prompt, int, int], str | None] = lambda *_: None,
        model_id: str = "scripted",
    ) -> None:
        self.script, self.model_id = script, model_id
        self.calls: list[tuple[int, int, tuple[str, ...]]] = []
        self.read: list[Prompt] = []
        self.forgotten = 0

    def forget(self) -> None:
        self.forgotten += 1

    def count_tokens(self, prompt: Prompt) -> int:
        texts = [prompt.answer_prefix, *(m.content for m in prompt.messages)]
        return sum(len(text.split()) for text in texts)

    def generate(self, prompts: Sequence[Prompt], *, n: int, seed: int, **_) -> list[list[str]]:
        self.calls.append((seed, n, tuple(p.name for p in prompts)))
        return [[self._text(prompt, seed, k) for k in range(n)] for prompt in prompts]

    def _text(self, prompt: Prompt, seed: int, k: int) -> str:
        text = self.script(prompt, seed, k)
        return GOOD.format(tag=digest(prompt, seed, k)) if text is None else text

    def choice_logprobs(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        self.read += prompts
        return [self._scores(prompt) for prompt in prompts]

    def _scores(self, prompt: Prompt) -> OptionScores:
        self.script(prompt, 0, 0)
        tag = int(digest(prompt, 0, 0), 16)
        weights = np.array([1.0 + (tag >> (4 * j)) % 16 for j in range(len(prompt.options))])
        ones = np.ones(len(weights), np.int64)
        return OptionScores(np.log(weights / weights.sum()), ones, 9, 0)

    def text_logprobs(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        """Half a nat a word; after a question 0.2 to 1 times that."""
        return [self._text_scores(prompt) for prompt in prompts]

    def _text_scores(self, prompt: Prompt) -> OptionScores:
        self.script(prompt, 0, 0)
        words = np.array([len(option.split()) for option in prompt.options])
        each = 0.2 + int(digest(prompt, 0, 0), 16) % 9 / 10 if prompt.messages else 1.0
        return OptionScores(-0.5 * each * words, words, 9, 0)


def digest(prompt: Prompt, seed: int, k: int) -> str:
    text = repr((prompt.messages, prompt.answer_prefix, seed, k))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def make_scenes(count: int) -> list[Scene]:
    return [
        Scene(
            user_id=1 + i % 20, history=(1, 2, 3), ratings=(4.0, float("nan"), 2.0),
            ages=(30, 20, 10), slate=(10 + i, 40, 5)[: 2 + i % 2], target=0, name=f"s{i:03d}",
        )
        for i in range(count)
    ]  # fmt: skip


def make_builder() -> PromptBuilder:
    return PromptBuilder(domain_text(tiny_split().dataset), PromptConfig(form="scene"))


def flaky(prompt: Prompt, seed: int, k: int) -> str | None:
    """Every fifth text is nothing."""
    return "" if int(digest(prompt, seed, k), 16) % 5 == 0 else None


def run(folder: Path, script: Callable[[Prompt, int, int], str | None] = flaky) -> None:
    """Rationales, then predictions."""
    scenes, builder, engine = make_scenes(7), make_builder(), ScriptedEngine(script)
    settings = RationaleSettings(n=3, batch_size=6)
    quiet = Display(quiet=True)
    path = folder / "weak.jsonl"
    write_rationales(scenes, builder, engine, path, settings, role="weak", display=quiet)
    predict_choices(
        scenes, builder, engine, read_rationales(path), folder / "predictions.jsonl",
        batch_size=8, display=quiet,
    )  # fmt: skip


def run_and_die(folder: Path, where: str, when: int) -> None:
    """The same, killed in the middle of the ``when``-th text or write to disk."""
    seen = 0
    sync = os.fsync

    def now() -> bool:
        nonlocal seen
        seen += 1
        return seen == when

    def script(prompt: Prompt, seed: int, k: int) -> str | None:
        if where == "text" and now():
            os.kill(os.getpid(), signal.SIGKILL)
        return flaky(prompt, seed, k)

    def torn_sync(number: int) -> None:
        if where == "write" and now():
            os.ftruncate(number, max(0, os.fstat(number).st_size - 100))
            os.kill(os.getpid(), signal.SIGKILL)
        sync(number)

    os.fsync = torn_sync
    run(folder, script)


if __name__ == "__main__":
    run_and_die(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
