"""When the user leaves: session models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from usermirror_gym.configs.plugins import made, resolve
from usermirror_gym.configs.session import PATIENCE
from usermirror_gym.errors import ConfigError
from usermirror_gym.types import BoolArray, FloatArray, IntArray


class Progress(NamedTuple):
    """Where N sessions stand after a step; every array has N rows."""

    turns: IntArray
    """Lists seen so far, the present one included."""
    misses: IntArray
    """How many lists in a row ended with *none of these*."""
    outside_probs: FloatArray
    """Probability of *none of these* for the present list."""
    uniforms: FloatArray
    """In [0, 1), one number per row, for models that leave at random."""


class SessionModel(Protocol):
    """Decides who leaves; a pure function of the progress."""

    def leaves(self, progress: Progress) -> BoolArray:
        """``(N,)`` True where the user leaves after this list."""
        ...


class Stay:
    """Nobody leaves: sessions end at the horizon (``max_episode_steps``) only."""

    def leaves(self, progress: Progress) -> BoolArray:
        return np.zeros(len(progress.turns), dtype=np.bool_)


@dataclass(frozen=True)
class Patience:
    """The user leaves after ``limit`` lists in a row without a choice."""

    limit: int = PATIENCE

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ConfigError(f"patience must be at least 1, got {self.limit}")

    def leaves(self, progress: Progress) -> BoolArray:
        return progress.misses >= self.limit


_MODELS = {"stay": Stay, "patience": Patience}


def session_model(spec: SessionModel | str | int) -> SessionModel:
    """A session model.

    Args:
        spec: ``"stay"``, ``"patience"``, an int (the patience, also as text), the name of an entry
            point of the group ``usermirror_gym.sessions``, ``module:Name`` of a model or of a class
            that makes one without arguments, or a model itself.

    Raises:
        UnknownNameError: no such model; suggests the nearest.
        ConfigError: it is none.
    """
    if isinstance(spec, str):
        if spec.removeprefix("-").isdecimal():
            return Patience(int(spec))
        found = resolve("session model", spec, _MODELS, "usermirror_gym.sessions")
    elif isinstance(spec, int) and not isinstance(spec, bool):
        return Patience(spec)
    else:
        found = spec
    model: SessionModel = made(f"session {spec!r}", found, {}) if isinstance(found, type) else found
    if not callable(getattr(model, "leaves", None)):
        raise ConfigError(
            "session must be 'stay', 'patience', an int (the patience) or an object with a "
            f"method leaves(progress), got {spec!r}"
        )
    return model
