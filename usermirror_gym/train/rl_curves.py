"""Curves of an agent's training for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from usermirror_gym.progress import Display
from usermirror_gym.train.tensorboard import summary_writer


class Curves:
    """Writes numbers by iteration; nothing, with a message, without the package tensorboard.

    Args:
        begun: iterations that are done; what an earlier process wrote of later ones is hidden.
    """

    def __init__(self, folder: Path, begun: int, display: Display) -> None:
        self._writer = summary_writer(folder, display, purge_step=begun + 1 if begun else None)

    def write(self, group: str, numbers: Mapping[str, Any], iteration: int) -> None:
        """Each number as ``group/name``."""
        if self._writer is not None:
            for name, value in numbers.items():
                if isinstance(value, int | float):
                    self._writer.add_scalar(f"{group}/{name}", value, iteration)

    def close(self) -> None:
        """Everything is on the disk."""
        if self._writer is not None:
            self._writer.close()
