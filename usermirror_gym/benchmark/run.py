"""The interactive benchmark: the same simulated users in front of every agent.

A run folder holds everything; each piece is written whole, so a run that was killed goes on where
it was: no episode is lost or played twice::

    run.json                     settings, and fingerprints of data, simulator and trained agents;
                                 a folder with others is refused
    agents/<name>/               trained recommenders
    offline.json  fidelity.json  finished phases
    episodes/<name>/<n>.jsonl    finished episodes
    episodes.jsonl  report.html  results.json     the outcome, results.json last
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from usermirror_gym.agents import Agent, OracleAgent, RecBoleAgent, make_agent
from usermirror_gym.agents.base import check_names
from usermirror_gym.agents.registry import saved_inputs
from usermirror_gym.agents.returns import SessionSettings
from usermirror_gym.agents.rollout import Clock, Episodes, plan_episodes, roll_out
from usermirror_gym.benchmark.config import BenchmarkConfig
from usermirror_gym.benchmark.offline import offline_scores
from usermirror_gym.benchmark.report import summarise, write_report
from usermirror_gym.configs.plugins import is_path
from usermirror_gym.envs import SlateVectorEnv, World, make_world
from usermirror_gym.envs.rewards import reward_weights
from usermirror_gym.errors import RunError
from usermirror_gym.fidelity.quick_check import fidelity_check
from usermirror_gym.files import (
    kept_json,
    read_jsonl,
    read_mapping,
    write_json,
    write_jsonl,
)
from usermirror_gym.progress import Display
from usermirror_gym.run_folder import INPUTS, numbered_folder, run_folder


def run_benchmark(
    config: BenchmarkConfig, folder: Path, *, display: Display | None = None
) -> dict[str, Any]:
    """Run, or go on with, a benchmark; returns the content of ``results.json``.

    Raises:
        RunError: the folder holds a run with other settings, or another process works in it.
        UnknownNameError: an agent or the simulator does not exist.
    """
    started = time.perf_counter()
    folder = Path(folder)
    display = display or Display(quiet=True)
    world = make_world(
        config.dataset, data_folder=config.data_folder, simulator=config.simulator,
        simulator_options=config.simulator_options,
    )  # fmt: skip
    agents = [make_agent(name, seed=config.seed, progress=not display.quiet,
                         simulator=world.simulator) for name in config.agents]  # fmt: skip
    check_names(agents)
    benchmark_env(config, world, 1)
    # Only now: a mistaken name must not leave a folder with the mistake in it.
    inputs = world.inputs | saved_inputs(config.agents)
    with run_folder(folder, _settings(config), inputs=inputs):
        fitted, fit_seconds = _fit(agents, world, folder, display)
        check_names(fitted)  # fitting may rename them
        offline = _offline(fitted, world, folder)
        fidelity = _fidelity(config, world, folder, display)
        clock = Clock()
        steps = _episodes(config, world, fitted, folder, clock, display)
        timing = {"total_seconds": time.perf_counter() - started} | asdict(clock)
        timing |= _engine_report(world)
        results = summarise(
            steps, world.split, offline, config=_settings(config), fidelity=fidelity, timing=timing,
            fit_seconds=fit_seconds, seed=config.seed,
        )  # fmt: skip
        write_report(results, steps, world.split, folder / "report.html")
        write_json(folder / "results.json", results)
    return results


def _engine_report(world: World) -> dict[str, Any]:
    """What the engine tells of this run: hits of an answer store, fate of a server's replicas."""
    report = getattr(getattr(world.simulator, "engine", None), "report", None)
    return {} if report is None else {"engine": report()}


def benchmark_env(config: BenchmarkConfig, world: World, rows: int) -> SlateVectorEnv:
    """The environment in which ``rows`` episodes of a benchmark are played side by side."""
    settings = SessionSettings(config.steps, config.slate_size, config.leaving, config.reward)
    return settings.env(world, rows)


def read_run(folder: Path) -> BenchmarkConfig:
    """The settings of the run in a folder.

    Raises:
        RunError: it holds no benchmark.
    """
    path = folder / "run.json"
    if not path.is_file():
        raise RunError(f"{folder} has no run.json: name the folder of a benchmark")
    settings = read_mapping(path, "Name the folder of another benchmark.")
    settings.pop(INPUTS, None)
    try:
        return BenchmarkConfig(**settings | {"agents": tuple(settings["agents"])})
    except (TypeError, KeyError) as error:
        raise RunError(
            f"{path} does not hold the settings of a benchmark ({error}): name the folder of one"
        ) from error


def refuse_code(config: BenchmarkConfig, folder: Path, allow: Collection[str]) -> None:
    """A folder may come from anybody: code that its settings name runs only if a caller names it.

    Args:
        allow: paths (``module:name``) that may be imported.

    Raises:
        RunError: the settings name another one.
    """
    named = [*reward_weights(config.reward), str(config.leaving)]
    if foreign := [name for name in named if is_path(name) and name not in allow]:
        options = " ".join(f"--allow {name}" for name in foreign)
        raise RunError(f"{folder} names code that is not ours; if you trust it, add {options}")


def default_folder(config: BenchmarkConfig, base: Path = Path("runs/benchmark")) -> Path:
    """``base``, ``base-2``, ``base-3`` ...: the first that is new or holds a run of ``config``."""
    return numbered_folder(base, _settings(config))


def _settings(config: BenchmarkConfig) -> dict[str, Any]:
    # batch_size does not change the result, so a run may go on with another one.
    return {name: v for name, v in config.settings().items() if name != "batch_size"}


def _fit(
    agents: list[Agent], world: World, folder: Path, display: Display
) -> tuple[list[Agent], dict[str, float]]:
    """Fitted agents and their training seconds; RecBole models come from the folder if there."""
    fitted: list[Agent] = []
    seconds: dict[str, float] = {}
    for agent in agents:
        if not isinstance(agent, RecBoleAgent):
            agent.fit(world.split)
        else:
            agent = agent.fit_once(world.split, folder / "agents" / agent.name)
            seconds[agent.name] = agent.fit_seconds
            display.say(f"{agent.name}: trained in {agent.fit_seconds:.1f} s")
        fitted.append(agent)
    return fitted, seconds


def _offline(agents: list[Agent], world: World, folder: Path) -> dict[str, dict[str, float]]:
    def make() -> dict[str, dict[str, float]]:
        scores = [
            offline_scores(agent, world.split, history_size=world.history_size)
            for agent in agents
            if not isinstance(agent, OracleAgent)  # it would ask the simulator for every user
        ]
        return {
            s.agent: {f"{key}@{s.k}": s.mean(key) for key in s.values} | {"users": len(s.users)}
            for s in scores
        }

    return dict(kept_json(folder / "offline.json", make))


def _fidelity(
    config: BenchmarkConfig, world: World, folder: Path, display: Display
) -> dict[str, Any] | None:
    if not config.fidelity_scenes:
        return None

    def make() -> dict[str, Any]:
        with display.phase("fidelity check", 2 * config.fidelity_scenes, "choices") as progress:
            return fidelity_check(
                world.split, world.simulator, scenes=config.fidelity_scenes,
                slate_size=config.slate_size, seed=config.seed, progress=progress,
            )  # fmt: skip

    return dict(kept_json(folder / "fidelity.json", make))


def _episodes(
    config: BenchmarkConfig,
    world: World,
    agents: list[Agent],
    folder: Path,
    clock: Clock,
    display: Display,
) -> pd.DataFrame:
    """Play what is not there yet, then put the parts together."""
    plan = plan_episodes(world.users, config.users, config.seed)
    total = len(agents) * config.users * config.steps
    with display.phase("episodes", total, "choices") as progress:
        # All agents meet a group of users in turn: what the engine cached of them is still there.
        for start in range(0, len(plan), config.batch_size):
            part = plan.part(slice(start, start + config.batch_size))
            for agent in agents:
                _play(config, world, agent, part, folder, clock, progress)
    files = [
        file
        for agent in agents
        for file in sorted((folder / "episodes" / agent.name).glob("*.jsonl"))
    ]
    rows = [row for file in files for row in read_jsonl(file)]
    write_jsonl(folder / "episodes.jsonl", rows)
    return pd.DataFrame(rows)


def _play(
    config: BenchmarkConfig,
    world: World,
    agent: Agent,
    part: Episodes,
    folder: Path,
    clock: Clock,
    progress: Callable[[int], None],
) -> None:
    files = [folder / "episodes" / agent.name / f"{n:06d}.jsonl" for n in part.numbers.tolist()]
    if all(file.exists() for file in files):
        progress(len(part) * config.steps)
        return
    # The whole part, if it was left in the middle of being written: the last digits of an LLM are
    # those of its batch.
    log = roll_out(benchmark_env(config, world, len(part)), agent, part, clock, progress)
    steps_of: dict[int, list[dict[str, Any]]] = {n: [] for n in part.numbers.tolist()}
    for step in log:
        steps_of[step["episode"]].append(step)
    for file, steps in zip(files, steps_of.values(), strict=True):
        if not file.exists():
            write_jsonl(file, steps)
    progress(len(part) * config.steps - len(log))  # lists that were not needed: the user left
