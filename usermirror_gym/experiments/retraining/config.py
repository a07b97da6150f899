"""The settings of the interaction experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from usermirror_gym.configs.session import SLATE_SIZE, WorldConfig
from usermirror_gym.configs.settings import Positive
from usermirror_gym.errors import ConfigError, UnknownNameError

LOGGING_POLICIES = ("model", "mixture")


@dataclass(frozen=True)
class RetrainConfig(WorldConfig):
    """What to run; equal settings give equal results."""

    models: tuple[str, ...] = ("LightGCN", "SASRec", "NARM", "DiffRec")
    """Comma-separated RecBole models."""
    seeds: Positive = 2
    """Trainings and draws of feedback per model."""
    amount: Positive = 10
    """Most items of feedback per user."""
    lists: Positive = 20
    """Most lists that a user is shown."""
    slate_size: Positive = SLATE_SIZE
    """Items per list."""
    logging_policy: str = "model"
    """Who makes the lists: model, or mixture (with Pop and Random)."""
    cut: float = 0.8
    """Share of the interactions before T0."""
    until: float = 0.85
    """Share before T1; between T0 and T1 is the real feedback."""
    min_history: Positive = 5
    """Users with fewer interactions before T0 get no feedback."""
    model_options: dict[str, Any] = field(default_factory=dict)
    """RecBole setting of all models: epochs=1 (repeatable)."""
    k: Positive = 5
    """Length of the recommended lists that are judged."""

    def __post_init__(self) -> None:
        from usermirror_gym.agents.recbole.models import canonical_model

        super().__post_init__()
        if self.logging_policy not in LOGGING_POLICIES:
            raise UnknownNameError("logging policy", self.logging_policy, LOGGING_POLICIES)
        models = tuple(canonical_model(name) for name in self.models)
        if not models or len(set(models)) < len(models):
            raise ConfigError(f"models must be names, each once, got {list(self.models)}")
        object.__setattr__(self, "models", models)
