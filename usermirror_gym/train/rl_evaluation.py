"""How good an agent is for given users: returns of whole sessions, without a log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from usermirror_gym.agents.base import Agent
from usermirror_gym.envs import SlateVectorEnv
from usermirror_gym.evaluate.rollout import Episodes, play_steps
from usermirror_gym.types import FloatArray, IntArray

_NORMAL = 1.96
"""Standard errors to each side of a mean in a 95 % interval."""


@dataclass(frozen=True)
class Returns:
    """Of N sessions, ``(N,)`` each."""

    user_ids: IntArray
    returns: FloatArray
    """Sum of the rewards."""
    clicks: FloatArray
    """Lists from which something was taken."""
    lengths: FloatArray
    """Lists."""

    def summary(self) -> dict[str, float]:
        """Mean return, half of its 95 % interval, mean clicks and length, by ending of a name."""
        n = len(self.returns)
        spread = float(self.returns.std(ddof=1)) if n > 1 else 0.0
        return {
            "": float(self.returns.mean()),
            "_ci": _NORMAL * spread / n**0.5,
            "_clicks": float(self.clicks.mean()),
            "_length": float(self.lengths.mean()),
        }


def evaluate(env: SlateVectorEnv, agent: Agent, episodes: Episodes) -> Returns:
    """Play the episodes side by side; the agent is told nothing and explores nothing.

    Args:
        env: as many rows as episodes, ``autoreset_mode=DISABLED``.
    """
    explored = getattr(agent, "explore", None)
    if explored is not None:
        agent.explore = False  # type: ignore[attr-defined]
    returns, clicks, lengths = np.zeros((3, len(episodes)))
    for step in play_steps(env, agent, episodes):
        live = step.live
        returns[live] += step.rewards[live]
        clicks[live] += step.info["choice"][live] < env.slate_size
        lengths[live] += 1
    if explored is not None:
        agent.explore = explored  # type: ignore[attr-defined]
    return Returns(episodes.user_ids, returns, clicks, lengths)
