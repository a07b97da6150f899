"""The settings of an agent's training in the environment."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from usermirror_gym.configs.settings import validated
from usermirror_gym.envs.rewards import REWARDS
from usermirror_gym.errors import UnknownNameError

Algo = Literal["linucb", "thompson", "slateq", "reinforce", "ppo"]
Positive = Annotated[int, Field(ge=1)]
AtLeast0 = Annotated[int, Field(ge=0)]


class RLConfig(BaseModel):
    """What to train, where, and how it is watched; equal settings give equal curves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    algo: Algo
    simulator: str
    """In which the agent is trained, and evaluated all along."""
    simulator_options: dict[str, Any] = {}
    eval_simulator: str | None = None
    """A second one in which the agent is evaluated too, slower and more faithful: the LLM."""
    eval_simulator_options: dict[str, Any] = {}
    dataset: str = "ml-100k"
    data_folder: str | None = None
    agent: dict[str, Any] = {}
    """Hyperparameters: the settings beside the agent in :mod:`usermirror_gym.agents.learners`."""
    steps: Positive = 100_000
    """User-steps of training, if nobody leaves early; rounded up to whole iterations."""
    users: Positive = 250
    """Sessions of an iteration, side by side."""
    horizon: Positive = 10
    """Most lists of a session."""
    slate_size: Positive = 5
    patience: Positive = 3
    """The user leaves after so many lists without a choice."""
    reward: str | dict[str, float] | None = None
    """What a list is worth; by default what the algorithm learns from best (a click)."""
    eval_users: Positive = 200
    """Users of the evaluations; none of them takes part in training."""
    eval_every: Positive = 5
    """Iterations between two evaluations; a checkpoint is written at each."""
    llm_users: AtLeast0 = 100
    """Users of the evaluations in ``eval_simulator``: the first of ``eval_users``."""
    llm_every: AtLeast0 = 0
    """Evaluations between two in ``eval_simulator``; 0: before and after training only."""
    monitor: bool = True
    """Of a surrogate: :class:`~usermirror_gym.train.surrogate.monitor.FidelityMonitor`."""
    monitor_lists: Annotated[int, Field(ge=2)] = 256
    """Lists that its teacher is asked about at each evaluation."""
    redistil: bool = False
    """Teach the surrogate the lists of the training when it is no longer trusted."""
    eval_seed: AtLeast0 = 0
    """Of the users and the luck of evaluations; trainings with several seeds have it in common."""
    seed: AtLeast0 = 0

    @model_validator(mode="after")
    def _rewards_exist(self) -> RLConfig:
        names = [self.reward] if isinstance(self.reward, str) else self.reward or []
        for name in names:
            if name not in REWARDS:
                raise UnknownNameError("reward", name, REWARDS)
        return self

    @property
    def iterations(self) -> int:
        """How many it takes."""
        return -(-self.steps // (self.users * self.horizon))


def rl_config(**values: Any) -> RLConfig:
    """Checked settings.

    Raises:
        UnknownNameError: a setting or a reward that does not exist; suggests the nearest.
        ConfigError: a value that cannot be used; names the setting.
    """
    config: RLConfig = validated(RLConfig, values, "an agent's training")
    return config
