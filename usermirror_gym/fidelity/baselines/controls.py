"""Users that lack something a real one has: what they reach, no simulator gets credit for.

The learned ones are conditional logits with a constant for *none of these* (McFadden, Conditional
logit analysis of qualitative choice behavior, 1974), fitted on train scenes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy.special import softmax

from usermirror_gym.data import TimeSplit
from usermirror_gym.measures.choice_models import fit_logit
from usermirror_gym.measures.choice_scores import ObservedChoices
from usermirror_gym.scenes import Scene, SceneBatch
from usermirror_gym.simulators.base import ChoiceBatch, UserSimulator, Wrapping
from usermirror_gym.simulators.classic import UniformChooser
from usermirror_gym.types import PAD, BoolArray, FloatArray, IntArray

LIST_ONLY = "list only"
Features = Callable[[IntArray], FloatArray]
"""Padded lists ``(S, K)`` of item ids -> ``(S, K, F)``."""


class HistoryHidden(Wrapping):
    """The same simulator, which is told nothing of the user."""

    def __init__(self, simulator: UserSimulator) -> None:
        self.inner = simulator

    @property
    def name(self) -> str:
        """The name of the simulator and what is hidden from it."""
        return f"{self.inner.name}, {LIST_ONLY}"

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        """See :class:`~usermirror_gym.simulators.UserSimulator`."""
        return self.inner.choose([hide_history(scene) for scene in scenes])


def hide_history(scene: Scene) -> Scene:
    """A scene of nobody: no profile, no history, no earlier lists."""
    return replace(
        scene, user_id=PAD, history=(), ratings=(), ages=(), behaviours=(), turns=()
    )  # fmt: skip


class ListLogit:
    """A conditional logit on features of the options, fitted on scenes whose choice is known.

    Args:
        name: of the control.
        features: of the items; *none of these* has a constant of its own.
        scenes: if *none of these* is never right among them, the control never takes it.
        fitted_on: features of these very scenes, where they must differ.
    """

    def __init__(
        self,
        name: str,
        features: Features,
        scenes: Sequence[Scene],
        *,
        fitted_on: Features | None = None,
    ) -> None:
        choices, slates = ObservedChoices.of(scenes), SceneBatch.of(scenes).slates
        self.name, self._features = name, features
        self._offers_outside = bool((~choices.contains_choice).any())
        values = _with_outside((fitted_on or features)(slates))
        self._score = fit_logit(values, self._offered(slates), choices.targets)

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        """See :class:`~usermirror_gym.simulators.UserSimulator`."""
        slates = SceneBatch.of(scenes).slates
        scores = self._score(_with_outside(self._features(slates)), self._offered(slates))
        return ChoiceBatch(softmax(scores, axis=1))

    def _offered(self, slates: IntArray) -> BoolArray:
        return np.column_stack([slates != PAD, np.full(len(slates), self._offers_outside)])


def position_only(scenes: Sequence[Scene]) -> ListLogit:
    """Knows only where the options stand: a constant per place, and one for the last."""
    places = max(len(scene.slate) for scene in scenes)

    def features(slates: IntArray) -> FloatArray:
        shown = slates != PAD
        place = np.broadcast_to(np.arange(slates.shape[1]), slates.shape)
        last = shown & (place == shown.sum(axis=1, keepdims=True) - 1)
        each = [place == p for p in range(places)]
        return np.stack([*each, last], axis=2).astype(np.float64)

    return ListLogit("position only", features, scenes)


def popularity_only(split: TimeSplit, scenes: Sequence[Scene]) -> ListLogit:
    """Knows only how often the options were taken before T0: ``b * log(1 + count)``.

    A train choice is one of the counted interactions, which an evaluation choice never is; it is
    taken off before the fit.
    """
    counts = split.popularity.astype(np.float64)
    choices = ObservedChoices.of(scenes)
    own = np.zeros(choices.offered.shape)
    own[np.arange(len(choices)), choices.targets] = 1

    def features(slates: IntArray) -> FloatArray:
        return np.log1p(counts[slates])[:, :, None]

    def without_choice(slates: IntArray) -> FloatArray:
        return np.log1p(np.maximum(counts[slates] - own[:, :-1], 0))[:, :, None]

    return ListLogit("popularity only", features, scenes, fitted_on=without_choice)


def list_controls(
    split: TimeSplit | None, train: Sequence[Scene]
) -> dict[str, UserSimulator]:  # fmt: skip
    """The controls that are not the simulator itself, by name.

    Without train scenes there is only the uniform one, and without a split no popularity.
    """
    if not train:
        return {"uniform": UniformChooser()}
    leaves = float((~ObservedChoices.of(train).contains_choice).mean())
    found: dict[str, UserSimulator] = {
        "uniform": UniformChooser(outside=leaves),
        "position only": position_only(train),
    }
    if split is not None:
        found["popularity only"] = popularity_only(split, train)
    return found


def _with_outside(features: FloatArray) -> FloatArray:
    """``(S, K + 1, F + 1)``: a row of zeros for *none of these*, and a column that is its own."""
    padded = np.pad(features, ((0, 0), (0, 1), (0, 1)))
    padded[:, -1, -1] = 1
    return padded
