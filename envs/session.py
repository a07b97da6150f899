"""When the user leaves: session models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from usermirror_gym.errors import ConfigError, UnknownNameError
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
    """Luck in [0, 1), one number per row, for models that leave at random."""


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

    limit: int = 3

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ConfigError(f"patience must be at least 1, got {self.limit}")

    def leaves(self, progress: Progress) -> BoolArray:
        return progress.misses >= self.limit


def session_model(spec: SessionModel | str | int) -> SessionModel:
    """A session model from ``"stay"``, ``"patience"``, an int (the patience), or itself."""
    if isinstance(spec, int) and not isinstance(spec, bool):
        return Patience(spec)
    if not isinstance(spec, str):
        if isinstance(spec, bool) or not callable(getattr(spec, "leaves", None)):
            raise ConfigError(
                "session must be 'stay', 'patience', an int (the patience) or an object with a "
                f"method leaves(progress), got {spec!r}"
            )
        return spec
    models = {"stay": Stay, "patience": Patience}
    if spec not in models:
        raise UnknownNameError("session model", spec, models)
    return models[spec]()
