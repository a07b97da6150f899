"""From hidden states to log-probabilities, only where they are needed."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from usermirror_gym.types import FloatArray

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


_CHUNK = 256
"""Positions whose full-vocabulary logits are held at once."""


class Head:
    """The output layer of a causal LM, with the scaling and soft-capping that some models apply."""

    def __init__(self, model: Any) -> None:
        layer = model.get_output_embeddings()
        self._weight, self._bias = layer.weight, getattr(layer, "bias", None)
        packed = can_pack(model) and isinstance(layer, torch.nn.Linear)
        self._whole = PackedLinear(self._weight, self._bias) if packed else layer
        config = model.config.get_text_config(decoder=True)
        self._scale = float(getattr(config, "logit_scale", None) or 1.0)  # Cohere
        self._scale /= float(getattr(config, "logits_scaling", None) or 1.0)  # Granite
        self._cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor, tokens: torch.Tensor | None = None) -> torch.Tensor:
        """``(n, V)`` float32 logits, or ``(n, K)`` of the given tokens only."""
        if tokens is None:
            out = self._whole(hidden).float() * self._scale
        else:
            bias = None if self._bias is None else self._bias.index_select(0, tokens)
            weight = self._weight.index_select(0, tokens)
            out = functional.linear(hidden, weight, bias).float() * self._scale
        return out if self._cap is None else torch.tanh(out / self._cap) * self._cap

    @torch.inference_mode()
    def shared_logprobs(
        self, hidden: torch.Tensor, where: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """``(n,)`` log-probability of target i under the distribution at ``hidden[where[i]]``.

        Positions are taken in chunks: their full-vocabulary logits never exist all at once.
        """
        out = torch.empty(len(targets), device=hidden.device)
        for start in range(0, len(hidden), _CHUNK):
            logits = self.logits(hidden[start : start + _CHUNK])
            here = ((where >= start) & (where < start + _CHUNK)).nonzero().squeeze(1)
            rows = where[here] - start
            out[here] = logits[rows, targets[here]] - logits.logsumexp(1)[rows]
        return out


class OptionHead:
    """The linear layer of the options readout: one number per hidden state.

    Args:
        weight: ``(d,)``.
        bias: ``(1,)``.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        self._weight, self._bias = weight, bias

    @torch.inference_mode()
    def scores(self, hidden: torch.Tensor) -> FloatArray:
        """``(n,)`` float64 of ``(n, d)`` hidden states, computed in float32."""
        scores = hidden.float() @ self._weight + self._bias
        found: FloatArray = scores.double().cpu().numpy()
        return found
