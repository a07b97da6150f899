"""What the settings of all runs have in common: the simulated user, and how a session is played."""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar, get_type_hints

from usermirror_gym.configs.settings import Positive
from usermirror_gym.errors import ConfigError
from usermirror_gym.files import to_json_types
from usermirror_gym.foreign import masked

SLATE_SIZE = 5
"""K, the items of a list, wherever nothing else is said."""
PATIENCE = 3
"""Lists in a row without a choice after which a user leaves, likewise."""
MIN_HISTORY = 5
"""Interactions before T0 of the users whose sessions are started."""
DEFAULT_SIMULATOR = "smollm2-ml100k"


@dataclass(frozen=True)
class RunConfig:
    """Settings of a run: two runs with equal settings give equal results.

    The command line is made from these classes: a field is an option, its docstring the help.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # for settings that are read: `validated`

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            for least in (b for mark in getattr(hint, "__metadata__", ()) for b in _bounds(mark)):
                if getattr(self, name) < least:
                    raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def settings(self) -> dict[str, Any]:
        """As ``run.json`` holds them, in plain types, secrets masked."""
        return masked({f.name: to_json_types(getattr(self, f.name)) for f in own_first(type(self))})


def _bounds(mark: Any) -> list[int]:
    """The least value, where ``Field(ge=...)`` says one."""
    return [bound.ge for bound in getattr(mark, "metadata", ()) if hasattr(bound, "ge")]


def own_first(config: type[RunConfig]) -> list[Field[Any]]:
    """Fields of a class, those that are its own before those that it has in common with others."""
    return sorted(fields(config), key=lambda f: f.name not in vars(config)["__annotations__"])


@dataclass(frozen=True, kw_only=True)
class WorldConfig(RunConfig):
    """Who plays the users, and of which data set they are."""

    simulator: str = DEFAULT_SIMULATOR
    """Preset, checkpoint folder, hub name, or 'popularity' / 'uniform'."""
    simulator_options: dict[str, Any] = field(default_factory=dict)
    """Override a setting: --set outside_utility=-1.5 (repeatable)."""
    dataset: str = "ml-100k"
    """Data set: ml-100k (included), another name, or a YAML file."""
    data_folder: str | None = None
    """Where the raw files are, for data sets that need it."""


@dataclass(frozen=True, kw_only=True)
class SessionConfig(RunConfig):
    """How a session is played, but for its length, which every run calls in its own way."""

    slate_size: Positive = SLATE_SIZE
    """Items per list."""
    patience: Positive = PATIENCE
    """The user leaves after so many lists without a choice."""
    session: str | None = None
    """When the user leaves, if not by patience: stay (never), a number of lists, or a model of your
    own (module:Name)."""
    reward: str = "click"
    """click, expected_click, target_rank or satisfaction; several with weights
    (click=1,satisfaction=0.2); or your own (module:name)."""

    @property
    def leaving(self) -> str | int:
        """As environments take it: :func:`usermirror_gym.envs.session.session_model`."""
        return self.patience if self.session in (None, "patience") else str(self.session)
