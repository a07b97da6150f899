"""Episodes of one agent with given users, as rows of the step log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from usermirror_gym.agents.base import Agent, Transition
from usermirror_gym.agents.observations import rows_of
from usermirror_gym.envs import SlateVectorEnv
from usermirror_gym.simulators.base import forget_questions
from usermirror_gym.types import BoolArray, FloatArray, IntArray, Observation


@dataclass
class Clock:
    """Where the time of the played steps went, in seconds."""

    user_steps: int = 0
    recommend_seconds: float = 0.0
    """In the agent."""
    env_step_seconds: float = 0.0
    """In the environment, the simulator and its engine included."""
    engine_seconds: float = 0.0
    """In the engine, as part of the environment's steps; 0 without an LLM."""


@dataclass(frozen=True)
class Episodes:
    """Which episodes to play: numbers, users and seeds, each of length N."""

    numbers: IntArray
    user_ids: IntArray
    seeds: IntArray

    def __len__(self) -> int:
        return len(self.numbers)

    def part(self, rows: slice | BoolArray) -> Episodes:
        """Some of them."""
        return Episodes(self.numbers[rows], self.user_ids[rows], self.seeds[rows])


def plan_episodes(users: IntArray, count: int, seed: int) -> Episodes:
    """``count`` episodes with different users, as far as there are enough, and a seed for each.

    The plan depends on nothing but its arguments, so every agent meets the same users with the
    same luck; a longer plan starts with the episodes of a shorter one.
    """
    rng = np.random.default_rng(seed)
    rounds = -(-count // len(users))
    ids = np.concatenate([rng.permutation(users) for _ in range(rounds)])[:count]
    seeds = np.random.default_rng([seed, 1]).integers(2**31, size=count)
    return Episodes(np.arange(count), ids, seeds)


def roll_out(
    env: SlateVectorEnv,
    agent: Agent,
    episodes: Episodes,
    clock: Clock,
    progress: Callable[[int], None] = lambda steps: None,
    watch: Callable[[Step], None] = lambda step: None,
) -> list[dict[str, Any]]:
    """Play the episodes side by side; one dict per step, ordered by episode, then step.

    The agent is judged as it is: it is not told what happened beyond its observations.

    Args:
        env: N rows, ``autoreset_mode=DISABLED``.
        progress: told how many user-steps were made since the last call.
        watch: given every step.
    """
    log: list[dict[str, Any]] = []
    for step in play_steps(env, agent, episodes):
        clock.recommend_seconds += step.recommend_seconds
        clock.env_step_seconds += step.env_seconds
        clock.engine_seconds += step.engine_seconds
        clock.user_steps += len(step.live)
        log += [_record(env, agent, episodes, step, row) for row in step.live.tolist()]
        progress(len(step.live))
        watch(step)
    return sorted(log, key=lambda step: (step["episode"], step["step"]))


class Step(NamedTuple):
    """One step of all live rows; arrays are over all N rows."""

    live: IntArray
    """Numbers of the rows that took part."""
    before: Observation
    """Of these rows alone."""
    slates: IntArray
    after: Observation
    rewards: FloatArray
    terminated: BoolArray
    truncated: BoolArray
    info: dict[str, Any]
    recommend_seconds: float
    env_seconds: float
    engine_seconds: float

    @property
    def transition(self) -> Transition:
        """Of the rows that took part."""
        live = self.live
        return Transition(
            self.before, self.slates[live], self.info["choice"][live], self.rewards[live],
            rows_of(self.after, live), self.terminated[live], self.truncated[live],
        )  # fmt: skip


def play_steps(env: SlateVectorEnv, agent: Agent, episodes: Episodes) -> Iterator[Step]:
    """Play the episodes side by side to their ends; see :func:`roll_out`."""
    forget_questions(env.world.simulator)
    observations, _ = env.reset(
        seed=episodes.seeds.tolist(), options={"user_id": episodes.user_ids}
    )
    slates = np.tile(np.arange(1, env.slate_size + 1), (len(episodes), 1))
    while env.live.any():
        live = np.flatnonzero(env.live)
        start = time.perf_counter()
        before = rows_of(observations, live)
        slates[live] = agent.recommend(before, env.slate_size)
        middle, engine_before = time.perf_counter(), _engine_seconds(env)
        observations, rewards, terminated, truncated, info = env.step(slates)
        end = time.perf_counter()
        engine = _engine_seconds(env) - engine_before
        yield Step(
            live, before, slates, observations, rewards, terminated, truncated, info,
            middle - start, end - middle, engine,
        )  # fmt: skip


def _engine_seconds(env: SlateVectorEnv) -> float:
    engine = getattr(env.world.simulator, "engine", None)
    return engine.usage.seconds if engine is not None else 0.0


def _record(
    env: SlateVectorEnv, agent: Agent, episodes: Episodes, step: Step, row: int
) -> dict[str, Any]:
    info = step.info
    rating = float(info["rating"][row])
    return {
        "agent": agent.name,
        "episode": int(episodes.numbers[row]),
        "seed": int(episodes.seeds[row]),
        "user_id": int(info["user_id"][row]),
        "step": int(env.core.turns[row]) - 1,
        "slate": info["shown"][row].tolist(),
        "probabilities": info["probabilities"][row].tolist(),
        "choice": int(info["choice"][row]),
        "item": int(info["item"][row]),
        "rating": None if np.isnan(rating) else rating,
        "reward": float(step.rewards[row]),
        "rewards": {
            key.removeprefix("rewards/"): float(values[row])
            for key, values in info.items()
            if key.startswith("rewards/")
        },
        "rationale": info["rationales"][row] if "rationales" in info else None,
        "simulator": env.world.simulator.name,
        "prompt_tokens": _count(info, "prompt_tokens", row),
        "cached_tokens": _count(info, "cached_tokens", row),
        "seconds": step.env_seconds / len(step.live),
        "terminated": bool(step.terminated[row]),
        "truncated": bool(step.truncated[row]),
    }


def _count(info: dict[str, Any], name: str, row: int) -> int | None:
    return int(info[name][row]) if name in info else None
