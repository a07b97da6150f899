"""How fast agents can be trained: steps of the environment and of the gradient, with the surrogate.

    python benchmarks/rl_throughput.py --json rl_throughput.json
    python benchmarks/rl_throughput.py --peers-python peers/bin/python     # RecSim, SARDINE too

User-steps a second of the native vector environment whose user is a shipped surrogate (ml-100k,
slates of 5, everything else at its defaults) with random slates, for 1, 64 and 1,024 users: that of
the default simulator, and that of smollm2-session, which reads whole histories; the same with their
teachers for 64; and whole trainings in the first: user-steps and gradient steps a second of an
iteration of each learning agent (250 users, 10 lists).
Only steps in which a user saw a list count.  ``--peers-python`` is a Python in whose environment
other slate environments are installed (:mod:`peer_steps` says which); they are measured in turns
with ours, and the ratio is to the nearest number of users.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import usermirror_gym
from usermirror_gym.agents.learners.store import agent_class
from usermirror_gym.envs import SlateVectorEnv, World, make_world
from usermirror_gym.simulators import DEFAULT_SIMULATOR

SLATES = 64
SURROGATE = "surrogate"
SESSION = "smollm2-session"
TARGET = 100_000
"""User-steps a second with 1,024 users, on 2 cores."""


def env_steps(world: World, users: int, seconds: float) -> float:
    """User-steps a second with random slates."""
    env = gym.make_vec("UserMirror/Slate-v0", num_envs=users, world=world)
    n_items = world.split.dataset.n_items
    rng = np.random.default_rng(0)
    items = rng.integers(1, n_items + 1, (SLATES, users, 1)) + np.arange(0, 500, 100)
    slates = (items - 1) % n_items + 1
    env.reset(seed=0)
    for number in range(4):
        env.step(slates[number])
    done, number, begin = 0, 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        info = env.step(slates[number % SLATES])[4]
        done += np.count_nonzero(info["_choice"]) if "_choice" in info else 0
        number += 1
    return done / (time.perf_counter() - begin)


def training(world: World, algo: str, iterations: int) -> dict[str, float]:
    """Rates of whole iterations; the first one is not timed."""
    agent = agent_class(algo)(seed=0)
    agent.fit(world.split)
    env = SlateVectorEnv(
        250, world, max_episode_steps=10, session=3, reward="satisfaction",
        autoreset_mode="Disabled",
    )  # fmt: skip
    learning = [0.0]
    if hasattr(agent, "_learn"):
        learn = agent._learn

        def timed() -> dict[str, float]:
            begin = time.perf_counter()
            numbers = learn()
            learning[0] += time.perf_counter() - begin
            return numbers

        agent._learn = timed  # type: ignore[method-assign]
    steps, gradients, total = 0.0, 0.0, 0.0
    for number in range(iterations + 1):
        rng = np.random.default_rng(number)
        users = rng.choice(world.users, env.num_envs, replace=False)
        learning[0] = 0.0 if number == 1 else learning[0]
        begin = time.perf_counter()
        numbers = agent.practise(env, users, rng.integers(2**31, size=len(users)).tolist())
        if number:
            total += time.perf_counter() - begin
            steps += numbers["steps"]
            gradients += numbers.get("gradient_steps", 0)
    row = {"user_steps": steps / total, "share_of_learning": learning[0] / total}
    if gradients:
        row["gradient_steps"] = gradients / learning[0]
    return row


def peers(python: str, seconds: float) -> dict[str, Any]:
    """What peer_steps.py prints in another environment."""
    script = Path(__file__).with_name("peer_steps.py")
    command = [python, str(script), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{script.name} failed in {python}:\n{done.stderr[-1500:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All rates, the settings, the machine and the versions."""
    names = (SURROGATE, DEFAULT_SIMULATOR, f"{SESSION}-surrogate", SESSION)
    fast, slow, session_fast, session = (make_world(simulator=name) for name in names)
    for world in (slow, session):
        env_steps(world, 1, 0.1)  # reads the items once
    rounds = []
    other: list[dict[str, Any]] = []
    for _ in range(args.rounds):
        rates = {f"surrogate, {_users(n)}": env_steps(fast, n, args.seconds) for n in args.users}
        rates["default simulator, 64 users"] = env_steps(slow, 64, args.seconds)
        for n in args.users:
            rates[f"{names[2]}, {_users(n)}"] = env_steps(session_fast, n, args.seconds)
        rates[f"{SESSION}, 64 users"] = env_steps(session, 64, args.seconds)
        rounds.append(rates)
        if args.peers_python:
            other.append(peers(args.peers_python, args.seconds))
    result: dict[str, Any] = {
        "env_steps": {name: float(np.median([r[name] for r in rounds])) for name in rounds[0]},
        "training": {a: training(fast, a, args.iterations) for a in args.algos},
        "target": TARGET,
        "settings": {k: v for k, v in vars(args).items() if k not in ("json", "peers_python")},
        "machine": {
            "system": platform.system(), "cores": os.cpu_count(),
            "threads": torch.get_num_threads(), "load": os.getloadavg(),
        },
        "versions": {
            "python": platform.python_version(), "torch": torch.__version__,
            "numpy": np.__version__, "usermirror_gym": usermirror_gym.__version__,
        },
    }  # fmt: skip
    if other:
        names = [row["what"] for row in other[0]["rows"]]
        result["peers"] = {
            name: float(np.median([run["rows"][i]["per_second"] for run in other]))
            for i, name in enumerate(names)
        }
        result["versions"] |= other[0]["versions"]
    return result


def _users(count: int) -> str:
    return "1 user" if count == 1 else f"{count:,} users"


def show(result: dict[str, Any]) -> list[Table]:
    """Two tables."""
    steps = Table("environment", "user-steps/s", "x", title="steps of the environment")
    ours = result["env_steps"]
    for name, rate in ours.items():
        steps.add_row(name, f"{rate:,.0f}", "")
    for name, rate in result.get("peers", {}).items():
        key = f"surrogate, {name.rpartition(', ')[2]}"
        ratio = f"{ours[key] / rate:,.1f} times as fast" if key in ours else ""
        steps.add_row(name, f"{rate:,.0f}", ratio)
    trained = Table("agent", "user-steps/s", "gradient steps/s", "share of learning",
                    title="whole trainings, 250 users a step")  # fmt: skip
    for name, row in result["training"].items():
        gradients = f"{row['gradient_steps']:,.0f}" if "gradient_steps" in row else "-"
        trained.add_row(
            name, f"{row['user_steps']:,.0f}", gradients, f"{row['share_of_learning']:.0%}"
        )
    return [steps, trained]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, nargs="*", default=[1, 64, 1024])
    parser.add_argument("--seconds", type=float, default=3.0, help="per environment and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--algos", nargs="*", default=["linucb", "thompson", "slateq", "reinforce"])
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--peers-python", help="a Python with RecSim and SARDINE")
    parser.add_argument("--json", type=Path, help="where to write the result")
    args = parser.parse_args()
    result = measure(args)
    for table in show(result):
        Console().print(table)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
