"""The settings of the transfer experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from usermirror_gym.configs.session import SessionConfig
from usermirror_gym.configs.settings import Positive
from usermirror_gym.errors import ConfigError

GOOD = ("ItemKNN", "EASE", "BPR", "LightGCN")
"""RecBole models among the ranked policies."""


@dataclass(frozen=True)
class TransferConfig(SessionConfig):
    """What to run; two runs with equal settings give equal results."""

    dataset: str = "ml-100k"
    """The ground truth is fitted on all of it; its texts are shown."""
    data_folder: str | None = None
    """Where the raw files are, for data sets that need it."""
    learners: tuple[str, ...] = ("climber", "climber-new")
    """Comma-separated: climber, climber-items, climber-new, linucb, thompson, slateq, reinforce,
    ppo."""
    models: tuple[str, ...] = GOOD
    """Comma-separated RecBole models among the ranked policies."""
    tier: str | None = None
    """User that learners train on, if not the simulator: 'surrogate' (distilled from it here), a
    name or a folder."""
    recipe: str = "smollm2-ml100k"
    """How the simulator is trained on the truth's log."""
    recipe_settings: dict[str, Any] = field(default_factory=dict)
    """A setting by its path in the YAML file: --set seed=1 (repeatable)."""
    truth: dict[str, Any] = field(default_factory=dict)
    """A rule of the truth: --truth satiation=0 (repeatable)."""
    log: dict[str, Any] = field(default_factory=dict)
    """How the log is made: --log lists=100 (repeatable)."""
    surrogate_settings: dict[str, Any] = field(default_factory=dict)
    """How it is distilled: --surrogate questions.total=50000 (repeatable)."""
    trainings: Positive = 3
    """Of every learner, with different seeds."""
    updates: Positive = 60
    """Rounds of sessions of a training."""
    train_users: Positive = 64
    """Sessions of a round."""
    evaluations: Positive = 12
    """Evaluations of a training, after the first, which is untrained."""
    users: Positive = 200
    """Episodes of an evaluation."""
    steps: Positive = 10
    """Most lists per episode."""
    n_resamples: Positive = 2000
    """Resamples of the users behind an interval."""
    seed: int = 0
    """Same seed, same result."""

    def __post_init__(self) -> None:
        from usermirror_gym.experiments.transfer.ground_truth import TruthSettings
        from usermirror_gym.experiments.transfer.simulated_log import LogSettings

        super().__post_init__()
        for name in ("models", "learners"):
            names = getattr(self, name)
            if not names or len(set(names)) < len(names):
                raise ConfigError(f"{name} must be different names, at least one, got {names}")
        self.of(TruthSettings, "truth")
        self.of(LogSettings, "log")

    def of(self, kind: Any, what: str) -> Any:
        """``truth`` or ``log`` as its dataclass.

        Raises:
            ConfigError: a setting that does not exist, or a value that cannot be used.
        """
        values = {"seed": self.seed} | getattr(self, what)
        try:
            return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
        except TypeError as error:
            raise ConfigError(f"{what} settings {values}: {error}") from error
