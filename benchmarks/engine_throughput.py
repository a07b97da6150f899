"""Choices per second of an LLM engine, three ways of asking the same questions.

    python benchmarks/engine_throughput.py
    python benchmarks/engine_throughput.py --users 3 --slates 8 --readouts letters

Asked are (a) one plain forward pass per question with full logits, (b) the engine's batches without
any sharing between questions, (c) the engine with shared and cached prefixes.  The questions are
``users x slates`` lists of K real film titles behind a history of real titles (ml-100k from
RecBole's wheel).  Likelihood questions are also asked as sessions: the history grows by one title a
step.  (a) is timed on every ``--naive-every``-th question of the likelihood scenarios.
Printed are rates by wall and by processor time, ratios to (a), and the largest difference of a
choice probability from (a).
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import AutoModelForCausalLM

from usermirror_gym.engines import DEFAULT_CHECKPOINT, resolve_checkpoint
from usermirror_gym.engines.transformers_engine import TransformersEngine
from usermirror_gym.scenes.prompt import ANSWER_PREFIX
from usermirror_gym.types import FloatArray, Message, Prompt

LETTERS = "ABCDEFGHIJ"
SYSTEM = (
    "You are the person described below, who is browsing a film service. Read who you are, what "
    "you have watched and how you liked it, then look at the new list and say which film you "
    "would watch next. Answer with the letter of that film only."
)


@dataclass(frozen=True)
class Film:
    """One line of ml-100k's items."""

    title: str
    genres: str


@dataclass
class Result:
    """One way of asking one scenario."""

    scenario: str
    way: str
    questions: int
    seconds: float
    cpu_seconds: float
    mean_prompt_tokens: float
    computed_tokens: int
    max_dp: float

    @property
    def rate(self) -> float:
        """Choices per second."""
        return self.questions / self.seconds

    @property
    def core_rate(self) -> float:
        """Choices per second of processor time; steadier on a busy machine."""
        return self.questions / self.cpu_seconds


@dataclass(frozen=True)
class Scenario:
    """Questions of one kind; each inner list is one call of the engine."""

    name: str
    readout: str
    calls: list[list[Prompt]]

    @property
    def prompts(self) -> list[Prompt]:
        """All questions in order."""
        return [p for call in self.calls for p in call]


def load_films() -> list[Film]:
    """Titles and genres from the data set inside RecBole's wheel."""
    import importlib.util

    spec = importlib.util.find_spec("recbole")
    if spec is None or spec.origin is None:
        raise SystemExit("RecBole is not installed: pip install recbole==1.2.0")
    path = Path(spec.origin).parent / "dataset_example" / "ml-100k" / "ml-100k.item"
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    return [Film(f"{row[1]} ({row[2]})", ", ".join(row[3].split())) for row in rows]


def letters_prompt(user: int, history: Sequence[Film], slate: Sequence[Film]) -> Prompt:
    """A question of about 380 tokens that is answered by a letter."""
    watched = "\n".join(
        f"- {film.title}, {film.genres}: rated {3 + i % 3} of 5" for i, film in enumerate(history)
    )
    lines = "\n".join(f"[{LETTERS[j]}] {f.title}, {f.genres}" for j, f in enumerate(slate))
    opening = f"Profile: woman, {20 + user} years old, engineer.\nWatched so far:\n{watched}"
    return Prompt(
        (Message("system", SYSTEM), Message("user", f"{opening}\n\nThe list:\n{lines}")),
        ANSWER_PREFIX,
        tuple(LETTERS[: len(slate)]),
        f"user {user}",
    )


def texts_prompt(user: int, history: Sequence[Film], slate: Sequence[Film]) -> Prompt:
    """Films watched, one a line; the next line is the choice."""
    watched = "".join(f"{film.title}\n" for film in history)
    return Prompt(
        (),
        f"A woman of {20 + user}, engineer, watched these films in order:\n{watched}",
        tuple(f"{film.title}\n" for film in slate),
        f"user {user}, {len(history)} films",
    )


def scenarios(args: argparse.Namespace) -> Iterator[Scenario]:
    """Letters over slates, likelihood over slates, and likelihood sessions with K = 5 and 10."""
    films = load_films()
    rng = np.random.default_rng(args.seed)

    def draw(n: int) -> list[Film]:
        return [films[i] for i in rng.choice(len(films), n, replace=False)]

    memories = [draw(40) for _ in range(args.users)]
    if "letters" in args.readouts:
        calls = [[letters_prompt(u, m[:11], draw(args.k)) for u, m in enumerate(memories)
                  for _ in range(args.slates)]]  # fmt: skip
        yield Scenario(f"letters, {args.slates} slates a user, K={args.k}", "letters", calls)
    if "texts" in args.readouts:
        calls = [[texts_prompt(u, m[:10], draw(args.k)) for u, m in enumerate(memories)
                  for _ in range(args.slates)]]  # fmt: skip
        yield Scenario(f"likelihood, {args.slates} slates a user, K={args.k}", "texts", calls)
    if "sessions" in args.readouts:
        for k in (5, 10):
            calls = [[texts_prompt(u, m[: 10 + step], draw(k)) for u, m in enumerate(memories)]
                     for step in range(args.slates)]  # fmt: skip
            yield Scenario(f"likelihood, sessions of {args.slates} steps, K={k}", "texts", calls)


def naive(model: Any, engine: TransformersEngine, prompt: Prompt, readout: str) -> FloatArray:
    """Choice probabilities from plain forward passes with full logits, one sequence at a time."""
    question = engine._encoder.encode(prompt)
    prefix = list(question.prefix)

    def table(ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            ids_tensor = torch.tensor([ids], device=model.device)
            return model(ids_tensor, use_cache=False).logits[0].float()

    if readout == "letters":
        scores = table(prefix)[-1, [o[0] for o in question.options]].double()
    else:
        sums = []
        for option in question.options:
            rows = table(prefix + list(option))[len(prefix) - 1 : -1].log_softmax(-1)
            sums.append(rows.gather(1, torch.tensor(option, device=rows.device)[:, None]).sum())
        scores = torch.stack(sums).double()
    return scores.softmax(0).cpu().numpy()


def ask(engine: TransformersEngine, scenario: Scenario) -> list[FloatArray]:
    """Choice probabilities from the engine, one call per inner list."""
    call = engine.choice_logprobs if scenario.readout == "letters" else engine.text_logprobs
    scores = [s.logprobs for prompts in scenario.calls for s in call(prompts)]
    return [np.exp(s - np.logaddexp.reduce(s)) for s in scores]


def measure(args: argparse.Namespace, scenario: Scenario, path: Path) -> list[Result]:
    """All three ways on one scenario."""
    prompts = scenario.prompts
    every = 1 if scenario.readout == "letters" else args.naive_every
    shared = TransformersEngine(path, dtype=args.dtype, device=args.device)
    separate = TransformersEngine(path, dtype=args.dtype, device=args.device, reuse_prefix=False)
    for engine in (shared, separate):
        engine.load()
    # As transformers loads it, without what the engine does to its weights.
    plain = AutoModelForCausalLM.from_pretrained(path, dtype=shared._model.dtype)
    plain = plain.to(shared._model.device).eval()
    chosen = range(0, len(prompts), every)
    begin, cpu = time.perf_counter(), time.process_time()
    reference = {
        i: naive(plain, shared, prompts[i], scenario.readout)
        for i in track(chosen, f"{scenario.name}: naive", console=Console(stderr=True))
    }
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    tokens = float(np.mean([shared.count_tokens(p) for p in prompts]))
    per_question = 1 if scenario.readout == "letters" else len(prompts[0].options)
    results = [Result(
        scenario.name, "naive, batch 1", len(reference), seconds, cpu, tokens,
        int(tokens * len(reference) * per_question), 0.0,
    )]  # fmt: skip
    ways = (("batched", separate), ("batched + prefix reuse", shared))
    for way, engine in ways:
        results.append(_timed(way, engine, scenario, reference, tokens))
    return results


def _timed(
    way: str,
    engine: TransformersEngine,
    scenario: Scenario,
    reference: dict[int, FloatArray],
    tokens: float,
) -> Result:
    begin, cpu = time.perf_counter(), time.process_time()
    probs = ask(engine, scenario)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    worst = max(float(np.abs(probs[i] - p).max()) for i, p in reference.items())
    computed = engine.usage.computed_tokens
    return Result(scenario.name, way, len(probs), seconds, cpu, tokens, computed, worst)


def show(results: Sequence[Result]) -> None:
    """A table with ratios to the naive way."""
    table = Table("scenario", "way", "questions", "tokens", "choices/s", "x naive")
    for column in ("choices/core-s", "x naive", "max |dp|"):
        table.add_column(column)
    base = core_base = 1.0
    for result in results:
        if result.way.startswith("naive"):
            base, core_base = result.rate, result.core_rate
            table.add_section()
        table.add_row(
            result.scenario, result.way, str(result.questions),
            f"{result.mean_prompt_tokens:.0f}", f"{result.rate:.2f}", f"{result.rate / base:.2f}",
            f"{result.core_rate:.2f}",
            f"{result.core_rate / core_base:.2f}",
            f"{result.max_dp:.1e}",
        )  # fmt: skip
    Console(width=150).print(table)


def machine() -> dict[str, str | int]:
    """What the numbers depend on."""
    import transformers

    return {
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "transformers": transformers.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def main(read_arguments: Callable[[], argparse.Namespace]) -> None:
    """Run all scenarios, print the table, write the JSON file."""
    args = read_arguments()
    path = resolve_checkpoint(args.checkpoint)
    results: list[Result] = []
    for scenario in scenarios(args):
        results += measure(args, scenario, path)
    show(results)
    rows = [
        asdict(r) | {"choices_per_second": r.rate, "choices_per_core_second": r.core_rate}
        for r in results
    ]
    settings = {k: v for k, v in vars(args).items() if k != "output"}
    content = {"machine": machine(), "settings": settings, "results": rows}
    Path(args.output).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    Console().print(f"written: {args.output}")


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT)
    parser.add_argument("--users", type=int, default=25)
    parser.add_argument(
        "--slates", type=int, default=8, help="slates of a user, steps of a session"
    )
    parser.add_argument("--k", type=int, default=5, help="films on a list (at most 10)")
    parser.add_argument(
        "--readouts", nargs="+", default=["letters", "texts", "sessions"],
        choices=["letters", "texts", "sessions"],
    )  # fmt: skip
    parser.add_argument("--naive-every", type=int, default=10)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="engine_throughput.json")
    return parser.parse_args()


if __name__ == "__main__":
    main(read_arguments)
