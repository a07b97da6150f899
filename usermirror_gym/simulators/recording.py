"""What a simulator is asked: a fair sample of its scenes while an agent trains or plays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from usermirror_gym.errors import ConfigError
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.simulators.base import ChoiceBatch, UserSimulator, Wrapping
from usermirror_gym.types import FloatArray


class RecordingSimulator(Wrapping):
    """Another simulator, which keeps ``capacity`` of all scenes that it is asked about, each with
    equal probability.

    Every scene draws a number, and those with the smallest are kept: a reservoir (Vitter, Random
    sampling with a reservoir, ACM TOMS 11(1), 1985) whose sample depends on the seed and on the
    order of the scenes alone, not on how they were cut into batches.

    Args:
        inner: answers.
        capacity: how many are kept, at least 1.
        seed: of the numbers.
    """

    def __init__(self, inner: UserSimulator, capacity: int, seed: int = 0) -> None:
        if capacity < 1:
            raise ConfigError(f"capacity must be at least 1, got {capacity}")
        self.inner, self.capacity, self.seed = inner, capacity, seed
        self.clear()

    def __len__(self) -> int:
        return len(self._scenes)

    def clear(self) -> None:
        """Forget all scenes; the next ones are sampled as the first ones were."""
        self._rng = np.random.default_rng(self.seed)
        self._scenes: list[Scene] = []
        self._numbers: FloatArray = np.empty(0)
        self.seen = 0

    def _observe(self, scenes: Sequence[Scene]) -> None:
        """Those that are kept are copied."""
        drawn = self._rng.random(len(scenes))
        self.seen += len(scenes)
        full = len(self._scenes) == self.capacity
        rows = np.flatnonzero(drawn < self._numbers.max()) if full else np.arange(len(scenes))
        if len(rows) == 0:
            return
        numbers = np.concatenate([self._numbers, drawn[rows]])
        kept = np.sort(np.argsort(numbers, kind="stable")[: self.capacity])
        old = len(self._scenes)
        self._scenes = [self._scenes[i] if i < old else scenes[rows[i - old]] for i in kept]
        self._numbers = numbers[kept]

    def scenes(self) -> list[Scene]:
        """Those that are kept, oldest first."""
        return list(self._scenes)

    @property
    def name(self) -> str:
        return self.inner.name

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        answer = self.inner.choose(scenes)
        self._observe(scenes)
        return answer
