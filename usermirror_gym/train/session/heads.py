"""From a run's data to the session readout in a simulator's folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from usermirror_gym.configs.session import SLATE_SIZE
from usermirror_gym.data import RecDataset, TimeSplit
from usermirror_gym.engines.base import Engine
from usermirror_gym.errors import ConfigError
from usermirror_gym.progress import Display
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.simulators import SessionSimulator, UserSimulator, make_simulator
from usermirror_gym.simulators.affinity.affinity_head import LineMemory, line_digests
from usermirror_gym.simulators.readouts.utility import SessionWeights
from usermirror_gym.simulators.session.blocks import BlockReader
from usermirror_gym.simulators.session.session_head import (
    Follow,
    LineMap,
    SessionHead,
    write_session,
)
from usermirror_gym.simulators.session.session_net import SessionShape
from usermirror_gym.simulators.session.trained_blocks import BlockShape
from usermirror_gym.simulators.surrogate.profile_codes import profile_codes, profile_features
from usermirror_gym.train.affinity_head import fit_head, read_states
from usermirror_gym.train.config import Affinity, Session
from usermirror_gym.train.session.fit import Student, fit_student, n_steps, opener_scenes
from usermirror_gym.types import TITLE, TOKEN, Float32Array, FloatArray, Prompt

_DRAWS = 6
"""Lists of every opener that the calibration sees."""
_NOTHING = 1e-6
"""Directions of the states this much smaller than the largest are rounding."""


@dataclass(frozen=True)
class Words:
    """What items are known by: ``(n + 1, e)`` of unit variance, and how it follows from states.

    ``None``: by nothing; the closed form, which needs something, has noise then.
    """

    values: Float32Array | None
    states: Float32Array  # (n + 1, F) that the closed form reads
    mean: FloatArray | None = None  # (F,)
    space: FloatArray | None = None  # (F, e)

    @classmethod
    def of_states(cls, states: Float32Array, parts: int, components: int) -> Words:
        """Principal components, each part of the states weighing alike, all of unit variance.

        Args:
            states: ``(n + 1, F)``; row 0 is not read.

        Raises:
            ConfigError: all items read alike.
        """
        real = states[1:].astype(np.float64)
        mean = real.mean(axis=0)
        centred = real - mean
        blocks = centred.reshape(len(real), parts, -1)
        scale = np.sqrt((blocks**2).sum(axis=2).mean(axis=0))
        if not scale.all():
            raise ConfigError("all items read alike: their words tell them apart by nothing")
        per_number = np.repeat(scale, blocks.shape[2])
        _, size, right = np.linalg.svd(centred / per_number, full_matrices=False)
        kept = right[: min(components, int((size > _NOTHING * size[0]).sum()))]
        # A vector and its opposite are the same direction: the same one every time.
        kept = kept * np.sign(kept[np.arange(len(kept)), np.abs(kept).argmax(axis=1)])[:, None]
        spread = size[: len(kept)] / np.sqrt(len(real))
        space = kept.T / per_number[:, None] / spread
        return cls(_padded_rows(centred @ space), states, mean, space)


def words_of(
    settings: Session, dataset: RecDataset, asked: Prompt, engine: Engine | None, folder: Path,
    *, seed: int, display: Display,
) -> Words:  # fmt: skip
    """What the settings say that items are known by.

    Args:
        asked: the items' lines, see ``PromptBuilder.item_lines``.
        engine: reads them, if they are read.
        folder: keeps what was read.
        seed: of noise.
    """
    if settings.words == "llm":
        assert engine is not None
        states = read_states(engine, asked, settings, folder, display=display)
        return Words.of_states(states, len(settings.parts), settings.components)
    if settings.words == "metadata":
        values = _padded_rows(metadata(dataset))
        return Words(values, values)
    rng = np.random.default_rng([seed, 11])
    noise = _padded_rows(rng.normal(size=(dataset.n_items, settings.components)))
    return Words(noise if settings.words == "noise" else None, noise)


def metadata(dataset: RecDataset) -> FloatArray:
    """``(n, e)`` categories and numbers of the catalogue, each column of unit variance.

    Of a text column the parts between commas that at least two items have; of a title its year.
    """
    columns = []
    for name in dataset.items.columns.difference([TOKEN], sort=False):
        column = dataset.items[name]
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            columns.append(column.to_numpy(np.float64, na_value=np.nan)[:, None])
            continue
        texts = column.astype("string").fillna("")
        if name == TITLE:
            years = pd.to_numeric(texts.str.extract(r"\((\d{4})\)\s*$")[0], errors="coerce")
            decades = pd.get_dummies(years // 10).to_numpy(np.float64)
            columns += [years.to_numpy(np.float64)[:, None], decades]
            continue
        words = texts.str.lower().str.get_dummies(sep=", ")
        shared = words.sum(axis=0)
        columns.append(words.loc[:, (shared > 1) & (shared < len(words))].to_numpy(np.float64))
    values = np.concatenate([np.zeros((dataset.n_items, 1)), *columns], axis=1)
    values = values[:, np.isfinite(values).any(axis=0)]
    values = np.where(np.isnan(values), np.nanmean(values, axis=0), values)
    spread = values.std(axis=0)
    return (values - values.mean(axis=0))[:, spread > 0] / spread[spread > 0]


class SessionHeads:
    """Session readouts of a run, trained on more or fewer choices.

    Args:
        staging: the simulator's folder.
        words: what items are known by.
        lines: of all items, in order.
        removed: share of the build's lists from which the true item is missing.
        affinity: of what is followed by what, in closed form; ``None`` leaves it out.
        blocks: ``load_reader`` of the run's LLM, for settings that ask for its blocks.

    Attributes:
        learned: how much the numbers of what was written last count, if the log's own lists say it.
    """

    def __init__(
        self,
        settings: Session,
        folder: Path,
        staging: Path,
        words: Words,
        lines: tuple[str, ...],
        *,
        removed: float,
        seed: int,
        affinity: Affinity | None = None,
        blocks: Callable[..., BlockReader] | None = None,
        display: Display,
    ) -> None:
        self.learned: SessionWeights | None = None
        self._load_blocks = blocks
        # Whatever stands for the words, stands for them here too.
        parts = settings.parts if words.space is not None else ((0, "mean"),)
        self._affinity = affinity and affinity.model_copy(update={"parts": parts})
        self._removed = removed
        self.settings, self._folder, self._staging = settings, folder, staging
        self._words, self._lines, self._seed, self._display = words, lines, seed, display

    def write(self, split: TimeSplit) -> None:
        """Train on what was before the cut, and put the readout into the simulator's folder."""
        settings, dataset = self.settings, split.dataset
        features = profile_features(dataset.users) if settings.profile else ()
        shape = SessionShape(
            settings.dim, settings.tastes, settings.lines, sum(f.size for f in features)
        )
        total = n_steps(settings, split)
        with self._display.phase("session", total, "step") as advance:
            student = fit_student(
                split, profile_codes(features, dataset.users), self._words.values, shape, settings,
                seed=self._seed, blocks=self._blocks(),
                state=self._folder / f"session-{split.t0}.safetensors", progress=advance,
            )  # fmt: skip
        write_session(self._staging, self._head(student, split, features), settings.store)
        learned = student.weights(split)
        if learned is not None and self._affinity is not None:
            # The lists were learned without what follows what.
            learned = replace(learned, general=(*learned.general, 0.0))
        self.learned = learned

    def _blocks(self) -> BlockReader | None:
        """As they are before training."""
        own = self.settings.blocks
        if own is None:
            return None
        assert self._load_blocks is not None
        shape = BlockShape(
            self.settings.dim, own.layers, own.tune, own.start, own.rank, own.lines, self._seed
        )
        return self._load_blocks(shape, dropout=self.settings.dropout)

    def more_scenes(self, split: TimeSplit) -> list[Scene]:
        """What the calibration sees beside the validation scenes of the build; nothing where the
        log has lists of its own."""
        if split.dataset.impressions is not None:
            return []
        return opener_scenes(
            split, removed=self._removed, slate_size=SLATE_SIZE, draws=_DRAWS, seed=self._seed
        )

    def simulator(self, split: TimeSplit) -> UserSimulator:
        """The one in the folder."""
        made = make_simulator(str(self._staging), split)
        assert isinstance(made, SessionSimulator)
        return made

    def _head(self, student: Student, split: TimeSplit, features: tuple) -> SessionHead:
        with torch.no_grad():
            past, option, bias = (table.numpy() for table in student.tables())
        # Of items that read alike the best known speaks for all.
        order = np.argsort(-split.popularity[1:], kind="stable")
        known = LineMemory.of(
            [self._lines[i] for i in order], *(table[1:][order] for table in (past, option, bias))
        )
        found = self._words
        follow = self._followed(split, known)
        blocks = None if student.blocks is None else student.blocks.trained()
        if found.space is None:
            return SessionHead(student.net, known, None, features, follow, blocks)
        assert found.mean is not None
        with torch.no_grad():
            maps = [w.numpy().astype(np.float64) for w in
                    (student.words_past, student.words_option, student.words_bias)]  # fmt: skip
        mapped = [(found.space @ weights).astype(np.float32) for weights in maps]
        words = LineMap(self.settings.parts, found.mean.astype(np.float32), *mapped)
        return SessionHead(student.net, known, words, features, follow, blocks)

    def _followed(self, split: TimeSplit, known: LineMemory) -> Follow | None:
        if self._affinity is None:
            return None
        settings = self._affinity
        head = fit_head(
            self._words.states, split.before, settings, self.settings.follow_lines, self._lines
        )
        vectors = head.vectors(self._words.states[1:], self._lines)
        rows = np.searchsorted(known.digests, line_digests(self._lines))
        history, option = (np.zeros((len(known.digests), head.d), np.float32) for _ in range(2))
        # Backwards: of items that read alike the first one's vectors stay.
        history[rows[::-1]], option[rows[::-1]] = vectors.history[::-1], vectors.option[::-1]
        return Follow(history, option, head.lags, head.floor)


def _padded_rows(values: FloatArray) -> Float32Array:
    return np.concatenate([np.zeros((1, values.shape[1])), values]).astype(np.float32)
