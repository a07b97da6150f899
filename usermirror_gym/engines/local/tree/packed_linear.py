"""Linear layers with weights laid out once for the CPU's matrix kernels (oneDNN).

``torch.nn.Linear`` hands its weight to the kernel as it is stored, and the kernel lays it out again
at every call.  Laying it out once is what ``torch.compile`` does with frozen weights, here without
a compiler.  ``benchmarks/engine_throughput.py`` shows what it is worth.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_TOLERANCE = 1e-4
"""Largest change of a next-token probability on the probe; rounding alone stays far below."""


class PackedLinear(nn.Module):
    """``y = x W^T + b`` for float32 on the CPU; cannot be trained or moved."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
        self._bias = None if bias is None else bias.detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., in) -> (..., out)``."""
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")


def can_pack(model: Any) -> bool:
    """Whether the model is on the CPU in float32 and this torch has the kernels."""
    return (
        model.device.type == "cpu"
        and model.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


@torch.inference_mode()
def pack(model: Any) -> bool:
    """Replace the linear layers of a model's body, if the answers stay the same.

    The kernels have no public name, and some architectures read the weights of their layers; so a
    short probe runs before and after, and after an error or a difference everything is as before.

    Returns:
        whether the layers were replaced.
    """
    if not can_pack(model):
        return False
    probe = torch.arange(1, 9).remainder(model.config.get_text_config().vocab_size)[None]
    before = model(probe, use_cache=False).logits.softmax(-1)
    body = model.base_model
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        for parent in list(body.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is nn.Linear:
                    setattr(parent, name, PackedLinear(child.weight, child.bias))
                    replaced.append((parent, name, child))
        after = model(probe, use_cache=False).logits.softmax(-1)
        same = bool((after - before).abs().max() < _TOLERANCE)
    except (RuntimeError, AttributeError):
        same = False
    if not same:
        for parent, name, child in replaced:
            setattr(parent, name, child)
    return same
