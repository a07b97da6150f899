"""A logged run once more, without its LLM: the log's own answers, everything else made anew.

The environment draws choices and ratings, computes rewards and ends sessions from the seeds of the
log; what comes out is compared with the log, step by step.  A log that was changed, cut, or made by
code that behaved otherwise does not pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from usermirror_gym.agents.base import Transition
from usermirror_gym.agents.rollout import Clock, Episodes, Step, roll_out
from usermirror_gym.benchmark.run import BenchmarkConfig, benchmark_env, read_run, refuse_code
from usermirror_gym.data import TimeSplit
from usermirror_gym.envs import World, make_world
from usermirror_gym.errors import RunError
from usermirror_gym.files import read_jsonl
from usermirror_gym.progress import Display
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.simulators import ChoiceBatch
from usermirror_gym.types import IntArray, Observation

Row = dict[str, Any]
_COMPARED = (
    "user_id", "slate", "choice", "item", "rating", "reward", "rewards", "terminated", "truncated",
)  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """One value that came out otherwise."""

    agent: str
    episode: int
    step: int
    name: str
    logged: Any
    replayed: Any

    def __str__(self) -> str:
        return (
            f"{self.agent}, episode {self.episode}, step {self.step}: {self.name} is "
            f"{self.logged!r} in the log and {self.replayed!r} now"
        )


@dataclass(frozen=True)
class Replay:
    """What was compared, and what differs."""

    agents: int
    episodes: int
    steps: int
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Run:
    """A finished benchmark.

    Attributes:
        log: steps by agent and episode, in the order of the log.
    """

    config: BenchmarkConfig
    world: World
    log: dict[str, list[list[Row]]]

    @classmethod
    def read(cls, folder: Path) -> Run:
        """The run in a folder.

        Raises:
            RunError: no finished run, or a row that cannot be read as a step.
        """
        config = read_run(folder)
        log = _read_log(folder, config.slate_size)
        # The simulator is never asked; the cheapest stands in for its place.
        world = make_world(config.dataset, data_folder=config.data_folder, simulator="uniform")
        return cls(config, world, log)

    @property
    def steps(self) -> list[Row]:
        """All of them, by agent, episode and step."""
        return [row for episodes in self.log.values() for rows in episodes for row in rows]

    def differences(
        self,
        agent: str,
        progress: Callable[[int], None],
        watch: Callable[[Step], None] = lambda step: None,
    ) -> list[Difference]:
        """What of an agent comes out otherwise than it was logged, in the order of the log; see
        :func:`replay`, and ``roll_out`` for ``watch``."""
        episodes = self.log[agent]
        logged = [row for rows in episodes for row in rows]
        starts = [[rows[0][name] for rows in episodes] for name in ("episode", "user_id", "seed")]
        plan = Episodes(*np.array(starts, np.int64))
        tape = Tape(agent, episodes)
        env = benchmark_env(self.config, replace(self.world, simulator=tape), len(episodes))
        played = roll_out(env, tape, plan, Clock(), progress, watch)
        if len(played) < len(logged):
            raise RunError(
                f"{agent}: all sessions end after {len(played)} steps, and the log has "
                f"{len(logged)}: sessions end otherwise than they did"
            )
        return [
            Difference(row["agent"], row["episode"], row["step"], name, row[name], now[name])
            for row, now in zip(logged, played, strict=True)
            for name in _COMPARED
            if row[name] != now[name]
        ]


class Tape:
    """The lists and the answers of logged episodes, as an agent and a simulator that repeat them.

    Args:
        episodes: the steps of each, in order; all are played side by side.
    """

    def __init__(self, agent: str, episodes: Sequence[Sequence[Row]]) -> None:
        self.name = agent
        self._episodes, self._step = episodes, -1
        self._now: list[Row] = []

    def fit(self, data: TimeSplit) -> Self:
        """Everything is on the tape."""
        return self

    def observe(self, transition: Transition) -> None:
        """Nothing is learned."""

    def recommend(self, observations: Observation, k: int) -> IntArray:
        """The lists of the episodes that still go on, in the order of the log."""
        self._step += 1
        self._now = [rows[self._step] for rows in self._episodes if len(rows) > self._step]
        live = len(next(iter(observations.values())))
        if live != len(self._now):
            raise RunError(
                f"{self.name}: at step {self._step} {live} sessions go on, and the log has "
                f"{len(self._now)}: sessions end otherwise than they did, or the log was cut"
            )
        return np.array([row["slate"] for row in self._now], np.int64)

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        """The logged probabilities of the lists that were just put up."""
        return ChoiceBatch(np.array([row["probabilities"] for row in self._now], np.float64))


def replay(
    folder: str | Path, *, allow: Collection[str] = (), display: Display | None = None
) -> Replay:
    """Play the episodes of a benchmark's folder once more and compare every step.

    Args:
        folder: of a benchmark, with ``run.json`` and ``episodes.jsonl``.
        allow: rewards and session models of others (``module:name``) that may be imported.
        display: shows how far it is.

    Raises:
        RunError: the folder holds no finished run, a row that cannot be read as a step, or code
            that is not allowed; or sessions end otherwise than in the log.
    """
    folder, display = Path(folder), display or Display(quiet=True)
    run = Run.read(folder)
    refuse_code(run.config, folder, allow)
    with display.phase("replay", len(run.steps), "steps") as progress:
        found = [d for agent in run.log for d in run.differences(agent, progress)]
    return Replay(len(run.log), sum(map(len, run.log.values())), len(run.steps), tuple(found))


def _read_log(folder: Path, slate_size: int) -> dict[str, list[list[Row]]]:
    """Steps by agent and episode, both in the order of the log.

    Raises:
        RunError: there is no log, or a line of it cannot be read as a step; names the line.
    """
    path = folder / "episodes.jsonl"
    if not path.is_file():
        raise RunError(f"{folder} has no episodes.jsonl: name the folder of a finished benchmark")
    log: dict[str, dict[int, list[Row]]] = {}
    for number, row in enumerate(read_jsonl(path), start=1):
        if mistake := _mistake(row, slate_size):
            raise RunError(f"{path}, line {number}: {mistake}")
        steps = log.setdefault(row["agent"], {}).setdefault(row["episode"], [])
        if row["step"] != len(steps):
            raise RunError(
                f"{path}, line {number}: step {row['step']} of episode {row['episode']} of "
                f"{row['agent']} stands where step {len(steps)} must be: the log was cut or mixed"
            )
        steps.append(row)
    if not log:
        raise RunError(f"{path} holds no step")
    return {agent: [own[n] for n in sorted(own)] for agent, own in log.items()}


def _mistake(row: Any, slate_size: int) -> str | None:
    """Why this cannot be read as a step."""
    names = (*_COMPARED, "agent", "episode", "step", "seed", "probabilities")
    missing = [n for n in names if n not in row] if isinstance(row, dict) else names
    if missing:
        return f"a step without {', '.join(missing)}"
    if not isinstance(row["agent"], str) or type(row["episode"]) is not int:
        return f"agent {row['agent']!r}, episode {row['episode']!r}: must be a text and a number"
    for name, size in (("slate", slate_size), ("probabilities", slate_size + 1)):
        if not isinstance(row[name], list) or len(row[name]) != size:
            return f"{name} is {row[name]!r}, and must be {size} numbers in this run"
    return None
