"""What happens beside the steps of a stage: progress, validation, early stopping, checkpoints."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from transformers import TrainerCallback
from transformers.trainer_utils import sort_checkpoints

from usermirror_gym.files import discard, write_json
from usermirror_gym.train.config import TRAINED_FILE
from usermirror_gym.train.loop.model import load_trained, save_trained
from usermirror_gym.train.objectives.plans import Plan

BEST_FILE = "best.safetensors"


class Point(NamedTuple):
    """One entry of a stage's history; what was not measured at this step is ``None``."""

    step: int
    train_loss: float | None = None
    validation_log_loss: float | None = None


class Watch(TrainerCallback):
    """Runs beside a trainer; its content is part of every checkpoint.

    Args:
        folder: where the best weights so far are kept.
        plan: whose validation is asked before the first step, every ``plan.every`` steps, and after
            the last, and whose stage says for how long, and when to save.
        advance: takes the steps done, for a progress bar.
    """

    def __init__(self, folder: Path, plan: Plan, advance: Callable[[int], None]) -> None:
        self.history: list[Point] = []
        self.best: Point | None = None
        self._misses = 0
        self._folder, self._plan, self._advance = folder, plan, advance
        self._spent = 0.0
        self._begin = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds of training so far, those before a kill included up to their last checkpoint."""
        return self._spent + time.monotonic() - self._begin

    @property
    def tired(self) -> bool:
        """Whether validation has not become better for too long."""
        patience = self._plan.stage.patience
        return patience is not None and self._misses >= patience

    def content(self) -> dict[str, Any]:
        """What a checkpoint remembers."""
        return {
            "history": [list(point) for point in self.history],
            "best": None if self.best is None else list(self.best),
            "misses": self._misses,
            "seconds": self.spent,
        }

    def restore(self, content: Mapping[str, Any]) -> None:
        """Go on from :meth:`content`."""
        self.history = [Point(*point) for point in content["history"]]
        self.best = None if content["best"] is None else Point(*content["best"])
        self._misses = int(content["misses"])
        self._spent = float(content["seconds"])

    def load_best(self, model: Any) -> None:
        """Put the best weights into the model, if there was a validation."""
        if self.best is not None:
            load_trained(model, self._folder / BEST_FILE)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The score that training starts from."""
        self._begin = time.monotonic()
        self._advance(state.global_step)
        if state.global_step == 0 and not self.history:
            self._measure(kwargs["model"], 0, state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Validate and save where it is time to."""
        self._advance(1)
        step, last = state.global_step, state.global_step >= state.max_steps
        if last or (self._plan.every and step % self._plan.every == 0):
            self._measure(kwargs["model"], step, state)
        control.should_training_stop |= self.tired
        if last or self.tired or step % self._plan.stage.save_every == 0:
            control.should_save = control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the training loss."""
        loss = (kwargs.get("logs") or {}).get("loss")
        if loss is not None:
            self.history.append(Point(state.global_step, train_loss=float(loss)))

    def _measure(self, model: Any, step: int, state: Any) -> None:
        if self._plan.validate is None:
            return
        loss = self._plan.validate(model)
        point = Point(step, validation_log_loss=loss)
        self.history.append(point)
        # Where transformers keeps its own entries, for whoever draws curves.
        state.log_history.append({"step": step, "validation_log_loss": loss})
        best = None if self.best is None else self.best.validation_log_loss
        better = best is None or loss < best
        self._misses = 0 if better else self._misses + 1
        if better:
            self.best = point
            if state.is_world_process_zero:
                save_trained(model, self._folder / BEST_FILE)


WATCH_FILE = "watch.json"
_KEPT = 2
_STAGING = ".saving.0.tmp"


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
            for old in sort_checkpoints(str(folder))[:-_KEPT]:
                discard(Path(old))
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        save_trained(self.model, Path(output_dir or self.args.output_dir) / TRAINED_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_trained(self.model, Path(resume_from_checkpoint) / TRAINED_FILE)
