"""Agents that learn from what users do: what they have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from pydantic import BaseModel

from usermirror_gym.agents.base import Transition
from usermirror_gym.agents.learners.item_space import ItemSpace
from usermirror_gym.agents.ranking import check_k, not_fitted, top_k
from usermirror_gym.agents.rollout import Episodes, play_steps
from usermirror_gym.agents.saved import Arrays
from usermirror_gym.configs.settings import validated
from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import AgentError
from usermirror_gym.types import IntArray, Observation

if TYPE_CHECKING:
    from usermirror_gym.envs import SlateVectorEnv

_CHUNK = 256


class LearningAgent(ABC):
    """Learns in *iterations*: whole sessions are played, seen by :meth:`observe`, learned from.

    Between two iterations everything that the agent is lies in :meth:`arrays`,
    :meth:`training_arrays` and ``iteration``; what it draws is a function of seed and iteration.
    That is why a training that was killed ends like one that was not.

    Attributes:
        explore: whether :meth:`recommend` tries things out (in training) or gives its best (as
            it is after :meth:`load`).
        iteration: how many were learned from.
        trained: loaded to be used: :meth:`fit` leaves it as it is.
        label: its name in tables.
    """

    kind: ClassVar[str]
    """Name for tables and files."""
    settings_type: ClassVar[type[BaseModel]]
    feedback: ClassVar[str] = "click"
    """The reward it learns from by default."""

    def __init__(self, *, seed: int = 0, **options: Any) -> None:
        self.settings: Any = validated(self.settings_type, options, f"agent {self.kind}")
        self.seed = seed
        self.explore = True
        self.iteration = 0
        self.label = self.kind
        self._space: ItemSpace | None = None
        self.trained = False

    @property
    def name(self) -> str:
        return self.label

    @property
    def space(self) -> ItemSpace:
        """What is known from before T0.

        Raises:
            AgentError: not fitted.
        """
        if self._space is None:
            raise not_fitted(self.name)
        return self._space

    def fit(self, data: TimeSplit) -> Self:
        """Read the data before T0 and begin anew; a trained agent that was loaded stays as it is.

        Raises:
            AgentError: it was trained on other items.
        """
        if self.trained:
            if data.dataset.n_items != self.space.n_items:
                raise AgentError(
                    f"{self.name} was trained with {self.space.n_items} items, and "
                    f"{data.dataset.name!r} has {data.dataset.n_items}: use it with its own data"
                )
            return self
        self._space = ItemSpace.of(data, self.settings.d)
        self.iteration = 0
        self._begin()
        return self

    def recommend(self, observations: Observation, k: int) -> IntArray:
        """See :class:`usermirror_gym.agents.Agent`; also a function of ``explore``."""
        check_k(self.name, k, self.space.n_items)
        n = len(observations["user_id"])
        parts = [self._recommend({key: v[i : i + _CHUNK] for key, v in observations.items()}, k)
                 for i in range(0, n, _CHUNK)]  # fmt: skip
        return np.concatenate(parts) if parts else np.zeros((0, k), np.int64)

    def observe(self, transition: Transition) -> None:
        """Remember, or learn from, one step of the users in the rows."""
        _ = self.space
        self._observe(transition)

    def practise(self, env: SlateVectorEnv, users: IntArray, seeds: list[int]) -> dict[str, float]:
        """One iteration: play a session with each user, then learn.

        Args:
            env: N rows, ``autoreset_mode=DISABLED``.
            users: ``(N,)``.
            seeds: N, of the sessions.

        Returns:
            Numbers for the curves.
        """
        self.explore = True
        steps, total = 0, 0.0
        plan = Episodes(np.arange(len(users)), users, np.asarray(seeds, np.int64))
        for step in play_steps(env, self, plan):
            self.observe(step.transition)
            steps, total = steps + len(step.live), total + float(step.rewards[step.live].sum())
        numbers = self._learn()
        self.iteration += 1
        return {"steps": steps, "return": total / env.num_envs, **numbers}

    def arrays(self) -> Arrays:
        """Everything that :meth:`recommend` needs, the data before T0 included."""
        return {f"space.{k}": v for k, v in self.space.arrays().items()} | self._policy_arrays()

    def take_arrays(self, arrays: Arrays) -> None:
        """What :meth:`arrays` gave; the agent is then fitted."""
        own = {k.removeprefix("space."): v for k, v in arrays.items() if k.startswith("space.")}
        self._space = ItemSpace.from_arrays(own)
        self._begin()
        self._take_policy({k: v for k, v in arrays.items() if not k.startswith("space.")})

    def training_arrays(self) -> Arrays:
        """What going on needs besides: moments of the optimizer, experience."""
        return {}

    def take_training(self, arrays: Arrays) -> None:  # noqa: B027 nothing unless overridden
        """What :meth:`training_arrays` gave."""

    def write_files(self, folder: Path) -> None:  # noqa: B027 nothing unless overridden
        """What is no array, into the folder of a saved agent."""

    def read_files(self, folder: Path) -> None:  # noqa: B027 nothing unless overridden
        """What :meth:`write_files` wrote; comes before :meth:`take_arrays`."""

    def save(self, folder: str | Path) -> Path:
        """Write ``agent.json`` and ``agent.safetensors``; see :mod:`.rl_store`."""
        from usermirror_gym.agents.learners.store import save_agent

        return save_agent(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """A trained agent that gives its best (``explore`` is False).

        Raises:
            CheckpointError: there is none, or one of another kind.
        """
        from usermirror_gym.agents.learners.store import load_agent

        agent = load_agent(Path(folder), cls)
        assert isinstance(agent, cls)
        return agent

    def _recommend(self, observations: Observation, k: int) -> IntArray:
        return top_k(self._scores(observations, k), self.space.mask(observations), k)

    @abstractmethod
    def _begin(self) -> None:
        """Parameters before any feedback, from ``space``."""

    @abstractmethod
    def _scores(self, observations: Observation, k: int) -> np.ndarray:
        """``(N, n_items + 1)``, finite; the k best unseen items are shown."""

    @abstractmethod
    def _observe(self, transition: Transition) -> None:
        """Of N rows that took part."""

    def _learn(self) -> dict[str, float]:
        """From the iteration's experience; numbers for the curves."""
        return {}

    @abstractmethod
    def _policy_arrays(self) -> Arrays: ...

    @abstractmethod
    def _take_policy(self, arrays: Arrays) -> None: ...
