"""Do agents that learn from the simulated user beat recommenders that learned from the log?

    python benchmarks/rl_vs_recbole.py --out runs/rl-vs-recbole

Each algorithm is trained with several seeds in the simulator; RecBole's models are trained on the
log before T0; all play the same sessions of the same users, none of whom took part in training by
reinforcement.  Intervals (95 %, percentile bootstrap) resample users and, for the trained agents,
seeds too.  Random, Pop, the best RecBole model and the best learning agent then meet the first
users once more under the LLM itself.  Trainings run in ``--jobs`` processes with one thread each; a
run that was stopped goes on when the command is given again.  Writes results.json and plot.png.

A list is worth the rating of what was taken from it, 0 if nothing was (``--reward``): the default
user takes something from 19 of 20 lists, so that clicks alone hardly tell agents apart.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from usermirror_gym.agents import Agent, RecBoleAgent, make_agent
from usermirror_gym.agents.returns import Sessions, evaluate
from usermirror_gym.cli.options import parse_settings
from usermirror_gym.envs import World, make_world
from usermirror_gym.files import read_json, read_jsonl, write_json
from usermirror_gym.progress import Display
from usermirror_gym.simulators import DEFAULT_SIMULATOR, available_simulators
from usermirror_gym.train.agent.config import RLConfig, rl_config
from usermirror_gym.train.agent.run import make_env, reward_of, split_users, train_agent

SURROGATE = "smollm2-ml100k-surrogate"
RECBOLE = "ItemKNN,EASE,BPR,LightGCN,MultiVAE,GRU4Rec,SASRec"
RESAMPLES = 2000


@dataclass(frozen=True)
class Job:
    """One training: of an algorithm with a seed, or of a RecBole model (``config`` is None)."""

    name: str
    folder: Path
    config: RLConfig | None


def jobs_of(args: argparse.Namespace) -> list[Job]:
    """The slow ones first."""
    out = [Job(name, args.out / "recbole" / name, None) for name in reversed(args.recbole)]
    for seed in range(args.seeds):
        for algo in args.algos:
            config = config_of(args, algo, seed)
            out.append(Job(algo, args.out / f"{algo}-{seed}", config))
    return out


def config_of(args: argparse.Namespace, algo: str, seed: int) -> RLConfig:
    """Settings of a training."""
    return rl_config(
        algo=algo, seed=seed, simulator=args.simulator, simulator_options=parse_settings(args.set),
        steps=args.steps, horizon=args.horizon, reward=args.reward, eval_users=args.users,
        eval_every=args.eval_every,
    )  # fmt: skip


def run_job(job: Job) -> str:
    """Train, unless it is done; in a process of its own."""
    import torch

    torch.set_num_threads(1)
    quiet = Display(quiet=True)
    if job.config is not None:
        train_agent(job.config, job.folder, display=quiet)
    elif not job.folder.exists():
        RecBoleAgent(job.name, progress=False).fit(make_world().split).save(job.folder)
    return f"{job.name}: {job.folder}"


def train_all(args: argparse.Namespace, display: Display) -> None:
    """All trainings, ``--jobs`` at a time."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # inherited: processes share the cores
    jobs = jobs_of(args)
    with (
        display.phase("trainings", len(jobs), "trainings") as progress,
        ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool,
    ):
        for done in as_completed([pool.submit(run_job, job) for job in jobs]):
            done.result()
            progress(1)


def load_agents(args: argparse.Namespace, world: World) -> dict[str, list[Agent]]:
    """By name, one per seed."""
    agents: dict[str, list[Agent]] = {
        name: [make_agent(name).fit(world.split)] for name in ("Random", "Pop")
    }
    for name in args.recbole:
        agents[name] = [RecBoleAgent.load(args.out / "recbole" / name, progress=False)]
    for algo in args.algos:
        agents[algo] = [make_agent(str(args.out / f"{algo}-{s}")) for s in range(args.seeds)]
    return agents


def play(
    args: argparse.Namespace, world: World, agents: dict[str, list[Agent]], users: int, what: str
) -> dict[str, list[Sessions]]:
    """Sessions of the first ``users`` evaluation users with every agent."""
    config = config_of(args, args.algos[0], 0)
    plan = split_users(config, world)[0].part(slice(users))
    env = make_env(config, world, len(plan), reward_of(config))
    total = sum(map(len, agents.values()))
    with Display().phase(what, total, "agents") as progress:
        played: dict[str, list[Sessions]] = {}
        for name, seeds in agents.items():
            played[name] = []
            for agent in seeds:
                played[name].append(evaluate(env, agent, plan))
                progress(1)
    return played


def summarise(played: dict[str, list[Sessions]], best: str, seed: int = 0) -> dict[str, Any]:
    """Means, intervals, and paired differences to ``best``, from the same resamples of users."""
    n = len(next(iter(played.values()))[0].returns)
    rng = np.random.default_rng(seed)
    users = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
    samples = {name: _resampled(runs, users, rng) for name, runs in played.items()}
    return {
        name: {
            "mean": float(np.mean([r.returns.mean() for r in runs])),
            "interval": _interval(samples[name]),
            "seeds": [float(r.returns.mean()) for r in runs],
            "clicks": float(np.mean([r.clicks.mean() for r in runs])),
            "length": float(np.mean([r.lists.mean() for r in runs])),
            "minus_best_recbole": _interval(samples[name] - samples[best]),
        }
        for name, runs in played.items()
    }


def _resampled(runs: list[Sessions], users: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """``(RESAMPLES,)`` means over drawn users and drawn seeds."""
    means = users @ np.stack([r.returns for r in runs], axis=1)  # (RESAMPLES, seeds)
    drawn = rng.integers(len(runs), size=(len(means), len(runs)))
    return np.take_along_axis(means, drawn, axis=1).mean(axis=1)


def _interval(values: np.ndarray) -> list[float]:
    return [float(v) for v in np.quantile(values, [0.025, 0.975])]


def best_of(names: Iterable[str], played: dict[str, list[Sessions]]) -> str:
    """The name of the largest mean return."""
    return max(names, key=lambda name: np.mean([r.returns.mean() for r in played[name]]))


def verdict(args: argparse.Namespace, table: dict[str, Any], best: str) -> dict[str, bool]:
    """Which algorithms lie above Pop and the best RecBole model without touching intervals."""
    bar = max(table[name]["interval"][1] for name in ("Pop", best))
    return {algo: table[algo]["interval"][0] > bar for algo in args.algos}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Everything that results.json holds."""
    display = Display()
    train_all(args, display)
    world = make_world(simulator=args.simulator, simulator_options=parse_settings(args.set))
    agents = load_agents(args, world)
    played = play(args, world, agents, args.users, "in training's world")
    best = best_of(args.recbole, played)
    trained = best_of(args.algos, played)
    table = summarise(played, best)
    four = {name: agents[name][:1] for name in ("Random", "Pop", best, trained)}
    llm_world = make_world(simulator=args.llm, simulator_options=parse_settings(args.llm_set))
    under_llm = play(args, llm_world, four, args.llm_users, "under the LLM")
    llm = summarise(under_llm, best)
    return {
        "settings": {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()},
        "simulator": world.simulator.name, "llm": llm_world.simulator.name,
        "best_recbole": best, "best_trained": trained,
        "beats_pop_and_recbole": verdict(args, table, best),
        "agents": table, "under_llm": llm,
        "ranking": sorted(four, key=lambda n: -table[n]["mean"]),
        "ranking_under_llm": sorted(four, key=lambda n: -llm[n]["mean"]),
        "curves": {f"{a}-{s}": read_curve(args.out / f"{a}-{s}")
                   for a in args.algos for s in range(args.seeds)},
        "monitor": {a: watched([args.out / f"{a}-{s}" for s in range(args.seeds)])
                    for a in args.algos},
    }  # fmt: skip


def read_curve(folder: Path) -> list[list[float]]:
    """``[user-steps, mean return]`` at each evaluation."""
    return [[row["steps"], row["return"]] for row in read_jsonl(folder / "curve.jsonl")]


def watched(folders: list[Path]) -> dict[str, Any] | None:
    """What the monitors of an algorithm's trainings said; None where there was none."""
    rows = [row for folder in folders for row in read_jsonl(folder / "curve.jsonl")
            if "monitor_kl" in row]  # fmt: skip
    if not rows:
        return None
    return {
        "checks": len(rows),
        "trusted": sum(row["monitor_trusted"] for row in rows),
        "largest_kl": max(row["monitor_kl"] for row in rows),
        "smallest_agreement": min(row["monitor_agreement"] for row in rows),
        "largest_gap": max((row["monitor_gap"] for row in rows), key=abs),
    }


def print_table(title: str, rows: dict[str, Any]) -> None:
    """Best last."""
    table = Table(title=title)
    for name in ("agent", "mean return", "95 % interval", "minus best RecBole", "clicks"):
        table.add_column(name, justify="left" if name == "agent" else "right")
    for name, row in sorted(rows.items(), key=lambda pair: pair[1]["mean"]):
        low, high = row["interval"]
        less, more = row["minus_best_recbole"]
        table.add_row(name, f"{row['mean']:.3f}", f"[{low:.3f}, {high:.3f}]",
                      f"[{less:+.3f}, {more:+.3f}]", f"{row['clicks']:.2f}")  # fmt: skip
    Console().print(table)


def plot(result: dict[str, Any], path: Path) -> None:
    """Learning curves, and all agents with their intervals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    algos = result["settings"]["algos"]
    for name, curve in result["curves"].items():
        algo = name.rpartition("-")[0]
        left.plot(*zip(*curve, strict=True), color=f"C{algos.index(algo)}", alpha=0.7,
                  label=algo if name.endswith("-0") else None)  # fmt: skip
    for name, style in ((result["best_recbole"], "--"), ("Pop", ":")):
        left.axhline(result["agents"][name]["mean"], color="grey", linestyle=style, label=name)
    left.set(xlabel="user-steps of training", ylabel="mean return", title="training")
    left.legend()
    for axis, rows, title in (
        (middle, result["agents"], "in training's world"),
        (right, result["under_llm"], "under the LLM"),
    ):
        names = sorted(rows, key=lambda n: rows[n]["mean"])
        means = [rows[n]["mean"] for n in names]
        bounds = np.array([rows[n]["interval"] for n in names]).T
        axis.errorbar(means, names, xerr=np.abs(bounds - means), fmt="o", capsize=3)
        axis.set(xlabel="mean return, 95 % interval", title=title)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _arguments() -> argparse.Namespace:
    default = SURROGATE if SURROGATE in available_simulators() else DEFAULT_SIMULATOR
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--algos", nargs="+", default=["slateq", "reinforce"])
    parser.add_argument("--recbole", default=RECBOLE, help="comma-separated models")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--users", type=int, default=500, help="of the evaluation")
    parser.add_argument("--steps", type=int, default=100_000, help="user-steps of each training")
    parser.add_argument("--horizon", type=int, default=10)
    parser.add_argument("--reward", default="satisfaction")
    parser.add_argument("--eval-every", type=int, default=10, help="iterations")
    parser.add_argument("--simulator", default=default)
    parser.add_argument("--set", nargs="*", default=[], help="options of the simulator")
    parser.add_argument("--llm", default=DEFAULT_SIMULATOR, help="the simulator that reads")
    parser.add_argument("--llm-set", nargs="*", default=[], help="its options")
    parser.add_argument("--llm-users", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.recbole = args.recbole.split(",")
    return args


def main() -> None:
    """Train, play, write, print."""
    args = _arguments()
    begun = args.out / "settings.json"
    settings = {k: v for k, v in vars(args).items() if k not in ("out", "jobs")}
    if begun.exists() and read_json(begun) != settings:
        raise SystemExit(f"{args.out} holds a run with other settings; name another folder")
    write_json(begun, settings)
    result = measure(args)
    write_json(args.out / "results.json", result)
    plot(result, args.out / "plot.png")
    print_table("in training's world", result["agents"])
    print_table(f"under {result['llm']}", result["under_llm"])
    for algo, said in result["monitor"].items():
        print(f"monitor of {algo}: {said}")
    print("ranking in training's world:", " > ".join(result["ranking"]))
    print("ranking under the LLM:", " > ".join(result["ranking_under_llm"]))
    print("above Pop and the best RecBole model, intervals apart:", result["beats_pop_and_recbole"])


if __name__ == "__main__":
    main()
