"""From hidden states to log-probabilities, only where they are needed."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from usermirror_gym.engines.local.tree.packed_linear import PackedLinear, can_pack
from usermirror_gym.types import FloatArray

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
