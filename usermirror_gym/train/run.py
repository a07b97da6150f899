"""One command trains a simulator: data, stages, calibration, checkpoint, card.

A run that was killed goes on where it was, and ends with the same weights as one that was not:
every stage begins with weights that are read from the disk, and goes on from its own checkpoints.
"""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from usermirror_gym.corpus.build import build_data
from usermirror_gym.engines.adapters import HEAD_WEIGHTS
from usermirror_gym.engines.checkpoints import files_hash, resolve_checkpoint
from usermirror_gym.errors import MissingDependencyError
from usermirror_gym.files import read_json, sha256, write_json
from usermirror_gym.progress import Display
from usermirror_gym.run_folder import keep_same, run_folder
from usermirror_gym.train.calibrate import validation_scenes
from usermirror_gym.train.config import TRAINED_FILE, TrainConfig, data_folder, stage_folder
from usermirror_gym.train.data import TrainData, read_train_data

_PATIENT = timedelta(days=2)
"""Processes wait so long for the one that builds data or writes a checkpoint."""
_SEED_STEP = 7_919


def train(config: TrainConfig, folder: str | Path, *, display: Display) -> Path:
    """Run a training to its end, or go on with it.

    Under ``accelerate launch`` all processes call this; the main one alone writes.

    Args:
        config: the settings; see :func:`usermirror_gym.train.config.read_config`.
        folder: the run's own folder.
        display: says what is going on.

    Returns:
        The folder of the simulator, for ``make_simulator``.

    Raises:
        RunError: the folder holds a run with other settings, or something else, or another
            process is training in it.
        MissingDependencyError: the packages of the extra ``train`` are not installed.
        UserMirrorError: whatever a stage raises; what was done stays, and the next run goes on.
    """
    folder = Path(folder)
    state = _processes()
    display = display if state.is_main_process else Display(quiet=True)
    done = folder / "checkpoint" / "training.json"
    inputs = None
    if state.is_main_process and not done.is_file():
        found = files_hash(resolve_checkpoint(config.checkpoint))[:16]
        inputs = {"checkpoint": f"{Path(config.checkpoint).name} {found}"}
    own = run_folder(folder, config, "training run", inputs=inputs)
    with own if state.is_main_process else nullcontext():
        state.wait_for_everyone()
        finished = done.is_file()
        state.wait_for_everyone()  # all have looked before anybody writes
        if not finished:
            from usermirror_gym.train.finish import write_checkpoint

            with state.main_process_first():
                build = state.is_main_process
                data = prepare_data(config, folder, display=display, build=build)
            stages = [_stage(config, folder, i, data, display) for i in range(len(config.stages))]
            if state.is_main_process:
                write_checkpoint(config, folder, data, stages, display=display)
        state.wait_for_everyone()
    return folder / "checkpoint"


def stage_seed(config: TrainConfig, index: int) -> int:
    """Two stages of one objective draw differently."""
    return config.seed + _SEED_STEP * index


def prepare_data(
    config: TrainConfig, folder: Path, *, display: Display, build: bool = True
) -> TrainData:
    """Build the data, if the run does so itself, and read them.

    Args:
        build: false in processes that only read what another one has built.

    Raises:
        RunError: there is no finished build, or it is not the one that the run began with.
    """
    place = data_folder(config, folder)
    if config.data.build is None and build:
        build_data(config.build_config(), place, display=display)
    data = read_train_data(place, config.prompt_config)
    for source in data.sources:  # before hours of training rather than behind them
        validation_scenes(config, source, len(data.sources))
    facts = {"manifest": sha256(place / "manifest.json")}
    keep_same(folder / "data.json", facts, f"{place} is not what this run began with")
    return data


def _processes() -> Any:
    """This process among those that train together."""
    try:
        import peft  # noqa: F401
        import torch
        import trl  # noqa: F401
        from accelerate import PartialState
    except ImportError as error:
        raise MissingDependencyError(str(error.name), "train") from error
    # Without being told so, processes on CPUs would not look for each other.
    return PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENT)


def _stage(
    config: TrainConfig, folder: Path, index: int, data: TrainData, display: Display
) -> dict[str, Any]:
    """What a finished stage did; trains it if it is not finished."""
    from usermirror_gym.train.loop.callbacks import BEST_FILE

    place = stage_folder(folder, config, index)
    done = place / "done.json"
    if not done.is_file():
        from accelerate.utils.memory import clear_device_cache

        _train_stage(config, folder, index, data, display)
        clear_device_cache(garbage_collection=True)  # of a model that nobody uses any more
    if _processes().is_main_process:  # also what a process that was killed here had no time for
        for path in place.glob("checkpoint-*"):  # the optimizer's states: no later stage needs them
            shutil.rmtree(path)
        (place / BEST_FILE).unlink(missing_ok=True)
    facts: dict[str, Any] = read_json(done)
    return facts


def _train_stage(
    config: TrainConfig, folder: Path, index: int, data: TrainData, display: Display
) -> None:
    from accelerate import PartialState

    from usermirror_gym.train.loop.model import load_tokenizer_of, load_trainable, save_trained
    from usermirror_gym.train.loop.tensorboard import curves
    from usermirror_gym.train.loop.trainers import run_stage

    stage, place = config.stages[index], stage_folder(folder, config, index)
    before = stage_folder(folder, config, index - 1) if index else None
    number = f"stage {index + 1} of {len(config.stages)}"
    display.say(f"{number}: {stage.objective}")
    model = load_trainable(config, None if before is None else before / TRAINED_FILE)
    result = run_stage(
        stage,
        model,
        load_tokenizer_of(config),
        data,
        place,
        seed=stage_seed(config, index),
        precision=config.precision,
        display=display,
        gradient_checkpointing=config.gradient_checkpointing,
        head=before if before is not None and (before / HEAD_WEIGHTS).is_file() else None,
        callbacks=curves(folder / "tensorboard" / place.name, display),
    )
    if PartialState().is_main_process:
        save_trained(model, place / TRAINED_FILE)
        write_json(place / "done.json", {"objective": stage.objective, **asdict(result)})
    PartialState().wait_for_everyone()
