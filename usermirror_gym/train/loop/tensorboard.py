"""Curves for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from usermirror_gym.progress import Display


def curves(folder: Path, display: Display) -> list[Any]:
    """A callback for the trainer that writes loss, learning rate and validation log-loss.

    None in processes that only help, and none, with a message, without the package tensorboard.
    """
    from accelerate import PartialState

    if not PartialState().is_main_process:
        return []
    writer = summary_writer(folder, display)
    if writer is None:
        return []
    from transformers.integrations import TensorBoardCallback

    class Curves(TensorBoardCallback):
        """transformers' own, and the entries that validations leave in the trainer's log."""

        written = 0

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Validations that are new."""
            for entry in state.log_history[self.written :]:
                if "validation_log_loss" in entry and self.tb_writer is not None:
                    loss, step = entry["validation_log_loss"], entry["step"]
                    self.tb_writer.add_scalar("validation/log_loss", loss, step)
            self.written = len(state.log_history)

    return [Curves(tb_writer=writer)]


def summary_writer(folder: Path, display: Display, **options: Any) -> Any:
    """TensorBoard's writer; ``None``, with a message, without the package tensorboard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        display.say("no curves: TensorBoard is not installed (pip install 'usermirror-gym[train]')")
        return None
    return SummaryWriter(str(folder), **options)


def write_numbers(writer: Any, group: str, numbers: Mapping[str, Any], step: int) -> None:
    """Each number as ``group/name``; nothing where :func:`summary_writer` gave none."""
    for name, value in numbers.items():
        if writer is not None and isinstance(value, int | float):
            writer.add_scalar(f"{group}/{name}", value, step)
