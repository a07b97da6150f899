"""The settings of a fidelity card."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from usermirror_gym.configs.session import DEFAULT_SIMULATOR, RunConfig
from usermirror_gym.configs.settings import AtLeast0, Positive
from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.foreign import masked

BALANCES = ("popularity", "none")


@dataclass(frozen=True)
class EvaluateConfig(RunConfig):
    """Whom to judge, on what; two runs with equal settings give equal cards."""

    simulator: str = DEFAULT_SIMULATOR
    """Preset, checkpoint folder, hub name, or a classic baseline."""
    options: dict[str, Any] = field(default_factory=dict)
    """Override a setting: --set outside_utility=-1.5 (repeatable)."""
    scenes: str = "ml-100k"
    """A data set (its scenes are built once and kept), the folder of a finished 'usermirror data
    build', or Joinn/UserMirrorer-eval or a copy of it."""
    source: str | None = None
    """Which data set of a build that has several."""
    balance: str | None = None
    """Lists drawn for a data set: 'popularity' (company as popular as what is chosen) or 'none'; by
    default as the data set's preset says."""
    count: Positive = 2000
    """Most evaluation scenes with the true item."""
    base: str | None = None
    """The simulator before training, to stand beside it; by default the preset of its base weights;
    'none' leaves it out."""
    checks: AtLeast0 = 150
    """Lists in each further check (order, none of these, edited texts)."""
    classic: bool = True
    """Fit the classic baselines (ItemKNN, EASE, SASRec ...) too."""
    released_train: str = "Joinn/UserMirrorer"
    """For released scenes: the train set, which has the prompts' layout."""
    seed: int = 0
    """Same seed, same card."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("simulator", "scenes"):
            if not getattr(self, name).strip():
                raise ConfigError(f"{name} is empty: name one")
        if self.balance not in (None, *BALANCES):
            raise UnknownNameError("balance", str(self.balance), BALANCES)

    @property
    def label(self) -> str:
        """A short name of the simulator: its own, or the last part of a path."""
        name = Path(self.simulator).name or self.simulator
        options = sorted(masked(self.options).items())
        changed = ", ".join(f"{key}={value}" for key, value in options)
        return f"{name} ({changed})" if changed else name
