"""The settings of the transfer experiment."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

from usermirror_gym.configs.session import SessionConfig
from usermirror_gym.configs.settings import Positive, Share
from usermirror_gym.errors import ConfigError

RECOMMENDERS = (
    "EASE", "EASE(reg_weight=2500)", "ItemKNN", "ItemKNN(k=20, shrink=0)", "BPR", "BPR(epochs=4)",
    "LightGCN", "LightGCN(epochs=4)", "MultiVAE", "NeuMF",
)  # fmt: skip
"""What is ranked beside Pop: recommenders that differ in kind, or far in their settings."""
_WORLD = re.compile(r"(\w+):(\d+)")


@dataclass(frozen=True)
class TransferConfig(SessionConfig):
    """What to run; two runs with equal settings give equal results."""

    dataset: str = "ml-100k"
    """The ground truth is fitted on all of it; its texts are shown."""
    data_folder: str | None = None
    """Where the raw files are, for data sets that need it."""
    learners: tuple[str, ...] = ("climber", "climber-new")
    """Comma-separated: climber, climber-items, climber-new, linucb, thompson, slateq, reinforce,
    ppo; none at all: only the ranking."""
    models: tuple[str, ...] = RECOMMENDERS
    """Comma-separated recommenders that are ranked beside Pop, at least two; options in
    parentheses: ItemKNN(k=20, shrink=0). The first is degraded too, apart."""
    worlds: tuple[str, ...] = ()
    """Comma-separated further worlds, made anew, in which the ranking is repeated, as kind of truth
    and seed: neighbours:0, factors:1."""
    tier: str | None = None
    """User that learners train on, if not the simulator: 'surrogate' (distilled from it here), a
    name or a folder."""
    recipe: str = "smollm2-ml100k"
    """How the simulator is trained on the truth's log."""
    simulator_trainings: Positive = 2
    """Of the simulator, with different seeds; learners train in the first."""
    held_out: Share = 0.5
    """Share of the users whose rows the simulator's training does not see; they are played too."""
    recipe_settings: dict[str, Any] = field(default_factory=dict)
    """A setting by its path in the YAML file: --set seed=1 (repeatable)."""
    truth: dict[str, Any] = field(default_factory=dict)
    """A rule of the truth: --truth satiation=0, --truth kind=neighbours (repeatable)."""
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
    users: Positive = 300
    """Episodes of an evaluation, of users in and out of the simulator's training."""
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
        for name, least in (("models", 2), ("learners", 0), ("worlds", 0)):
            names = getattr(self, name)
            if len(names) < least or len(set(names)) < len(names):
                raise ConfigError(
                    f"{name} must be different names, at least {least}, got {list(names)}"
                )
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"held_out must be 0 or more and below 1, got {self.held_out!r}")
        for config in (self, *map(self.elsewhere, self.worlds)):
            config.of(TruthSettings, "truth")
            config.of(LogSettings, "log")

    def elsewhere(self, world: str) -> TransferConfig:
        """The settings of the ranking in another world, given as kind of truth and seed.

        Raises:
            ConfigError: it is not given so.
        """
        found = _WORLD.fullmatch(world.strip())
        if found is None:
            raise ConfigError(f"worlds are given as kind:seed, such as neighbours:0, got {world!r}")
        kind, seed = found[1], int(found[2])
        truth, log = ({k: v for k, v in s.items() if k != "seed"} for s in (self.truth, self.log))
        return replace(
            self,
            truth=truth | {"kind": kind},
            log=log,
            seed=seed,
            worlds=(),
            learners=(),
            tier=None,
        )

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
