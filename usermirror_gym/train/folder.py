"""The folder of a run: whose it is, and what of it is already done.

config.json                   the settings; another run cannot go on in it
data/                         the build that the run made for itself, if it did
data.json                     what was trained on, by checksum
stages/0-next_item/           checkpoints while the stage runs; then trained.safetensors,
                              head.safetensors (options) and, written last, done.json
states/                       what the LLM says of the items (affinity)
tensorboard/                  curves of all stages
checkpoint/                   the simulator; it appears when it is whole
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel

from usermirror_gym.configs.settings import differences
from usermirror_gym.errors import RunError
from usermirror_gym.files import read_json, remove_unfinished, write_json
from usermirror_gym.train.config import TrainConfig

TRAINED_FILE = "trained.safetensors"
"""In the folder of a finished stage; see :func:`usermirror_gym.train.weights.save_trained`."""


@contextmanager
def own_folder(config: BaseModel, folder: Path) -> Iterator[None]:
    """Inside the block the folder is this run's, and nobody else works in it.

    Raises:
        RunError: it holds a run with other settings (names them), or something else, or another
            process is training in it.
    """
    begun = (folder / "config.json").is_file()
    # Hidden: the lock and the temporary files of a run that was killed at its very beginning.
    if not begun and folder.is_dir() and any(p.name[0] != "." for p in folder.iterdir()):
        raise RunError(f"{folder} is not empty and holds no training run; use another folder")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            remove_unfinished(folder)
            keep_same(
                folder / "config.json",
                json.loads(config.model_dump_json()),
                f"{folder} holds a run with other settings",
            )
            yield
    except Timeout as error:
        raise RunError(
            f"another process is training in {folder}: wait for it, or use another folder"
        ) from error


def keep_same(path: Path, content: Any, what: str) -> None:
    """Write a JSON file, or compare with what it already says.

    Raises:
        RunError: they differ; begins with ``what`` and names the differences.
    """
    if not path.is_file():
        write_json(path, content)
        return
    different = [f"{n}: {old!r} there, {new!r} here"
                 for n, old, new in differences(read_json(path), content)]  # fmt: skip
    if different:
        raise RunError(
            f"{what} ({'; '.join(different[:3])}). Use another folder, or delete this one."
        )


def stage_folder(folder: Path, config: TrainConfig, index: int) -> Path:
    """Of one stage of a run."""
    return folder / "stages" / f"{index}-{config.stages[index].objective}"


def data_folder(config: TrainConfig, folder: Path) -> Path:
    """Where the build lies that a run learns from."""
    return folder / "data" if config.data.build is None else Path(config.data.build)
