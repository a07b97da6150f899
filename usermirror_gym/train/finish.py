"""The end of a run: weights, head, calibrated settings and card become a simulator's folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from usermirror_gym.corpus.built import read_build
from usermirror_gym.data import TimeSplit
from usermirror_gym.data.appeal import appeal
from usermirror_gym.engines.adapters import HEAD_WEIGHTS
from usermirror_gym.engines.choosing import load_engine
from usermirror_gym.files import replacing_folder, sha256
from usermirror_gym.progress import Display
from usermirror_gym.simulators import AffinitySimulator, UserSimulator, make_simulator
from usermirror_gym.simulators.affinity.affinity_head import write_head
from usermirror_gym.simulators.checkpoint import write_simulator
from usermirror_gym.simulators.session.blocks import load_reader
from usermirror_gym.train.affinity_head import fit_head, read_states
from usermirror_gym.train.calibrate import Weights, ask, cross_fitted, fitted_settings, scores_of
from usermirror_gym.train.card import write_card
from usermirror_gym.train.config import (
    TRAINED_FILE,
    Affinity,
    Session,
    TrainConfig,
    data_folder,
    stage_folder,
)
from usermirror_gym.train.data import TrainData
from usermirror_gym.train.loop.model import wants_bfloat16, write_weights
from usermirror_gym.train.session.heads import SessionHeads, words_of
from usermirror_gym.types import TIMESTAMP, Float32Array


def write_checkpoint(
    config: TrainConfig,
    folder: Path,
    data: TrainData,
    stages: Sequence[Mapping[str, Any]],
    *,
    display: Display,
) -> Path:
    """Write ``checkpoint/`` under another name, and rename it when it is whole.

    Args:
        folder: of the run, whose stages are finished.
        stages: what each of them did.
    """
    display.say("writing the checkpoint")
    with replacing_folder(folder / "checkpoint") as staging:
        if config.stages:
            last = stage_folder(folder, config, len(config.stages) - 1)
            write_weights(config, last / TRAINED_FILE, staging)
            if config.readout == "options":
                shutil.copyfile(last / HEAD_WEIGHTS, staging / HEAD_WEIGHTS)
        heads = _heads(config, folder, staging, data, display)
        if heads is not None:
            heads.write(data.split)
        scores = _calibrate(config, staging, data, heads, display)
        if heads is not None and heads.settings.refit:
            dataset = data.split.dataset
            whole = TimeSplit(dataset, int(dataset.interactions[TIMESTAMP].max()) + 1)
            heads.write(whole)
            if isinstance(heads, SessionHeads) and heads.learned is not None:
                write_simulator(staging, _settings(config, data, heads.learned))
            heads.simulator(data.split)  # its first answers need not wait for the items
        build = read_build(data_folder(config, folder))
        checksum = sha256(build.folder / "manifest.json")
        write_card(config, staging, stages, scores, build.manifest, checksum)
    return folder / "checkpoint"


class Heads(Protocol):
    """What a run trains beside the weights of its LLM, on more or fewer choices."""

    @property
    def settings(self) -> Affinity | Session: ...

    def write(self, split: TimeSplit) -> None:
        """Train on what was before the cut, and put the result into the simulator's folder."""
        ...

    def simulator(self, split: TimeSplit) -> UserSimulator:
        """The one in the folder, which knows what was read of the items already."""
        ...


def _heads(
    config: TrainConfig, folder: Path, staging: Path, data: TrainData, display: Display
) -> Heads | None:
    """``None`` where there are none.

    Raises:
        ConfigError: data of more than one source.
        EngineError: the model has no such layer.
    """
    if config.affinity is None and config.session is None:
        return None
    asked = data.builder.item_lines(tuple(range(1, data.split.dataset.n_items + 1)))
    engine = None
    checkpoint = config.checkpoint if config.keeps_base else str(staging)
    adapter = str(staging) if config.writes_adapter else None
    if config.session is None or config.session.words == "llm":
        engine = load_engine(checkpoint, "transformers", adapter=adapter)
    place = folder / "states"
    if config.session is not None:
        words = words_of(
            config.session, data.split.dataset, asked, engine, place, seed=config.seed,
            display=display,
        )  # fmt: skip
        scenes = data.scenes_validation
        low = torch.cuda.is_available() and wants_bfloat16(config.precision)
        dtype = "bfloat16" if low else "float32"
        missing = [scene.target == len(scene.slate) for scene in scenes]
        return SessionHeads(
            config.session, folder, staging, words, asked.options, seed=config.seed,
            removed=sum(missing) / max(len(missing), 1), affinity=config.affinity,
            blocks=partial(load_reader, checkpoint, adapter=adapter, dtype=dtype), display=display,
        )  # fmt: skip
    assert config.affinity is not None
    assert engine is not None
    states = read_states(engine, asked, config.affinity, place, display=display)
    lines = config.prompt_config.history_lines
    return AffinityHeads(config.affinity, staging, states, asked.options, lines)


@dataclass(frozen=True)
class AffinityHeads:
    """Affinity heads of a run.

    Attributes:
        folder: the simulator's, with its adapter or weights if they were trained.
        states: ``(n + 1, F)`` of the lines of all items.
        lines: their texts.
        history_lines: lines of the memory that shall count.
    """

    settings: Affinity
    folder: Path
    states: Float32Array
    lines: tuple[str, ...]
    history_lines: int

    def write(self, split: TimeSplit) -> None:
        head = fit_head(self.states, split.before, self.settings, self.history_lines, self.lines)
        write_head(self.folder, head, self.settings.store)

    def simulator(self, split: TimeSplit) -> UserSimulator:
        made = make_simulator(str(self.folder), split)
        assert isinstance(made, AffinitySimulator)
        made.take_states(np.arange(1, len(self.states)), self.states[1:])
        return made


def _calibrate(
    config: TrainConfig, staging: Path, data: TrainData, heads: Heads | None, display: Display
) -> dict[str, Any]:
    """Write ``simulator.yaml`` with fitted weights; the scores of the simulator.

    Where a log's own lists have taught the weights together with all else, nothing is fitted.
    """
    write_simulator(staging, _settings(config, data))

    def uncorrected(split: TimeSplit) -> UserSimulator:
        return make_simulator(str(staging), split) if heads is None else heads.simulator(split)

    own = heads if isinstance(heads, SessionHeads) else None
    more = own.more_scenes(data.split) if own is not None else ()
    asked = ask(config, uncorrected, data, more=more, display=display)
    if own is not None and own.learned is not None:
        weights: Weights = own.learned
        logprobs = asked.logprobs(weights)
    else:
        weights = asked.fit(config.calibration)
        logprobs = cross_fitted(asked, config.calibration, config.seed)
    write_simulator(staging, _settings(config, data, weights))
    scored = np.arange(len(asked)) < len(asked) - len(more)
    names = [source.name for source in data.sources]
    scores = scores_of(asked.rows(scored), logprobs[scored], names)
    return scores | {"folds": config.calibration.folds}


def _settings(
    config: TrainConfig, data: TrainData, weights: Weights | None = None
) -> dict[str, Any]:
    """Of ``simulator.yaml``; without weights those that correct nothing."""
    settings: dict[str, Any] = {
        "readout": config.readout,
        **asdict(config.prompt_config),
        "permutations": config.permutations,
    }
    if config.keeps_base:
        settings["checkpoint"] = config.checkpoint
    if config.affinity is not None or config.session is not None:
        # A head has learned one kind of item, and says nonsense of any other.
        settings["domain"] = data.split.dataset.domain
    if weights is not None:
        return settings | dict(fitted_settings(weights))
    if config.session is not None:
        shown = data.split.dataset.impressions is not None
        appealing = config.session.appeal and not shown
        features = len(appeal(data.split).names) if appealing else 0
        settings["general"] = (1.0,) * (1 + (config.affinity is not None) + features)
    return settings
