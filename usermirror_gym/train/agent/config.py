"""The settings of an agent's training in the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from usermirror_gym.configs.session import DEFAULT_SIMULATOR, SessionConfig, WorldConfig
from usermirror_gym.configs.settings import AtLeast0, Positive, validated

Algo = Annotated[
    Literal["linucb", "thompson", "slateq", "reinforce", "ppo"],
    BeforeValidator(lambda name: str(name).strip().lower()),
]


@dataclass(frozen=True, kw_only=True)
class RLConfig(SessionConfig, WorldConfig):
    """What to train, where, and how it is watched; equal settings give equal curves."""

    algo: Algo
    """linucb, thompson, slateq, reinforce or ppo."""
    simulator: str = ""
    """In which it is trained, and evaluated all along: a preset, 'surrogate' (the shipped one), or
    a folder. By default the shipped surrogate, or the default simulator where there is none."""
    eval_simulator: str | None = None
    """Evaluate also in this one before and after: a preset, a folder, or 'llm' (the default
    simulator)."""
    eval_simulator_options: dict[str, Any] = field(default_factory=dict)
    """Override a setting of --eval-simulator (repeatable)."""
    agent: dict[str, Any] = field(default_factory=dict)
    """A hyperparameter: --agent-set learning_rate=0.01 (repeatable)."""
    steps: Positive = 100_000
    """User-steps of training, if nobody leaves early; rounded up to whole iterations."""
    users: Positive = 250
    """Sessions side by side in an iteration."""
    horizon: Positive = 10
    """Most lists of a session."""
    reward: str | dict[str, float] | None = None  # type: ignore[assignment]
    """What a list is worth: click, expected_click, target_rank or satisfaction; several with
    weights (click=1,satisfaction=0.2); or your own (module:name). By default what the algorithm
    learns from best, clicks."""
    eval_users: Positive = 200
    """Users of evaluations; not trained with."""
    eval_every: Positive = 5
    """Iterations between two evaluations; a checkpoint is written at each."""
    llm_users: AtLeast0 = 100
    """Users evaluated in --eval-simulator: the first of --eval-users."""
    llm_every: AtLeast0 = 0
    """Evaluations between two in --eval-simulator; 0: before and after training only."""
    monitor: bool = True
    """Of a surrogate: compare it at every evaluation with its teacher on the lists that the agent
    shows now."""
    monitor_lists: Annotated[int, Field(ge=2)] = 256
    """Lists that its teacher is asked about at each evaluation."""
    redistil: bool = False
    """Teach the surrogate those lists when trust ends."""
    eval_seed: AtLeast0 = 0
    """Of the users and the luck of evaluations; trainings with several seeds have it in common."""
    seed: AtLeast0 = 0
    """Same seed, same curve."""

    @property
    def iterations(self) -> int:
        """How many it takes."""
        return -(-self.steps // (self.users * self.horizon))


def rl_config(**values: Any) -> RLConfig:
    """Checked settings; without a simulator the shipped surrogate.

    Raises:
        UnknownNameError: a setting or a reward that does not exist; suggests the nearest.
        ConfigError: a value that cannot be used; names the setting.
    """
    from usermirror_gym.envs.rewards import Reward
    from usermirror_gym.envs.session import session_model
    from usermirror_gym.simulators import available_simulators

    if not values.get("simulator"):
        shipped = "surrogate" in available_simulators()
        values["simulator"] = "surrogate" if shipped else DEFAULT_SIMULATOR
    if values.get("eval_simulator") == "llm":
        values["eval_simulator"] = DEFAULT_SIMULATOR
    config: RLConfig = validated(RLConfig, values, "an agent's training")
    if config.reward is not None:
        Reward(config.reward)
    session_model(config.leaving)
    return config
