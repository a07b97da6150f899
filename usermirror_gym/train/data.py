"""What a run learns from.  Nothing from T0 on can be read through it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from usermirror_gym.corpus.built import Build, BuiltSource, read_build
from usermirror_gym.data import RecDataset, TimeSplit
from usermirror_gym.data.dataset import Impressions
from usermirror_gym.errors import ConfigError, RunError
from usermirror_gym.files import read_jsonl
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.scenes.table import scenes_of
from usermirror_gym.scenes.words.prompt import PromptBuilder, PromptConfig
from usermirror_gym.scenes.words.template import domain_text
from usermirror_gym.types import TIMESTAMP


@dataclass(frozen=True)
class TrainSource:
    """One data set, cut twice: training | validation | (not here).

    Attributes:
        name: of the source within its build.
        split: ``before`` is for training, ``after`` for validation; ``t0`` is the validation time,
            and the data set holds nothing from the real T0 on.
        builder: words the prompts.
        scenes_train: choices before the validation time.
        scenes_validation: choices between the validation time and T0.
    """

    name: str
    split: TimeSplit
    builder: PromptBuilder
    scenes_train: list[Scene]
    scenes_validation: list[Scene]


@dataclass(frozen=True)
class TrainData:
    """All that a run may see.

    Attributes:
        sources: the data sets.
        rationales: rows ``{"prompt", "completion", ...}`` of the build, if it has any.
        preferences: rows ``{"prompt", "chosen", "rejected", ...}``, if it has any.
    """

    sources: tuple[TrainSource, ...]
    rationales: list[Mapping[str, Any]] = field(default_factory=list)
    preferences: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def split(self) -> TimeSplit:
        """Of the only source."""
        return self._only.split

    @property
    def builder(self) -> PromptBuilder:
        """Of the only source."""
        return self._only.builder

    @cached_property
    def scenes_validation(self) -> list[Scene]:
        """Of all sources."""
        return [scene for source in self.sources for scene in source.scenes_validation]

    @property
    def _only(self) -> TrainSource:
        if len(self.sources) != 1:
            names = ", ".join(source.name for source in self.sources)
            raise ConfigError(f"this needs data of one source, and there are {names}")
        return self.sources[0]


def read_train_data(folder: str | Path, prompt: PromptConfig) -> TrainData:
    """What a finished build holds for training.

    Raises:
        RunError: no finished build there, or its files changed since; build the data again.
    """
    build = read_build(folder)
    if changed := build.changed_files():
        raise RunError(
            f"{folder}: {len(changed)} files are not what the manifest says ({changed[0]} ...); "
            "build the data again"
        )
    return TrainData(
        sources=tuple(_source(source, prompt) for source in build.sources),
        rationales=_rows(build, "rationales"),
        preferences=_rows(build, "preferences"),
    )


def until(dataset: RecDataset, t0: int) -> RecDataset:
    """The data set without what happened at ``t0`` or later; ids stay."""
    events, lists = dataset.interactions, dataset.impressions
    if lists is not None:
        count = int(np.searchsorted(lists.timestamps, t0))  # they are ordered by time
        stop = lists.offsets[count]
        lists = Impressions(
            lists.names[:count],
            lists.user_ids[:count],
            lists.timestamps[:count],
            lists.offsets[: count + 1],
            lists.items[:stop],
            lists.clicked[:stop],
        )
    events = events[events[TIMESTAMP] < t0].reset_index(drop=True)
    return replace(dataset, interactions=events, impressions=lists)


def _source(source: BuiltSource, prompt: PromptConfig) -> TrainSource:
    split = TimeSplit(until(source.dataset, source.t0), source.t_validation)
    return TrainSource(
        name=source.name,
        split=split,
        builder=PromptBuilder(domain_text(split.dataset), prompt),
        scenes_train=scenes_of(source.scenes("train")),
        scenes_validation=scenes_of(source.scenes("validation")),
    )


def _rows(build: Build, name: str) -> list[Mapping[str, Any]]:
    path = build.folder / "train" / f"{name}.jsonl"
    return read_jsonl(path) if path.is_file() else []
