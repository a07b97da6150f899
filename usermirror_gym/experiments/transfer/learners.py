"""Trainings by name, for the transfer experiment: whatever gives a policy from time to time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from usermirror_gym.agents import make_agent
from usermirror_gym.agents.returns import SessionSettings
from usermirror_gym.envs import World
from usermirror_gym.errors import ConfigError
from usermirror_gym.experiments.transfer.curves import Checkpoint
from usermirror_gym.experiments.transfer.linear_reinforce import LinearReinforce

CLIMBERS: dict[str, dict[str, Any]] = {
    "climber": {}, "climber-items": {"items": True}, "climber-new": {"repeats": False},
}  # fmt: skip
"""Names and settings of :class:`LinearReinforce`: ``-items``: with a score for every item;
``-new``: may not show what a user has had."""


@dataclass(frozen=True)
class Practice:
    """The training of an agent that practises.

    It has ``explore``, whether it tries things out or gives its best, and ``practise(env, users,
    seeds)``, which plays one session per row of an environment and learns from them; see
    :class:`~usermirror_gym.agents.learners.learning.LearningAgent`.

    Attributes:
        name: of the agent: one of :data:`CLIMBERS` or of
            :data:`~usermirror_gym.agents.learners.store.KINDS`, the latter in any case.
        settings: of the sessions that it learns from.
        users: sessions side by side.
        updates: rounds of such sessions.
        evaluations: checkpoints after the first, evenly spaced.
        make: an unfitted agent from a seed; by default the one of that name.
    """

    name: str
    settings: SessionSettings = field(default_factory=SessionSettings)
    users: int = 64
    updates: int = 60
    evaluations: int = 12
    make: Callable[[int], Any] | None = None

    def __post_init__(self) -> None:
        for name in ("users", "updates", "evaluations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        if self.evaluations > self.updates:
            raise ConfigError(
                f"evaluations is {self.evaluations}, and there are but {self.updates} updates"
            )

    def new(self, seed: int) -> Any:
        """An agent, not yet fitted.

        Raises:
            UnknownNameError: no such agent.
            ConfigError: it does not learn from sessions.
        """
        agent = _named(self.name, seed) if self.make is None else self.make(seed)
        if not hasattr(agent, "practise"):
            raise ConfigError(
                f"agent {self.name!r} does not learn from sessions: name one that does, or one of "
                f"{', '.join(CLIMBERS)}"
            )
        return agent

    def checkpoints(self, world: World, seed: int) -> Iterator[Checkpoint]:
        """Train in a world; see :func:`~usermirror_gym.experiments.transfer.curves.judge`."""
        agent: Any = self.new(seed).fit(world.split)
        env = self.settings.env(world, self.users)
        rng = getattr(agent, "rng", np.random.default_rng([seed, 5]))
        at = np.linspace(0, self.updates, self.evaluations + 1).round().astype(int)
        agent.explore = False
        yield Checkpoint(0, agent)
        for update in range(1, self.updates + 1):
            agent.explore = True
            ids = rng.choice(world.users, self.users)
            agent.practise(env, ids, rng.integers(2**31, size=self.users).tolist())
            agent.explore = False
            if update in at:
                yield Checkpoint(update * self.users, agent)


def make_learner(
    name: str,
    settings: SessionSettings,
    *,
    users: int = 64,
    updates: int = 60,
    evaluations: int = 12,
) -> Practice:
    """A training by name: one of :data:`CLIMBERS`, or any agent that practises.

    Raises:
        UnknownNameError: no such agent; suggests the nearest.
        ConfigError: an agent that does not learn from sessions.
    """
    practice = Practice(name, settings, users, updates, min(evaluations, updates))
    practice.new(0)
    return practice


def _named(name: str, seed: int) -> Any:
    """A learning agent that has no policy of its own yet, or any other agent."""
    from usermirror_gym.agents.learners.store import agent_class, kind_of

    if name in CLIMBERS:
        return LinearReinforce(name, seed=seed, **CLIMBERS[name])
    if kind_of(name):
        return agent_class(name)(seed=seed)
    return make_agent(name, seed=seed, progress=False)
