"""Checkpoints of a stage that are whole or absent, and from which it goes on to the same end."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from usermirror_gym.files import discard, write_json
from usermirror_gym.train.loop.watching import Watch
from usermirror_gym.train.loop.weights import load_trained, save_trained

WEIGHTS_FILE = "trained.safetensors"
WATCH_FILE = "watch.json"
_KEPT = 2
_STAGING = ".saving.tmp"
_NAME = re.compile(r"checkpoint-(\d+)")


class Resumable:
    """Mixed into a trainer of transformers; ``watch`` is set before training.

    A checkpoint is written under another name and renamed when it is complete.  Weights are stored
    as they are (not by way of PEFT or ``save_pretrained``), so that a further head is among them
    and every bit comes back; optimizer, schedule and random states are transformers' own files.
    """

    watch: Watch
    args: Any
    state: Any
    model: Any
    accelerator: Any

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Cards are written once, at the end of a run."""

    def _get_output_dir(self, trial: Any = None) -> str:
        return str(Path(self.args.output_dir) / _STAGING)

    def _save_checkpoint(self, model: Any, trial: Any = None) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            folder = Path(self.args.output_dir)
            name = f"checkpoint-{self.state.global_step}"
            write_json(folder / _STAGING / name / WATCH_FILE, self.watch.content())
            shutil.rmtree(folder / name, ignore_errors=True)
            (folder / _STAGING / name).rename(folder / name)
            shutil.rmtree(folder / _STAGING)
            for old in checkpoints(folder)[:-_KEPT]:
                discard(old)
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        save_trained(self.model, Path(output_dir or self.args.output_dir) / WEIGHTS_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_trained(self.model, Path(resume_from_checkpoint) / WEIGHTS_FILE)


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints of a stage, oldest first."""
    found = [(int(m[1]), path) for path in folder.glob("checkpoint-*")
             if (m := _NAME.fullmatch(path.name))]  # fmt: skip
    return [path for _, path in sorted(found)]
