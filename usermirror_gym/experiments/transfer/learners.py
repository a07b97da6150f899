"""Trainings by name, for the transfer experiment: whatever gives a policy from time to time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from usermirror_gym.agents import make_agent
from usermirror_gym.agents.base import Agent
from usermirror_gym.agents.returns import SessionSettings
from usermirror_gym.envs import SlateVectorEnv, World
from usermirror_gym.errors import ConfigError
from usermirror_gym.experiments.transfer.climbers import Climber
from usermirror_gym.experiments.transfer.curves import Checkpoint, Learner
from usermirror_gym.types import IntArray

CLIMBERS = {
    "climber": Climber("climber"),
    "climber-items": Climber("climber-items", items=True),
    "climber-new": Climber("climber-new", repeats=False),
}
"""``-items``: with a score for every item; ``-new``: may not show what a user has had."""


@runtime_checkable
class Practising(Protocol):
    """An agent that learns in iterations of whole sessions."""

    explore: bool
    """Whether it tries things out; False: it gives its best."""

    def practise(self, env: SlateVectorEnv, users: IntArray, seeds: list[int]) -> dict[str, float]:
        """Play one session per row and learn from it.

        Args:
            env: N rows, ``autoreset_mode=DISABLED``.
            users: ``(N,)``.
            seeds: N, of the sessions.

        Returns:
            numbers for curves, which are not used here.
        """
        ...


@dataclass(frozen=True)
class Practice:
    """The training of an agent that practises.

    Attributes:
        name: of the agent: one of :data:`~usermirror_gym.agents.learners.store.KINDS`, in any case.
        settings: of the sessions that it learns from.
        users, updates, evaluations: see :class:`Climber`.
        make: an unfitted agent from a seed; by default the one of that name.
    """

    name: str
    settings: SessionSettings = field(default_factory=SessionSettings)
    users: int = 64
    updates: int = 60
    evaluations: int = 12
    make: Callable[[int], Any] | None = None

    def new(self, seed: int) -> Any:
        """An agent, not yet fitted.

        Raises:
            UnknownNameError: no such agent.
            ConfigError: it does not learn from sessions.
        """
        agent = _named(self.name, seed) if self.make is None else self.make(seed)
        if not isinstance(agent, Practising):
            raise ConfigError(
                f"agent {self.name!r} does not learn from sessions: name one that does, or one of "
                f"{', '.join(CLIMBERS)}"
            )
        return agent

    def checkpoints(self, world: World, seed: int) -> Iterator[Checkpoint]:
        """See :class:`~usermirror_gym.experiments.transfer.curves.Learner`."""
        agent: Any = self.new(seed).fit(world.split)
        env, rng = self.settings.env(world, self.users), np.random.default_rng([seed, 5])
        at = np.linspace(0, self.updates, self.evaluations + 1).round().astype(int)
        yield Checkpoint(0, _at_its_best(agent))
        for update in range(1, self.updates + 1):
            agent.explore = True
            ids = rng.choice(world.users, self.users)
            agent.practise(env, ids, rng.integers(2**31, size=self.users).tolist())
            if update in at:
                yield Checkpoint(update * self.users, _at_its_best(agent))


def make_learner(
    name: str,
    settings: SessionSettings,
    *,
    users: int = 64,
    updates: int = 60,
    evaluations: int = 12,
) -> Learner:
    """A training by name: one of :data:`CLIMBERS`, or any agent that practises.

    Raises:
        UnknownNameError: no such agent; suggests the nearest.
        ConfigError: an agent that does not learn from sessions.
    """
    options = {"settings": settings, "users": users, "updates": updates}
    evaluations = min(evaluations, updates)
    if name in CLIMBERS:
        return replace(CLIMBERS[name], **options, evaluations=evaluations)  # type: ignore[arg-type]
    practice = Practice(name, **options, evaluations=evaluations)  # type: ignore[arg-type]
    practice.new(0)
    return practice


def _named(name: str, seed: int) -> Any:
    """A learning agent that has no policy of its own yet, or any other agent."""
    from usermirror_gym.agents.learners.store import agent_class, kind_of

    if kind_of(name):
        return agent_class(name)(seed=seed)
    return make_agent(name, seed=seed, progress=False)


def _at_its_best(agent: Any) -> Agent:
    agent.explore = False
    found: Agent = agent
    return found
