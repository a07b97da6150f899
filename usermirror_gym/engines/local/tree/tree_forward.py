"""One batched forward pass over rows of token trees, with their cached beginnings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from usermirror_gym.engines.local.tree.packing import TokenTree

Pieces = list[torch.Tensor]


@dataclass
class TreeRow:
    """A tree of new tokens and the keys and values of the ``tree.offset`` tokens before it."""

    tree: TokenTree
    past: Pieces


class RowCache(DynamicCache):
    """Keys and values of B rows in one block: cached ones first, room for the new ones behind.

    transformers asks a cache to append; writing into a block that is already there saves a copy of
    everything in every layer.
    """

    def __init__(self, block: torch.Tensor, past: int) -> None:
        super().__init__()
        self.block = block  # (2 * layers, B, heads, past + T, head_dim)
        self._past = past

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the new keys and values of a layer; all of them, ``(B, heads, past + T, dim)``."""
        keys, values = self.block[2 * layer_idx], self.block[2 * layer_idx + 1]
        end = self._past + key_states.shape[2]
        keys[:, :, self._past : end] = key_states
        values[:, :, self._past : end] = value_states
        return keys[:, :, :end], values[:, :, :end]

    def moved_to(self, past: int) -> RowCache:
        """The same block with ``past`` tokens in it: the next tokens go behind them."""
        self._past = past
        return self

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens before the new ones."""
        return self._past


@dataclass
class TreeOutput:
    """Hidden states of a batch, and where the keys and values of its tokens are."""

    hidden: torch.Tensor  # (B, T, d)
    block: torch.Tensor  # (2 * layers, B, heads, past + T, head_dim)
    first_past: list[int]
    first_new: list[int]
    past: int

    def at(self, row: int, nodes: Sequence[int]) -> torch.Tensor:
        """``(n, d)`` hidden states of tokens of one row."""
        index = torch.as_tensor(nodes, device=self.hidden.device)
        return self.hidden[row].index_select(0, index + (self.first_new[row] - self.past))

    def keys_values(self, row: int, offset: int, nodes: Sequence[int], skip: int) -> torch.Tensor:
        """Keys and values of a path (``offset`` cached tokens, then nodes) from token ``skip``."""
        start = self.first_past[row]
        columns = [*range(start, start + offset), *(self.first_new[row] + n for n in nodes)]
        index = torch.as_tensor(columns[skip:], device=self.block.device)
        return self.block[:, row].index_select(2, index)


class TreeForward:
    """Runs token trees through a decoder-only model.

    Args:
        model: a transformers causal LM in eval mode.
        pad_left: padding goes before instead of behind the tokens of a row.
    """

    def __init__(self, model: Any, *, pad_left: bool = False) -> None:
        self._body = model.base_model
        self._pad_left = pad_left
        config = model.config.get_text_config(decoder=True)
        heads = config.num_attention_heads
        self._shape = (
            2 * config.num_hidden_layers,
            getattr(config, "num_key_value_heads", None) or heads,
            getattr(config, "head_dim", None) or config.hidden_size // heads,
        )
        self._device, self._dtype = model.device, model.dtype

    @torch.inference_mode()
    def __call__(self, rows: Sequence[TreeRow]) -> TreeOutput:
        """Hidden states of all rows, padded to the longest."""
        width = max(len(row.tree) for row in rows)
        past = max(row.tree.offset for row in rows)
        first_past = [past - r.tree.offset if self._pad_left else 0 for r in rows]
        first_new = [past + (width - len(r.tree) if self._pad_left else 0) for r in rows]
        block = self._block(rows, past, width, first_past)
        ids = np.zeros((len(rows), width), np.int64)
        positions = np.zeros((len(rows), width), np.int64)
        visible = np.zeros((len(rows), width, past + width), np.bool_)
        for b, row in enumerate(rows):
            at, n = first_new[b], len(row.tree)
            new = slice(at - past, at - past + n)
            ids[b, new], positions[b, new] = row.tree.tokens, row.tree.positions()
            visible[b, new, first_past[b] : first_past[b] + row.tree.offset] = True
            visible[b, new, at : at + n] = row.tree.ancestors()
        # A padding token sees itself, so that its softmax is defined.
        visible[:, np.arange(width), past + np.arange(width)] = True
        hidden = self._body(
            input_ids=torch.from_numpy(ids).to(self._device),
            position_ids=torch.from_numpy(positions).to(self._device),
            attention_mask=self._mask(visible),
            past_key_values=RowCache(block, past),
            use_cache=True,
        ).last_hidden_state
        return TreeOutput(hidden, block, first_past, first_new, past)

    def _block(
        self, rows: Sequence[TreeRow], past: int, width: int, first_past: Iterable[int]
    ) -> torch.Tensor:
        # Zeros, not empty: a masked NaN would still be a NaN.
        layers, heads, dim = self._shape
        shape = (layers, len(rows), heads, past + width, dim)
        block = torch.zeros(shape, dtype=self._dtype, device=self._device)
        for b, (row, at) in enumerate(zip(rows, first_past, strict=True)):
            for piece in row.past:
                block[:, b, :, at : at + piece.shape[2]] = piece
                at += piece.shape[2]
        return block

    def _mask(self, visible: np.ndarray) -> torch.Tensor:
        """``(B, 1, T, past + T)`` additive mask."""
        seen = torch.from_numpy(visible).to(self._device).unsqueeze(1)
        mask = torch.zeros(seen.shape, dtype=self._dtype, device=self._device)
        return mask.masked_fill_(~seen, torch.finfo(self._dtype).min)
