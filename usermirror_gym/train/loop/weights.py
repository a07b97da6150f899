"""Weights while they are trained: saved, put back, and held in a smaller format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from usermirror_gym.errors import RunError
from usermirror_gym.files import write_bytes


def save_trained(model: Any, path: Path) -> Path:
    """All weights that are trained, to the bit; the old file or the whole new one, never less."""
    weights = {name: p.detach().cpu().contiguous() for name, p in _trained(model).items()}
    return write_bytes(path, save(weights))


def load_trained(model: Any, path: Path) -> None:
    """Put the weights of :func:`save_trained` back.

    Raises:
        RunError: the file belongs to another model, or to other LoRA settings.
    """
    saved, own = load_file(path), _trained(model)
    wrong = sorted(saved.keys() ^ own.keys()) or [
        name for name, p in own.items() if p.shape != saved[name].shape
    ]
    if wrong:
        raise RunError(
            f"{path} does not fit the model: {len(wrong)} weights differ, {wrong[0]!r} among "
            "them. It was saved with another base model or other LoRA settings; use a new folder."
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(saved[name])


@contextmanager
def frozen_in_bfloat16(model: Any, *, active: bool) -> Iterator[None]:
    """Inside the block the float32 weights that are not trained are rounded to bfloat16.

    What is trained (LoRA) stays float32.  On CPUs with bfloat16 instructions the large products
    are then two to three times as fast.  The exact weights are kept, and are back afterwards.
    """
    frozen = [p for p in model.parameters() if not p.requires_grad and p.dtype == torch.float32]
    kept = [p.data for p in frozen] if active else []
    for parameter, _ in zip(frozen, kept, strict=False):
        parameter.data = parameter.data.to(torch.bfloat16)
    try:
        yield
    finally:
        for parameter, data in zip(frozen, kept, strict=False):
            parameter.data = data.to(parameter.device)


def _trained(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
