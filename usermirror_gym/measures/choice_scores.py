"""How well probabilities over the options of a list foretell what the real user chose.

S scenes are padded to the longest list, K.  Every scene is scored in two ways:

*forced*: the probabilities of the items alone, divided by their sum.  The real user did choose an
item, so this is defined where the list holds it; other rows are NaN.
*outside*: all K + 1 options; where the true item was removed, *none of these* is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from usermirror_gym.errors import SceneError
from usermirror_gym.scenes import Scene, SceneBatch
from usermirror_gym.types import BoolArray, FloatArray, IntArray

METRICS = ("accuracy", "expected_accuracy", "log_loss", "brier")
"""Columns of the scores."""
FLOOR = 1e-12
"""Smallest probability that enters a log-loss: a miss costs at most 27.6 nats."""
TIE = 1e-12
"""Probabilities that differ by less are equal."""


@dataclass(frozen=True)
class ObservedChoices:
    """What the real users of S scenes chose.

    Attributes:
        users: ``(S,)`` user ids.
        shown: ``(S, K)`` where the padded lists have an item.
        targets: ``(S,)`` position of the choice; K is *none of these*.
        scenes: the S scenes, where they are at hand.
        times: ``(S,)`` seconds, when the choice was made, where that is known.
    """

    users: IntArray
    shown: BoolArray
    targets: IntArray
    scenes: Sequence[Scene] = ()
    times: IntArray | None = None

    @classmethod
    def of(cls, scenes: Sequence[Scene]) -> ObservedChoices:
        """Raise SceneError for a scene whose choice nobody knows."""
        unknown = [scene.name for scene in scenes if scene.target is None]
        if unknown:
            raise SceneError(
                f"{len(unknown)} scenes have no target, the first is {unknown[0]}; only scenes "
                "whose choice is known can be scored"
            )
        sizes = np.array([len(scene.slate) for scene in scenes], np.int64)
        targets = np.array([scene.target for scene in scenes], np.int64)
        width = int(sizes.max(initial=0))
        return cls(
            users=np.array([scene.user_id for scene in scenes], np.int64),
            shown=np.arange(width) < sizes[:, None],
            targets=np.where(targets == sizes, width, targets),
            scenes=scenes,
        )

    @property
    def contains_choice(self) -> BoolArray:
        """``(S,)`` whether the list contains what was chosen."""
        return self.targets < self.shown.shape[1]

    @property
    def offered(self) -> BoolArray:
        """``(S, K + 1)`` all options: the items and *none of these*."""
        return np.column_stack([self.shown, np.ones(len(self.shown), np.bool_)])

    @cached_property
    def batch(self) -> SceneBatch:
        """The scenes as arrays."""
        return SceneBatch.of(self.scenes)

    def select(self, rows: IntArray | BoolArray) -> ObservedChoices:
        """Some of the scenes."""
        scenes = self.batch.select(rows) if self.scenes else ()
        times = None if self.times is None else self.times[rows]
        users, shown, targets = self.users[rows], self.shown[rows], self.targets[rows]
        return ObservedChoices(users, shown, targets, scenes, times)

    def __len__(self) -> int:
        return len(self.targets)


def forced(probs: FloatArray, shown: BoolArray) -> FloatArray:
    """``(S, K)`` probabilities of the items given that one of them is chosen.

    Args:
        probs: ``(S, K + 1)``, the last column *none of these*.
        shown: ``(S, K)``.  Where no item has any probability, all are alike.
    """
    items = np.where(shown, probs[:, :-1], 0.0)
    items = np.where(items.sum(axis=1, keepdims=True) > 0, items, shown)
    return items / items.sum(axis=1, keepdims=True)


def scores_given_click(probs: FloatArray, choices: ObservedChoices) -> FloatArray:
    """``(S, 4)`` :data:`METRICS` among the items; NaN where the true item is not in the list."""
    scores = np.full((len(choices), len(METRICS)), np.nan)
    rows = choices.contains_choice
    shown = choices.shown[rows]
    scores[rows] = score_rows(forced(probs[rows], shown), shown, choices.targets[rows])
    return scores


def outside_scores(probs: FloatArray, choices: ObservedChoices) -> FloatArray:
    """``(S, 4)`` :data:`METRICS` among all options, *none of these* included."""
    return score_rows(probs, choices.offered, choices.targets)


def score_rows(probs: FloatArray, offered: BoolArray, targets: IntArray) -> FloatArray:
    """:data:`METRICS` of S distributions over W options, ``(S, 4)``.

    accuracy: the share of the likeliest options that is the target (1 or 0 without ties).
    expected_accuracy: the probability of the target.
    log_loss: minus its natural logarithm, see :data:`FLOOR`.
    brier: squared distance from the certain answer, 0 to 2 (Brier, Verification of forecasts
    expressed in terms of probability, 1950).
    """
    rows = np.arange(len(targets))
    right = probs[rows, targets]
    best = likeliest(probs, offered)
    return np.column_stack([
        best[rows, targets],
        right,
        -np.log(np.maximum(right, FLOOR)),
        (probs**2).sum(axis=1) - 2 * right + 1,
    ])  # fmt: skip


def likeliest(probs: FloatArray, offered: BoolArray) -> FloatArray:
    """``(S, W)`` 1 for the likeliest option; several share the 1."""
    ranked = np.where(offered, probs, -np.inf)
    best = ranked >= ranked.max(axis=1, keepdims=True) - TIE
    return best / best.sum(axis=1, keepdims=True)
