"""Sampling of continuations, reproducible per prompt whatever the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from usermirror_gym.engines.base import Sampling
from usermirror_gym.engines.local.encoding import EncodedPrompt
from usermirror_gym.engines.local.tree.tree_forward import RowCache
from usermirror_gym.engines.local.tree.tree_scorer import TreeScorer

_ROWS = 32
"""Samples that are decoded together."""


def generate(
    model: Any,
    tokenizer: Any,
    tree: TreeScorer | None,
    questions: Sequence[EncodedPrompt],
    sampling: Sampling,
) -> list[list[str]]:
    """``n`` texts per question.

    Args:
        model: a causal LM.
        tokenizer: its tokenizer.
        tree: the scorer whose prefix cache is used; ``None`` decodes with the model's own
            ``generate``, one prompt at a time.
        questions: Q encoded prompts; options are ignored.
        sampling: how to sample.
    """
    ends = _end_tokens(model, tokenizer)
    if tree is None:
        return [_generate_alone(model, tokenizer, q, sampling) for q in questions]
    texts: list[list[str]] = [[] for _ in questions]
    jobs = [(i, k) for i in range(len(questions)) for k in range(sampling.n)]
    for start in range(0, len(jobs), _ROWS):
        batch = jobs[start : start + _ROWS]
        rows = [_Row(questions[i].prefix, k, sampling, tokenizer, ends) for i, k in batch]
        _decode(model, tree, rows, sampling.max_tokens)
        for (i, _), row in zip(batch, rows, strict=True):
            texts[i].append(row.text)
    return texts


class _Row:
    """One sample in the making."""

    def __init__(
        self,
        prefix: tuple[int, ...],
        sample: int,
        sampling: Sampling,
        tokenizer: Any,
        ends: frozenset[int],
    ) -> None:
        self.prefix, self.text, self.done = prefix, "", False
        self.ids: list[int] = []
        self._sampling, self._tokenizer, self._ends = sampling, tokenizer, ends
        self._generator = torch.Generator().manual_seed(sampling.row_seed(prefix, sample))

    def take(self, logits: torch.Tensor) -> int:
        """Draw the next token from ``(V,)`` float32 logits on the CPU."""
        token = _draw(logits, self._sampling, self._generator)
        if self.done or token in self._ends:
            self.done = True
            return token
        self.ids.append(token)
        text = self._tokenizer.decode(self.ids, skip_special_tokens=True)
        self.text = self._sampling.cut(text)
        self.done = self.text != text or len(self.ids) >= self._sampling.max_tokens
        return token


@torch.inference_mode()
def _decode(model: Any, tree: TreeScorer, rows: Sequence[_Row], max_tokens: int) -> None:
    """Sample all rows together, behind their prefixes padded on the left."""
    found = {row.prefix: tree.prefix_block(row.prefix) for row in rows}
    past = max(len(row.prefix) for row in rows)
    cache, mask = _stack([found[row.prefix][1] for row in rows], past, max_tokens)
    logits = tree.head.logits(torch.stack([found[row.prefix][0] for row in rows]))
    lengths = torch.tensor([len(row.prefix) for row in rows], device=logits.device)
    for step in range(max_tokens):
        on_cpu = logits.cpu()
        tokens = [row.take(on_cpu[b]) for b, row in enumerate(rows)]
        if all(row.done for row in rows) or step == max_tokens - 1:
            return
        mask[..., past + step] = 0
        hidden = model.base_model(
            input_ids=torch.tensor(tokens, device=logits.device)[:, None],
            position_ids=(lengths + step)[:, None],
            attention_mask=mask[..., : past + step + 1],
            past_key_values=cache.moved_to(past + step),
            use_cache=True,
        ).last_hidden_state
        logits = tree.head.logits(hidden[:, -1])


def _stack(blocks: Sequence[torch.Tensor], past: int, room: int) -> tuple[RowCache, torch.Tensor]:
    """A cache with room behind the prefixes, and its ``(B, 1, 1, past + room)`` additive mask."""
    layers, heads, _, dim = blocks[0].shape
    dtype, device = blocks[0].dtype, blocks[0].device
    shape = (layers, len(blocks), heads, past + room, dim)
    block = torch.zeros(shape, dtype=dtype, device=device)
    mask = torch.full((len(blocks), 1, 1, past + room), torch.finfo(dtype).min, dtype=dtype)
    mask = mask.to(device)
    for b, kept in enumerate(blocks):
        block[:, b, :, past - kept.shape[2] : past] = kept
        mask[b, ..., past - kept.shape[2] : past] = 0
    return RowCache(block, past), mask


def _draw(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    if sampling.temperature == 0:
        return int(logits.argmax())
    scores = torch.log_softmax(logits.double() / sampling.temperature, 0)
    if sampling.top_p < 1:
        scores = _nucleus(scores, sampling.top_p)
    # Gumbel-max instead of an inverse CDF: rounding differences between batches move the
    # boundaries of a CDF by more than the width of its many rare tokens.
    noise = torch.rand(len(scores), generator=generator, dtype=torch.float64)
    return int((scores - (-noise.log()).log()).argmax())


def _nucleus(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """Log-probabilities with everything outside the smallest set of mass ``top_p`` at -inf
    (Holtzman et al., 2020)."""
    ordered, index = scores.sort(descending=True)
    mass = ordered.exp()
    outside = mass.cumsum(0) - mass >= top_p
    return scores.index_fill(0, index[outside], float("-inf"))


def _generate_alone(
    model: Any, tokenizer: Any, question: EncodedPrompt, sampling: Sampling
) -> list[str]:
    """One prompt through the model's own ``generate``, one sample at a time."""
    ids = torch.tensor([question.prefix], device=model.device)
    greedy = sampling.temperature == 0
    how: dict[str, Any] = {"do_sample": False} if greedy else {
        "do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0,
    }  # fmt: skip
    if sampling.stop:
        how |= {"stop_strings": list(sampling.stop), "tokenizer": tokenizer}
    texts, gpus = [], [model.device.index or 0] if model.device.type == "cuda" else []
    for sample in range(sampling.n):
        with torch.random.fork_rng(devices=gpus):
            torch.manual_seed(sampling.row_seed(question.prefix, sample))
            out = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=sampling.max_tokens,
                pad_token_id=tokenizer.pad_token_id or 0, **how,
            )  # fmt: skip
        text = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        texts.append(sampling.cut(text))
    return texts


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = getattr(model.generation_config, "eos_token_id", None)
    ends = configured if isinstance(configured, list) else [configured]
    return frozenset(e for e in [*ends, tokenizer.eos_token_id] if e is not None)
