"""What a chooser may learn from: the log before a moment, and the scenes before it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import pyarrow as pa

from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import ConfigError
from usermirror_gym.fidelity.baselines.printed import PrintedFeatures
from usermirror_gym.scenes import SceneBatch
from usermirror_gym.scenes.table import scenes_of
from usermirror_gym.types import PAD, TIMESTAMP, BoolArray, FloatArray, IntArray

FEWEST = 50
"""Scenes that a fit needs at least."""


@dataclass(frozen=True)
class Choices:
    """S scenes whose choice is known.

    Attributes:
        batch: the scenes.
        targets: ``(S,)`` the chosen column of ``batch.slates``; K is *none of these*.
        times: ``(S,)`` seconds, when the choice was made.
    """

    batch: SceneBatch
    targets: IntArray
    times: IntArray

    @classmethod
    def of(cls, table: pa.Table) -> Self:
        """Read a scenes table (:data:`usermirror_gym.scenes.table.SCHEMA`)."""
        batch = SceneBatch.of(scenes_of(table))
        targets = table["target"].to_numpy().astype(np.int64)
        sizes = (batch.slates != PAD).sum(axis=1)
        targets = np.where(targets == sizes, batch.slate_size, targets)
        return cls(batch, targets, table[TIMESTAMP].to_numpy().astype(np.int64))

    @property
    def mask(self) -> BoolArray:
        """``(S, K)`` where there is an option."""
        return self.batch.slates != PAD

    @property
    def held(self) -> BoolArray:
        """``(S,)`` whether the list holds the choice."""
        return self.targets < self.batch.slate_size

    def select(self, rows: IntArray | BoolArray) -> Self:
        """Some of the scenes."""
        return type(self)(self.batch.select(rows), self.targets[rows], self.times[rows])

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Past:
    """What is known at a moment.

    Attributes:
        split: the data cut there; only ``split.before`` may be read.
        choices: scenes before it.
        seed: of whatever draws.
    """

    split: TimeSplit
    choices: Choices
    seed: int

    @cached_property
    def popularity(self) -> IntArray:
        """Interactions before the cut by item id."""
        return self.split.popularity

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
    calibration: Choices
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
        choices = Choices.of(table) if len(table) else None
        late = 0 if choices is None else int((choices.times >= split.t0).sum())
        if late:
            raise ConfigError(
                f"{late} of {len(table)} scenes to learn from are not before T0 = {split.t0}: "
                "give train and validation scenes of the same split"
            )
        if choices is None or len(choices) < 2 * FEWEST:
            raise ConfigError(
                f"classic choosers need at least {2 * FEWEST} scenes before T0 to learn from, got "
                f"{len(table)}: build more train or validation scenes"
            )
        times = np.sort(train[TIMESTAMP].to_numpy() if len(train) else choices.times)
        cut = int(times[min(int(len(times) * (1 - share)), len(times) - 1)])
        early = choices.times < cut
        if min(early.sum(), (~early).sum()) < FEWEST:
            raise ConfigError(
                f"{int(early.sum())} scenes lie before the inner cut and {int((~early).sum())} "
                f"after it, both must be at least {FEWEST}: build more train scenes, or change "
                "share"
            )
        inner = Past(TimeSplit(split.dataset, cut), choices.select(early), seed)
        return cls(inner, choices.select(~early), Past(split, choices, seed))
