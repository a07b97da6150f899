"""The end of a run: weights, calibrated settings and card become a simulator's folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from usermirror_gym.data import TimeSplit
from usermirror_gym.distill.built import read_build
from usermirror_gym.files import sha256
from usermirror_gym.progress import Display
from usermirror_gym.simulators import UserSimulator, make_simulator
from usermirror_gym.simulators.checkpoint import write_simulator
from usermirror_gym.train.calibrate import ask, cross_fitted, fitted_settings, scores_of
from usermirror_gym.train.card import write_card
from usermirror_gym.train.config import TrainConfig
from usermirror_gym.train.data import TrainData
from usermirror_gym.train.folder import TRAINED_FILE, data_folder, stage_folder
from usermirror_gym.train.model import write_weights
from usermirror_gym.train.options import HEAD_FILE


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
    last = stage_folder(folder, config, len(config.stages) - 1)
    staging, checkpoint = folder / ".checkpoint.tmp", folder / "checkpoint"
    shutil.rmtree(staging, ignore_errors=True)
    display.say("writing the checkpoint")
    write_weights(config, last / TRAINED_FILE, staging)
    if config.readout == "options":
        shutil.copyfile(last / HEAD_FILE, staging / HEAD_FILE)
    scores = _calibrate(config, staging, data, display)
    build = read_build(data_folder(config, folder))
    checksum = sha256(build.folder / "manifest.json")
    write_card(config, staging, stages, scores, build.manifest, checksum)
    shutil.rmtree(checkpoint, ignore_errors=True)
    staging.rename(checkpoint)
    return checkpoint


def _calibrate(
    config: TrainConfig, staging: Path, data: TrainData, display: Display
) -> dict[str, Any]:
    """Write ``simulator.yaml`` with fitted weights; the scores of the simulator."""
    settings: dict[str, Any] = {
        "readout": config.readout,
        **asdict(config.prompt_config),
        "permutations": config.permutations,
    }
    if config.lora is not None and not config.merge:
        settings["checkpoint"] = config.checkpoint
    write_simulator(staging, settings)

    def uncorrected(split: TimeSplit) -> UserSimulator:
        return make_simulator(str(staging), split)

    asked = ask(config, uncorrected, data, display=display)
    write_simulator(staging, settings | dict(fitted_settings(asked.fit(config.calibration))))
    logprobs = cross_fitted(asked, config.calibration, config.seed)
    scores = scores_of(asked, logprobs, [source.name for source in data.sources])
    return scores | {"folds": config.calibration.folds}
