"""What a step is worth; rewards compose: ``"click=1,satisfaction=0.2"``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from usermirror_gym.configs.plugins import made, resolve
from usermirror_gym.errors import ConfigError
from usermirror_gym.types import FloatArray, IntArray

_NONE = np.zeros(0, np.int64)  # what an outcome made by hand leaves out


class Outcome(NamedTuple):
    """What N users did with their lists of K items, and what they had taken before.

    A row whose session is over took *none of these*; what it is paid is not counted.  The arrays
    are the environment's own: a reward reads them and keeps none.
    """

    slates: IntArray  # (N, K)
    probs: FloatArray  # (N, K + 1), last column = none of these
    choices: IntArray  # (N,) slate position, K = none of these
    ratings: FloatArray  # (N,) simulated rating of the chosen item; NaN without a choice
    items: IntArray = _NONE  # (N,) chosen item id, 0 = none of these
    user_ids: IntArray = _NONE  # (N,)
    turns: IntArray = _NONE  # (N,) lists that were seen in the session before this one
    history: IntArray = _NONE  # (N, H) items taken before, oldest first, padded with 0 on the right
    history_lengths: IntArray = _NONE  # (N,) how many of them are real

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
    """A weighted sum of components, whose raw values are kept for the log.

    Args:
        spec: a component, several with their weights (``"click=1,satisfaction=0.2"``, or a
            mapping), or a function of the :class:`Outcome`.  A component is one of ``REWARDS``, an
            entry point of the group ``usermirror_gym.rewards``, or ``module:name`` of a function.

    Raises:
        UnknownNameError: no such component; suggests the nearest.
        ConfigError: a weight that is no number, or a component that cannot be used.
    """

    def __init__(self, spec: RewardSpec = "click") -> None:
        self.terms: dict[str, tuple[RewardFunction, float]] = {}
        if callable(spec):
            name = getattr(spec, "__name__", "custom")
            self.terms["custom" if name == "<lambda>" else name] = (spec, 1.0)
            return
        for name, weight in reward_weights(spec).items():
            function = resolve("reward", name, REWARDS, "usermirror_gym.rewards")
            if isinstance(function, type):
                function = made(f"reward {name!r}", function, {})
            if not callable(function):
                raise ConfigError(
                    f"reward {name!r} is {function!r}; name a function of an Outcome that gives "
                    "one number per row"
                )
            self.terms[name] = (function, weight)

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


def reward_weights(spec: str | Mapping[str, float]) -> dict[str, float]:
    """Weights by component; a component without ``=`` has the weight 1.

    Raises:
        ConfigError: no component, one twice, or a weight that is no number.
    """
    if not isinstance(spec, (str, Mapping)):
        raise ConfigError(
            "a reward is a name, a mapping of names to weights or a function, got "
            f"{type(spec).__name__}"
        )
    pairs = [part.partition("=") for part in spec.split(",")] if isinstance(spec, str) else []
    terms = [(name.strip(), weight if equals else 1.0) for name, equals, weight in pairs]
    weights: dict[str, float] = {}
    for name, weight in spec.items() if isinstance(spec, Mapping) else terms:
        if name in weights:
            raise ConfigError(f"reward {spec!r} names {name!r} twice; add the weights up")
        try:
            weights[name] = float(weight)
        except (TypeError, ValueError):
            weights[name] = math.nan
        if not math.isfinite(weights[name]):
            raise ConfigError(
                f"reward {spec!r}: the weight of {name!r} must be a number, got {weight!r}"
            )
    if not weights:
        raise ConfigError(f"a reward needs at least one component of {sorted(REWARDS)}")
    return weights
