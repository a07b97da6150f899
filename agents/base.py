"""The contract of everything that recommends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import ConfigError
from usermirror_gym.foreign import file_name
from usermirror_gym.types import BoolArray, FloatArray, IntArray, Observation


@dataclass(frozen=True)
class Transition:
    """One step of N users; every array has N rows.

    Attributes:
        observations: what the agent saw.
        slates: ``(N, K)`` what it showed.
        choices: ``(N,)`` slate position that was chosen; K is *none of these*.
        rewards: ``(N,)``.
        next_observations: what it sees next.
        terminated: ``(N,)`` the user left.
        truncated: ``(N,)`` the horizon was reached.
    """

    observations: Observation
    slates: IntArray
    choices: IntArray
    rewards: FloatArray
    next_observations: Observation
    terminated: BoolArray
    truncated: BoolArray


@runtime_checkable
class Agent(Protocol):
    """A recommender that puts slates in front of users.

    Observations are those of :mod:`usermirror_gym.envs`, batched: ``user_id`` (N,),
    ``history_items`` (N, H) item ids oldest first and padded with 0 on the right,
    ``history_ratings`` (N, H), ``history_length`` (N,), ``last_slate`` (N, K), ``last_choice``
    (N,), ``turns`` (N, 1).
    """

    @property
    def name(self) -> str:
        """Short name for tables."""
        ...

    def fit(self, data: TimeSplit) -> Self:
        """Learn from ``data.before`` only."""
        ...

    def recommend(self, observations: Observation, k: int) -> IntArray:
        """Slates ``(N, k)`` of item ids 1..n_items without duplicates in a row.

        A pure function of the fitted agent and the observations: the row of a user does not
        depend on the other rows.

        Raises:
            AgentError: not fitted, or ``k`` exceeds the number of items.
        """
        ...

    def observe(self, transition: Transition) -> None:
        """Learn online from one step, or do nothing."""
        ...


def check_names(agents: Iterable[Agent]) -> list[str]:
    """The names of agents that are compared: rows of tables, and folders.

    Raises:
        ConfigError: two have one name, upper and lower case aside, or one is no name for a file.
    """
    names = [agent.name for agent in agents]
    folded = [str(name).casefold() for name in names]
    for name in names:
        if not isinstance(name, str) or not file_name(name):
            raise ConfigError(
                f"an agent is called {name!r}, which is no name for a file; rename it"
            )
        if folded.count(name.casefold()) > 1:
            raise ConfigError(
                f"two agents are called {name!r}, of {names}: their results would become one row. "
                "Rename one; the name of a trained agent is 'label' in its agent.json"
            )
    return names
