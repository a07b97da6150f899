"""Hidden states of single lines, each read on its own behind the same few words."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from usermirror_gym.engines.base import StatePart
from usermirror_gym.engines.local.encoding import EncodedPrompt
from usermirror_gym.engines.local.tree.plain_forward import padded_batches
from usermirror_gym.errors import ConfigError, EngineError, UnknownNameError
from usermirror_gym.types import Float32Array

POOLS = ("mean", "last")


def check_parts(parts: Sequence[StatePart], n_layers: int) -> None:
    """Whether a model of so many layers has these states; the errors name what it has."""
    if not parts:
        raise ConfigError(
            "parts is empty: name at least one (layer, pool), for example (12, 'mean')"
        )
    for layer, pool in parts:
        if pool not in POOLS:
            raise UnknownNameError("pool of line states", pool, POOLS)
        if not 0 <= layer <= n_layers:
            raise EngineError(
                f"there are no hidden states of layer {layer}: this model has 0 (embeddings) to "
                f"{n_layers}. Take a head that was trained on these weights."
            )


def check_lines(lines: Sequence[str], question: EncodedPrompt, context_length: int) -> None:
    """Whether every line, an option of the question, can be read; the errors are those of
    :meth:`~usermirror_gym.engines.base.Engine.item_hidden_states` and name the line."""
    for number, (line, tokens) in enumerate(zip(lines, question.options, strict=True)):
        if not line.strip():
            raise EngineError(f"line {number} ({line!r}) is empty: give every line some text.")
        if not line.endswith("\n"):
            raise EngineError(
                f"line {number} ({line!r}) does not end in a line break: add '\\n', on whose token "
                "the pool 'last' reads."
            )
        length = len(question.prefix) + len(tokens)
        if length > context_length:
            raise EngineError(
                f"line {number} ({line[:40]!r}...) has {length} tokens with the words before it, "
                f"the model takes {context_length}: shorten the line."
            )


def item_hidden_states(
    model: Any,
    question: EncodedPrompt,
    parts: Sequence[StatePart],
    *,
    batch_tokens: int,
    share_head: bool,
    progress: Callable[[int], None],
) -> Float32Array:
    """``(n, F)`` hidden states of the n options of a question, none of which sees the others.

    Args:
        model: any causal LM of transformers.
        question: the head as prefix, the lines as options.
        parts: what is read of each line; F is their number times the model's width.
        batch_tokens: padded tokens of one forward pass.
        share_head: compute the head once and reuse its keys and values, on a model for which that
            is exact.
        progress: told how many lines were read since the last call.
    """
    run: Callable[..., Any] = partial(model.base_model, output_hidden_states=True)
    start, rows = len(question.prefix), [question.prefix + line for line in question.options]
    if share_head:
        run = _behind(run, question.prefix, model.device)
        start, rows = 0, list(question.options)
    width = model.config.get_text_config(decoder=True).hidden_size
    states = np.zeros((len(rows), len(parts) * width), np.float32)
    for batch, out in padded_batches(run, rows, batch_tokens, model.device):
        ends = torch.tensor([len(rows[i]) - 1 for i in batch], device=model.device)
        pooled = [_pooled(out.hidden_states[layer], pool, start, ends) for layer, pool in parts]
        states[batch] = torch.cat(pooled, dim=1).cpu().numpy()
        progress(len(batch))
    return states


@torch.inference_mode()
def _behind(
    run: Callable[..., Any], prefix: Sequence[int], device: torch.device
) -> Callable[..., Any]:
    """``run`` for rows that all stand behind one prefix, whose keys and values are computed now."""
    cache = run(input_ids=torch.tensor([prefix], device=device), use_cache=True).past_key_values

    def run_behind(input_ids: torch.Tensor, attention_mask: torch.Tensor, **settings: Any) -> Any:
        ours = copy.deepcopy(cache)
        ours.batch_repeat_interleave(len(input_ids))
        before = attention_mask.new_ones(len(input_ids), len(prefix))
        mask = torch.cat([before, attention_mask], dim=1)
        settings.update(past_key_values=ours, use_cache=True)
        return run(input_ids=input_ids, attention_mask=mask, **settings)

    return run_behind


def _pooled(hidden: torch.Tensor, pool: str, start: int, ends: torch.Tensor) -> torch.Tensor:
    """``(B, width)`` float32 of ``(B, T, width)``: one number per line that begins at ``start`` and
    has its last token at ``ends``."""
    if pool == "last":
        return hidden[torch.arange(len(ends), device=ends.device), ends].float()
    # A tokenizer may have one token for a whole short line; then that is all there is to read.
    stops = ends.clamp(min=start + 1)
    places = torch.arange(hidden.shape[1], device=ends.device)
    inside = ((places >= start) & (places < stops[:, None])).float()
    total = (hidden.float() * inside[:, :, None]).sum(dim=1)
    return total / inside.sum(dim=1, keepdim=True)
