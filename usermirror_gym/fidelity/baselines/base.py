"""What a classic baseline is, what it may learn from, and how its settings are chosen."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import ConfigError
from usermirror_gym.fidelity.baselines.printed import PrintedFeatures
from usermirror_gym.measures.choice_models import NestedLogit, fit_nested_logit, forced_log_loss
from usermirror_gym.measures.choice_scores import ObservedChoices
from usermirror_gym.scenes import Scene, SceneBatch
from usermirror_gym.scenes.table import scenes_of
from usermirror_gym.simulators.base import ChoiceBatch
from usermirror_gym.types import PAD, TIMESTAMP, BoolArray, FloatArray

FEWEST = 50
"""Scenes that a fit needs at least."""
Columns = Callable[[SceneBatch], FloatArray]
"""S scenes -> features ``(S, K, F)`` of their options; a scene's do not depend on the others."""
Settings = dict[str, Any]
"""What was chosen, in plain types."""


@dataclass(eq=False)
class ScoredBaseline:
    """A user whose utilities are weighted features of the options.

    Attributes:
        name: how reports call it.
        columns: the features.
        logit: their weights, and when nothing is taken.
        about: how it was fitted: ``settings`` and ``seconds``.
    """

    name: str
    columns: Columns
    logit: NestedLogit
    about: Mapping[str, Any] = field(default_factory=dict)

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        """See :class:`~usermirror_gym.simulators.UserSimulator`."""
        batch = SceneBatch.of(scenes)
        if not len(batch):
            return ChoiceBatch(np.zeros((0, batch.slate_size + 1)))
        return ChoiceBatch(self.logit.probs(self.columns(batch), batch.slates != PAD))

    def utilities(self, scenes: Sequence[Scene]) -> FloatArray:
        """``(S, K)``, of mean 0 over each list; 0 where there is no option."""
        batch = SceneBatch.of(scenes)
        return centred(self.logit.utilities(self.columns(batch)), batch.slates != PAD)


def centred(values: FloatArray, mask: BoolArray) -> FloatArray:
    """``(S, K)`` minus their mean over each list; 0 where there is no option."""
    shown = np.where(mask, values, 0.0)
    mean = shown.sum(axis=1, keepdims=True) / np.maximum(mask.sum(axis=1, keepdims=True), 1)
    return np.where(mask, shown - mean, 0.0)


@dataclass(frozen=True)
class Past:
    """What is known at a moment.

    Attributes:
        split: the data cut there; only ``split.before`` may be read.
        choices: scenes before it.
        seed: of whatever draws.
    """

    split: TimeSplit
    choices: ObservedChoices
    seed: int

    @cached_property
    def printed(self) -> PrintedFeatures:
        """What scenes print, counted before the cut."""
        return PrintedFeatures(self.split)

    @cached_property
    def printed_values(self) -> FloatArray:
        """``(S, K, F)`` the printed features of ``choices``."""
        return self.printed.columns(self.choices.batch)


@dataclass(frozen=True)
class Stages:
    """The two moments of a fit.

    What is trained before ``inner`` answers the scenes of ``calibration``, none of which it has
    seen: they choose settings, scales and the outside utility.  Then everything is trained again
    on ``outer``, with what was chosen.
    """

    inner: Past
    calibration: ObservedChoices
    outer: Past

    @classmethod
    def of(
        cls,
        split: TimeSplit,
        train: pa.Table,
        validation: pa.Table,
        *,
        share: float = 0.3,
        seed: int = 0,
    ) -> Self:
        """Cut the scenes before T0.

        Args:
            train, validation: scenes tables; one of them may be empty.
            share: of the train scenes that are kept for calibration, the last ones.

        Raises:
            ConfigError: scenes at or after T0, or too few of them before the inner cut or after.
        """
        if not 0 < share < 1:
            raise ConfigError(f"share must be between 0 and 1, got {share!r}")
        table = pa.concat_tables([train, validation])
        made = table[TIMESTAMP].to_numpy().astype(np.int64)
        if late := int((made >= split.t0).sum()):
            raise ConfigError(
                f"{late} of {len(table)} scenes to learn from are not before T0 = {split.t0}: "
                "give train and validation scenes of the same split"
            )
        if len(table) < 2 * FEWEST:
            raise ConfigError(
                f"classic choosers need at least {2 * FEWEST} scenes before T0 to learn from, got "
                f"{len(table)}: build more train or validation scenes"
            )
        times = np.sort(train[TIMESTAMP].to_numpy() if len(train) else made)
        cut = int(times[min(int(len(times) * (1 - share)), len(times) - 1)])
        early = made < cut
        if min(early.sum(), (~early).sum()) < FEWEST:
            raise ConfigError(
                f"{int(early.sum())} scenes lie before the inner cut and {int((~early).sum())} "
                f"after it, both must be at least {FEWEST}: build more train scenes, or change "
                "share"
            )
        choices = replace(ObservedChoices.of(scenes_of(table)), times=made)
        inner = Past(TimeSplit(split.dataset, cut), choices.select(early), seed)
        return cls(inner, choices.select(~early), Past(split, choices, seed))


@dataclass(frozen=True)
class Trial:
    """Settings that were tried, and what came of them.

        Attributes:
            settings: which.
            logit: weights of the features under these settings.
            loss: forced log-loss on the calibration scenes.
            utilities: ``(S, K)`` of the calibration scenes, see
    :meth:`ScoredBaseline.utilities`.
        seconds: that were spent on the choice of the settings.
    """

    settings: Settings
    logit: NestedLogit
    loss: float
    utilities: FloatArray
    seconds: float = 0.0


def judge(settings: Settings, values: FloatArray, choices: ObservedChoices) -> Trial:
    """A trial of features ``(S, K, F)`` of the calibration scenes."""
    logit = fit_nested_logit(values, choices.shown, choices.targets)
    utilities = centred(logit.utilities(values), choices.shown)
    loss = forced_log_loss(utilities, choices.shown, choices.targets)
    return Trial(settings, logit, loss, utilities)


def best(trials: Iterable[Trial]) -> Trial:
    """The trial with the lowest loss; of equal ones the first."""
    return min(trials, key=lambda trial: trial.loss)


def descend(grid: Mapping[str, Sequence[Any]], attempt: Callable[[Settings], Trial]) -> Trial:
    """One setting after the other, each with the best values found so far for the others.

    Args:
        grid: values by name; the first is where the others start from.
        attempt: tries settings that have a value for every name.
    """
    start = {name: values[0] for name, values in grid.items()}
    found = attempt(start)
    for name, values in grid.items():
        base = {key: found.settings[key] for key in grid}
        found = best([found, *(attempt({**base, name: v}) for v in values if v != base[name])])
    return found


class Baseline(ABC):
    """One kind of baseline: how it is settled on calibration scenes, and then built."""

    def describe(self) -> dict[str, Any]:
        """What is tried, in JSON types: a fit that was kept is of use under equal ones only."""
        found = {"kind": type(self).__name__, **vars(self)}
        plain: dict[str, Any] = json.loads(json.dumps(found, default=lambda f: f.__name__))
        return plain

    @abstractmethod
    def settle(self, stages: Stages) -> Trial:
        """The settings that foretell the calibration scenes best, fitted before them."""

    @abstractmethod
    def build(self, past: Past, settings: Settings, store: Path | None) -> Columns:
        """The features under these settings, fitted on all of ``past``.

        Args:
            store: folder in which a fit that takes long is kept, or found.
        """
