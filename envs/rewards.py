"""What a step is worth; rewards compose: ``{"click": 1.0, "satisfaction": 0.2}``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.types import FloatArray, IntArray


class Outcome(NamedTuple):
    """What N users did with their lists of K items."""

    slates: IntArray  # (N, K)
    probs: FloatArray  # (N, K + 1), last column = none of these
    choices: IntArray  # (N,) slate position, K = none of these
    ratings: FloatArray  # (N,) simulated rating of the chosen item; NaN without a choice

    @property
    def clicked(self) -> np.ndarray:
        """``(N,)`` bool."""
        return self.choices < self.slates.shape[1]


RewardFunction = Callable[[Outcome], FloatArray]


def click(outcome: Outcome) -> FloatArray:
    """1 where an item was chosen, else 0."""
    return outcome.clicked.astype(np.float64)


def expected_click(outcome: Outcome) -> FloatArray:
    """Probability that any item is chosen: the mean of ``click``, with lower variance."""
    return 1.0 - outcome.probs[:, -1]


def target_rank(outcome: Outcome) -> FloatArray:
    """Reciprocal rank of the chosen item in the slate: 1 for the first position, 0 for none."""
    return outcome.clicked / (outcome.choices + 1.0)


def satisfaction(outcome: Outcome) -> FloatArray:
    """Simulated rating of the chosen item, 0 without a choice or a rating."""
    return np.nan_to_num(outcome.ratings, nan=0.0)


REWARDS: dict[str, RewardFunction] = {
    f.__name__: f for f in (click, expected_click, target_rank, satisfaction)
}

RewardSpec = str | Mapping[str, float] | RewardFunction


class Reward:
    """A weighted sum of named components, whose raw values are kept for the log."""

    def __init__(self, spec: RewardSpec = "click") -> None:
        self.terms: dict[str, tuple[RewardFunction, float]] = {}
        if callable(spec):
            name = getattr(spec, "__name__", "custom")
            self.terms["custom" if name == "<lambda>" else name] = (spec, 1.0)
            return
        if not isinstance(spec, (str, Mapping)):
            raise ConfigError(
                "a reward is a name, a mapping of names to weights or a function, got "
                f"{type(spec).__name__}"
            )
        weights = {spec: 1.0} if isinstance(spec, str) else dict(spec)
        if not weights:
            raise ConfigError(f"a reward needs at least one component of {sorted(REWARDS)}")
        for name, weight in weights.items():
            if name not in REWARDS:
                raise UnknownNameError("reward", name, REWARDS)
            self.terms[name] = (REWARDS[name], float(weight))

    def __call__(self, outcome: Outcome) -> tuple[FloatArray, dict[str, FloatArray]]:
        """Total ``(N,)`` and the raw components by name.

        Raises:
            ConfigError: a function did not answer with one number per row.
        """
        raw = {name: function(outcome) for name, (function, _) in self.terms.items()}
        total = np.zeros(len(outcome.slates))
        for name, (_, weight) in self.terms.items():
            if getattr(raw[name], "shape", ()) != total.shape:
                raise ConfigError(
                    f"reward {name!r} answered with shape {np.shape(raw[name])}, expected an "
                    f"array of shape {total.shape}: one number per row"
                )
            total += weight * raw[name]
        return total, raw
