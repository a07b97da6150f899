"""Users without an LLM: the yardsticks, and fast stand-ins while you build."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from usermirror_gym.configs.session import SLATE_SIZE
from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import ConfigError
from usermirror_gym.scenes.scene import Scene, SceneBatch
from usermirror_gym.simulators.base import ChoiceBatch
from usermirror_gym.types import PAD


class UniformChooser:
    """Takes *none of these* with probability ``outside``, else any item of the list alike."""

    name = "uniform"

    def __init__(self, outside: float = 0.5) -> None:
        self.outside = _share(outside)

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        shown = SceneBatch.of(scenes).slates != PAD
        shares = shown / np.maximum(shown.sum(1, keepdims=True), 1) * (1 - self.outside)
        return ChoiceBatch(np.column_stack([shares, 1 - shares.sum(1)]))


class PopularityChooser:
    """Conditional logit on ``log(1 + interactions before T0)`` (McFadden, 1974).

    Args:
        split: where popularity is counted.
        outside_quantile: *none of these* is as attractive as the item at this quantile of the
            catalogue's popularity, weighted by ``slate_size`` such items: at the default, a list
            of five items at the 90th percentile earns a click half of the time.
        slate_size: list length to which that statement refers.
    """

    name = "popularity"

    def __init__(
        self, split: TimeSplit, *, outside_quantile: float = 0.9, slate_size: int = SLATE_SIZE
    ) -> None:
        self.weights = 1.0 + split.popularity  # exp of the utility
        self.weights[PAD] = 0.0
        level = np.quantile(self.weights[1:], _share(outside_quantile))
        self.outside = float(slate_size * level)

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        weights = self.weights[SceneBatch.of(scenes).slates]
        mass = np.concatenate([weights, np.full((len(weights), 1), self.outside)], axis=1)
        return ChoiceBatch(mass / mass.sum(1, keepdims=True))


def _share(value: float) -> float:
    if not 0 <= value <= 1:
        raise ConfigError(f"a share must be between 0 and 1, got {value!r}")
    return value
