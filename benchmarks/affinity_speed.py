"""What the affinity readout costs, beside the likelihood readout of the same LLM.

    python benchmarks/affinity_speed.py --json affinity_speed.json
    python benchmarks/affinity_speed.py --simulator runs/mine/checkpoint

Timed are (a) reading the line of every item, which happens once per data set, (b) choices a second
about the same lists (ml-100k, K = 5, drawn for its users after T0) by either readout, for affinity
with all items read, and (c) user-steps a second of the native vector environment with affinity and
random slates.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import usermirror_gym
from usermirror_gym.data import TimeSplit, load_dataset, time_cut
from usermirror_gym.scenes import Scene, ScenePlan, build_scenes
from usermirror_gym.simulators import (
    DEFAULT_SIMULATOR,
    AffinitySimulator,
    UserSimulator,
    make_simulator,
)

SLATES = 64
"""Different slates that the environment is stepped with."""


def affinity_simulator(name: str, split: TimeSplit) -> AffinitySimulator:
    """Nothing is kept on disk, so that every run reads the lines anew."""
    found = make_simulator(name, split)
    if not isinstance(found, AffinitySimulator):
        raise SystemExit(f"{name} is read by another readout than affinity")
    return AffinitySimulator(found.engine, found.builder, found.head, found.weights)


def reading(simulator: AffinitySimulator, n_items: int) -> float:
    """Lines a second over the whole catalogue, the model already loaded."""
    everything = tuple(range(1, n_items + 1))
    simulator.scores([_list(everything[:8])])
    begin = time.perf_counter()
    simulator.scores([_list(everything)])
    return (n_items - 8) / (time.perf_counter() - begin)


def _list(items: tuple[int, ...]) -> Scene:
    return Scene(user_id=1, history=(), ratings=(), ages=(), slate=items)


def choices(simulator: UserSimulator, scenes: Any, *, repetitions: int) -> float:
    """Lists a second, in batches of 32; the first pass is not timed if there are several."""
    rates = []
    for _ in range(repetitions):
        begin = time.perf_counter()
        for start in range(0, len(scenes), 32):
            simulator.choose(scenes[start : start + 32])
        rates.append(len(scenes) / (time.perf_counter() - begin))
    return float(np.median(rates[1:] or rates))


def steps(simulator: UserSimulator, users: int, n_items: int, seconds: float) -> float:
    """User-steps a second in which a user saw a list."""
    env = gym.make_vec(
        "UserMirror/Slate-v0", num_envs=users, slate_size=5, simulator=simulator, dataset="ml-100k"
    )
    rng = np.random.default_rng(0)
    items = rng.integers(1, n_items + 1, (SLATES, users, 1)) + np.arange(0, 500, 100)
    slates = (items - 1) % n_items + 1
    env.reset(seed=0)
    env.step(slates[0])
    done, number, begin = 0, 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        info = env.step(slates[number % SLATES])[4]
        done += np.count_nonzero(info["_choice"]) if "_choice" in info else 0
        number += 1
    return done / (time.perf_counter() - begin)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All rates, the settings, the machine and the versions."""
    split = time_cut(load_dataset("ml-100k"))
    scenes = build_scenes(split, ScenePlan(count=args.scenes))
    simulator = affinity_simulator(args.simulator, split)
    rates = {"lines read": reading(simulator, split.dataset.n_items)}
    rates["choices, affinity"] = choices(simulator, scenes, repetitions=6)
    likelihood = make_simulator("smollm2-likelihood", split)
    likelihood.choose(scenes[:1])
    few = scenes[: args.likelihood_scenes]
    rates["choices, likelihood"] = choices(likelihood, few, repetitions=1)
    for users in args.users:
        name = f"user-steps, affinity, {users} users"
        rates[name] = steps(simulator, users, split.dataset.n_items, args.seconds)
    return {
        "settings": {k: v for k, v in vars(args).items() if k != "json"},
        "per_second": rates,
        "machine": {
            "system": platform.system(), "cores": os.cpu_count(),
            "threads": torch.get_num_threads(), "load": os.getloadavg(),
        },
        "versions": {
            "python": platform.python_version(), "torch": torch.__version__,
            "numpy": np.__version__, "usermirror_gym": usermirror_gym.__version__,
        },
    }  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulator", default=DEFAULT_SIMULATOR, help="name or folder")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--likelihood-scenes", type=int, default=40)
    parser.add_argument("--users", type=int, nargs="*", default=[1, 64])
    parser.add_argument("--seconds", type=float, default=2.0, help="per environment")
    parser.add_argument("--json", type=Path, help="where to write the result")
    args = parser.parse_args()
    result = measure(args)
    table = Table(title="per second")
    table.add_column("what")
    table.add_column("rate", justify="right")
    for name, rate in result["per_second"].items():
        table.add_row(name, f"{rate:,.1f}")
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
