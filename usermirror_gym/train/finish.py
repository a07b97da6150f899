"""The end of a run: weights, head, calibrated settings and card become a simulator's folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from usermirror_gym.corpus.built import read_build
from usermirror_gym.data import TimeSplit
from usermirror_gym.engines.adapters import HEAD_WEIGHTS
from usermirror_gym.engines.choosing import load_engine
from usermirror_gym.files import replacing_folder, sha256
from usermirror_gym.progress import Display
from usermirror_gym.simulators import AffinitySimulator, UserSimulator, make_simulator
from usermirror_gym.simulators.affinity.affinity_head import write_head
from usermirror_gym.simulators.checkpoint import write_simulator
from usermirror_gym.train.affinity_head import fit_head, read_states
from usermirror_gym.train.calibrate import ask, cross_fitted, fitted_settings, scores_of
from usermirror_gym.train.card import write_card
from usermirror_gym.train.config import TRAINED_FILE, TrainConfig, data_folder, stage_folder
from usermirror_gym.train.data import TrainData
from usermirror_gym.train.loop.model import write_weights


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
        heads = None if config.affinity is None else Heads(config, folder, staging, data, display)
        if heads is not None:
            heads.write(data.split.before)
        scores = _calibrate(config, staging, data, heads, display)
        if heads is not None and heads.settings.refit:
            heads.write(data.split.dataset.interactions)
            heads.simulator(data.split)  # its first answers need not wait for the items
        build = read_build(data_folder(config, folder))
        checksum = sha256(build.folder / "manifest.json")
        write_card(config, staging, stages, scores, build.manifest, checksum)
    return folder / "checkpoint"


class Heads:
    """Affinity heads of a run, fitted on more or fewer choices.

    Args:
        staging: the simulator's folder, with its adapter or weights if they were trained.

    Raises:
        ConfigError: data of more than one source.
        EngineError: the model has no such layer.
    """

    def __init__(
        self, config: TrainConfig, folder: Path, staging: Path, data: TrainData, display: Display
    ) -> None:
        assert config.affinity is not None
        self.settings, self._folder = config.affinity, staging
        self._history_lines = config.prompt_config.history_lines
        n_items = data.split.dataset.n_items
        asked = data.builder.item_lines(tuple(range(1, n_items + 1)))
        self._lines = asked.options
        checkpoint = config.checkpoint if config.keeps_base else str(staging)
        adapter = {"adapter": str(staging)} if config.writes_adapter else {}
        engine = load_engine(checkpoint, "transformers", **adapter)
        self._states = read_states(engine, asked, self.settings, folder / "states", display=display)

    def write(self, events: pd.DataFrame) -> None:
        """Fit a head on these choices and put it into the simulator's folder."""
        head = fit_head(self._states, events, self.settings, self._history_lines, self._lines)
        write_head(self._folder, head, self.settings.store)

    def simulator(self, split: TimeSplit) -> UserSimulator:
        """The one in the folder, which knows what was read of the items already."""
        made = make_simulator(str(self._folder), split)
        assert isinstance(made, AffinitySimulator)
        made.take_states(np.arange(1, len(self._states)), self._states[1:])
        return made


def _calibrate(
    config: TrainConfig, staging: Path, data: TrainData, heads: Heads | None, display: Display
) -> dict[str, Any]:
    """Write ``simulator.yaml`` with fitted weights; the scores of the simulator."""
    settings: dict[str, Any] = {
        "readout": config.readout,
        **asdict(config.prompt_config),
        "permutations": config.permutations,
    }
    if config.keeps_base:
        settings["checkpoint"] = config.checkpoint
    if heads is not None:  # a head has learned one kind of item, and says nonsense of any other
        settings["domain"] = data.split.dataset.domain
    write_simulator(staging, settings)

    def uncorrected(split: TimeSplit) -> UserSimulator:
        return make_simulator(str(staging), split) if heads is None else heads.simulator(split)

    asked = ask(config, uncorrected, data, display=display)
    write_simulator(staging, settings | dict(fitted_settings(asked.fit(config.calibration))))
    logprobs = cross_fitted(asked, config.calibration, config.seed)
    scores = scores_of(asked, logprobs, [source.name for source in data.sources])
    return scores | {"folds": config.calibration.folds}
