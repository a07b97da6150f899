"""Users whose choices can be computed, for tests of distillations and monitors."""

from __future__ import annotations

import numpy as np

from usermirror_gym.scenes.scene import SceneBatch
from usermirror_gym.simulators.base import ChoiceBatch


class Teacher:
    """Odd users like the first items more, even users the last ones; repetition bores everybody.

    Args:
        reverse: the tastes the other way round.
        killed_after: calls, after which it is interrupted.
    """

    name = "teacher"

    def __init__(self, *, reverse: bool = False, killed_after: int | None = None) -> None:
        self.reverse, self.killed_after = reverse, killed_after
        self.asked = 0

    def choose(self, scenes):
        if self.killed_after is not None:
            self.killed_after -= 1
            if self.killed_after < 0:
                raise KeyboardInterrupt
        batch = SceneBatch.of(scenes)
        self.asked += len(batch)
        odd = (batch.user_ids % 2 == 1) != self.reverse
        place = batch.slates / 40.0
        liking = np.where(odd[:, None], 1.0 - place, place)
        weights = np.where(batch.slates > 0, np.exp(4.0 * liking - 2.0), 0.0)
        bored = np.exp(0.3 * np.asarray(batch.turn_counts, np.float64))
        weights = np.column_stack([weights, bored])
        return ChoiceBatch(weights / weights.sum(axis=1, keepdims=True))
