"""What the environment itself costs, apart from the user behind it.

    python benchmarks/env_overhead.py --json env_overhead.json

A simulator with constant probabilities costs nothing; what is left is the environment.  User-steps
per second of the native vector environment (64 users, slates of 10 out of ml-100k's 1,682 films,
everything else at its defaults: patience, horizon 20, autoreset) are compared with the steps per
second of ``gym.make("CartPole-v1")`` and of CartPole's own native vector environment, in one
process, on one core, in turns: the ratios are medians over the repetitions.  Only steps in which a
user saw a list count; those that start a session do not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from rich.console import Console
from rich.progress import track
from rich.table import Table

import usermirror_gym
from usermirror_gym.scenes import Scene
from usermirror_gym.simulators.base import ChoiceBatch

Run = Callable[[int], tuple[int, float]]
OURS, CARTPOLE, CARTPOLE_VECTOR = "UserMirror/Slate-v0", "CartPole-v1", "CartPole-v1, vector"
TARGET = 3.0
N_ITEMS = 1682


class ConstantChooser:
    """Every item with the same probability and none of these with ``outside``, at no cost."""

    name = "constant"

    def __init__(self, num_envs: int, slate_size: int, outside: float) -> None:
        self.probs = np.full((num_envs, slate_size + 1), (1 - outside) / slate_size)
        self.probs[:, -1] = outside

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        """The same row for every scene."""
        return ChoiceBatch(self.probs[: len(scenes)])


def slates(args: argparse.Namespace) -> Run:
    """Steps of the native vector environment, with random slates of different items."""
    chooser = ConstantChooser(args.num_envs, args.slate_size, args.outside)
    env = gym.make_vec(OURS, num_envs=args.num_envs, slate_size=args.slate_size, simulator=chooser)
    rng = np.random.default_rng(0)
    catalogue = np.tile(np.arange(1, N_ITEMS + 1), (args.num_envs, 1))
    actions = [rng.permuted(catalogue, axis=1)[:, : args.slate_size].copy() for _ in range(64)]
    env.reset(seed=0)

    def run(steps: int) -> tuple[int, float]:
        users = 0
        start = time.perf_counter()
        for number in range(steps):
            info = env.step(actions[number % 64])[4]
            users += np.count_nonzero(info["_choice"]) if "_choice" in info else 0
        return users, time.perf_counter() - start

    return run


def cartpole(args: argparse.Namespace) -> Run:
    """Steps of the single CartPole as everybody makes it; resets are timed too, but not counted."""
    env = gym.make(CARTPOLE)
    env.reset(seed=0)

    def run(steps: int) -> tuple[int, float]:
        start = time.perf_counter()
        for number in range(steps):
            _, _, terminated, truncated, _ = env.step(number % 2)
            if terminated or truncated:
                env.reset()
        return steps, time.perf_counter() - start

    return run


def cartpole_vector(args: argparse.Namespace) -> Run:
    """Steps of CartPole's native vector environment."""
    env: VectorEnv = gym.make_vec(
        CARTPOLE, num_envs=args.num_envs, vectorization_mode="vector_entry_point"
    )
    env.reset(seed=0)
    actions = [np.full(args.num_envs, number % 2) for number in range(2)]

    def run(steps: int) -> tuple[int, float]:
        start = time.perf_counter()
        for number in range(steps):
            env.step(actions[number % 2])
        return steps * args.num_envs, time.perf_counter() - start

    return run


def measure(args: argparse.Namespace) -> dict[str, list[float]]:
    """Rates of each environment, one per repetition, in turns."""
    runs = {OURS: slates(args), CARTPOLE: cartpole(args), CARTPOLE_VECTOR: cartpole_vector(args)}
    steps = {name: _steps_for(run, args.seconds) for name, run in runs.items()}
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in track(range(args.repetitions), "measuring", console=Console(stderr=True)):
        for name, run in runs.items():
            count, seconds = run(steps[name])
            rates[name].append(count / seconds)
    return rates


def _steps_for(run: Run, seconds: float) -> int:
    """How many steps take about that long; warms up at the same time."""
    run(100)
    return max(100, int(500 * seconds / run(500)[1]))


def summarise(rates: dict[str, list[float]], args: argparse.Namespace) -> dict:
    """Medians, ratios to CartPole with their quartiles, settings, machine and versions."""
    ratios = {
        name: [a / b for a, b in zip(values, rates[CARTPOLE], strict=True)]
        for name, values in rates.items()
    }
    return {
        "settings": {k: v for k, v in vars(args).items() if k != "json"},
        "steps_per_second": {name: statistics.median(v) for name, v in rates.items()},
        "ratio": {name: statistics.median(v) for name, v in ratios.items()},
        "ratio_quartiles": {
            name: np.quantile(v, [0.25, 0.75]).tolist() for name, v in ratios.items()
        },
        "target": TARGET,
        "machine": {
            "system": platform.system(), "processor": _processor(), "cores": os.cpu_count(),
            "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        },
        "versions": {
            "python": platform.python_version(), "numpy": np.__version__,
            "gymnasium": gym.__version__, "usermirror_gym": usermirror_gym.__version__,
        },
    }  # fmt: skip


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def show(result: dict) -> None:
    """Print the table."""
    settings = result["settings"]
    table = Table(title=f"{settings['num_envs']} users, slates of {settings['slate_size']}")
    for heading in ("environment", "steps/s", "relative to CartPole", "quartiles"):
        table.add_column(heading, justify="left" if heading == "environment" else "right")
    for name, rate in result["steps_per_second"].items():
        low, high = result["ratio_quartiles"][name]
        table.add_row(
            name, f"{rate:,.0f}", f"{result['ratio'][name]:.2f}", f"{low:.2f} - {high:.2f}"
        )
    Console().print(table)


def main() -> int:
    """Measure, print, write; 1 if the target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--slate-size", type=int, default=10)
    parser.add_argument("--outside", type=float, default=0.25, help="probability of none of these")
    parser.add_argument("--repetitions", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=0.2, help="per environment and repetition")
    parser.add_argument("--json", type=Path, help="where to write the result")
    args = parser.parse_args()
    result = summarise(measure(args), args)
    show(result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["ratio"][OURS] >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
