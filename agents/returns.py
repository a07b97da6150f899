"""What policies earn: returns of the same users with the same luck, in any world."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from gymnasium.vector import AutoresetMode

from usermirror_gym.agents.base import Agent
from usermirror_gym.agents.rollout import Episodes, Step, play_steps
from usermirror_gym.configs.session import SLATE_SIZE
from usermirror_gym.envs import SlateVectorEnv, World
from usermirror_gym.envs.rewards import RewardSpec
from usermirror_gym.envs.session import SessionModel
from usermirror_gym.types import PAD, FloatArray, IntArray

_NORMAL = 1.96
"""Standard errors to each side of a mean in a 95 % interval."""
SHOWN_BEFORE = 6
"""Items are told apart that were shown 0, 1, 2, 3, 4, and 5 or more times before in a session."""


@dataclass(frozen=True)
class SessionSettings:
    """How a session is played; alike in all worlds that are compared."""

    steps: int = 10
    """Most lists."""
    slate_size: int = SLATE_SIZE
    session: SessionModel | str | int = 3
    """When users leave: by default after three lists in a row without a choice."""
    reward: RewardSpec = "click"

    def env(self, world: World, rows: int) -> SlateVectorEnv:
        """An environment in which ``rows`` sessions are played side by side."""
        return SlateVectorEnv(
            rows, world, max_episode_steps=self.steps, slate_size=self.slate_size,
            session=self.session, reward=self.reward, autoreset_mode=AutoresetMode.DISABLED,
        )  # fmt: skip


@dataclass(frozen=True)
class Sessions:
    """E episodes of one policy, in the order of the plan; ``(E,)`` each.

    Attributes:
        returns: sum of rewards.
        left: 1.0 where the user left before the horizon.
        lists: how many lists were shown.
        clicks: from how many of them something was taken.
        popularity: mean number of interactions before T0 of the items shown.
        takes: ``(E, T)`` probability that something is taken from each list; NaN where none was
            shown.  Its sums say more about a user than clicks do, which add luck.
        item_takes: ``(E, SHOWN_BEFORE)`` summed probability of the items that were shown so many
            times before in the session.
        item_lists: ``(E, SHOWN_BEFORE)`` how many those were.
    """

    returns: FloatArray
    left: FloatArray
    lists: IntArray
    clicks: IntArray
    popularity: FloatArray
    takes: FloatArray
    item_takes: FloatArray
    item_lists: FloatArray

    @property
    def expected(self) -> FloatArray:
        """``(E,)`` takes that are expected of a session, given the lists that it had."""
        total: FloatArray = np.nansum(self.takes, axis=1)
        return total

    @property
    def first(self) -> FloatArray:
        """``(E,)`` probability of a take from the first list, before anything has happened."""
        return self.takes[:, 0]

    def summary(self) -> dict[str, float]:
        """Mean return, half of its 95 % interval, mean clicks and length, by ending of a name."""
        n = len(self.returns)
        spread = float(self.returns.std(ddof=1)) if n > 1 else 0.0
        return {
            "": float(self.returns.mean()),
            "_ci": _NORMAL * spread / n**0.5,
            "_clicks": float(self.clicks.mean()),
            "_length": float(self.lists.mean()),
        }


def play(world: World, agent: Agent, plan: Episodes, settings: SessionSettings) -> Sessions:
    """See :func:`evaluate`, in an environment of its own."""
    return evaluate(settings.env(world, len(plan)), agent, plan)


def evaluate(env: SlateVectorEnv, agent: Agent, episodes: Episodes) -> Sessions:
    """Play the episodes side by side; the agent is told nothing beyond its observations, and
    explores nothing.

    Args:
        env: as many rows as episodes, ``autoreset_mode=DISABLED``.
    """
    explored = getattr(agent, "explore", None)
    if explored is not None:
        agent.explore = False  # type: ignore[attr-defined]
    popularity = env.world.split.popularity
    returns, left, shown = np.zeros((3, len(episodes)))
    lists, clicks = np.zeros((2, len(episodes)), np.int64)
    takes: list[FloatArray] = []
    items = np.zeros((2, len(episodes), SHOWN_BEFORE))
    earlier = np.zeros((len(episodes), 0), np.int64)
    for step in play_steps(env, agent, episodes):
        live = step.live
        takes.append(np.full(len(episodes), np.nan))
        takes[-1][live] = 1.0 - step.info["probabilities"][live, -1]
        _count_items(items, earlier, step)
        earlier = np.concatenate([earlier, step.info["shown"]], axis=1)
        returns[live] += step.rewards[live]
        left[live] = step.terminated[live]
        shown[live] += popularity[step.slates[live]].mean(axis=1)
        lists[live] += 1
        clicks[live] += step.info["choice"][live] < env.slate_size
    if explored is not None:
        agent.explore = explored  # type: ignore[attr-defined]
    return Sessions(
        returns, left, lists, clicks, shown / lists, np.column_stack(takes), items[0], items[1]
    )


def _count_items(items: FloatArray, earlier: IntArray, step: Step) -> None:
    """Add probabilities and numbers of the items of a step, by how often they were shown."""
    shown, probs = (step.info[name][step.live] for name in ("shown", "probabilities"))
    before = (shown[:, :, None] == earlier[step.live][:, None, :]).sum(axis=2)
    rows, places = np.nonzero(shown != PAD)
    where = step.live[rows], np.minimum(before[rows, places], SHOWN_BEFORE - 1)
    np.add.at(items[0], where, probs[rows, places])
    np.add.at(items[1], where, 1.0)
