"""Answers questions with shared, cached prefixes: plans rows, runs them, reads the options."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from usermirror_gym.engines.local.encoding import Answer, EncodedPrompt
from usermirror_gym.engines.local.head import Head, OptionHead
from usermirror_gym.engines.local.tree.packing import Row, TokenTree, shared_rows
from usermirror_gym.engines.local.tree.prefix_cache import PrefixCache
from usermirror_gym.engines.local.tree.tree_forward import TreeForward, TreeOutput, TreeRow
from usermirror_gym.types import FloatArray

States = Callable[[Sequence[int]], torch.Tensor]
"""``(n, d)`` hidden states of nodes of a row."""
_ENOUGH = 256
"""Padded tokens from which on a larger batch no longer pays for more padding."""


@dataclass
class _LaidOut:
    """A row ready to run; nodes of each member's prefix and options in its tree.

    The options are branches behind the prefix without their last tokens, or, ``chained``, whole
    and one behind the other.
    """

    row: Row
    run: TreeRow
    chained: bool
    prefixes: list[list[int]]
    options: list[list[list[int]]]
    computed: list[int]

    def nodes(self, k: int) -> list[int]:
        """Of what is kept of member k: its prefix, and lines, but no alternative texts."""
        lines = (n for path in self.options[k] for n in path) if self.chained else ()
        return [*self.prefixes[k], *lines]


class TreeScorer:
    """Scores options by tree attention over cached prefixes.

    Args:
        model: a causal LM that takes explicit masks and positions exactly (see ``tree_is_exact``).
        cache_tokens: size of the prefix cache; 0 turns reuse between calls off.
        batch_tokens: padded new tokens of one forward pass.
        row_tokens: new tokens of one row that several questions share.
        reuse: whether questions share anything, within a call or between calls.
        pad_left: side of the padding.
    """

    def __init__(
        self,
        model: Any,
        *,
        cache_tokens: int,
        batch_tokens: int,
        row_tokens: int,
        reuse: bool = True,
        pad_left: bool = False,
    ) -> None:
        self.cache = PrefixCache(cache_tokens if reuse else 0)
        self.head = Head(model)
        self._forward = TreeForward(model, pad_left=pad_left)
        self._batch_tokens, self._row_tokens, self._reuse = batch_tokens, row_tokens, reuse
        self._device = model.device

    def letters(self, questions: Sequence[EncodedPrompt]) -> list[Answer]:
        """Logits of the options' single tokens behind each prefix."""
        bare = [EncodedPrompt(q.name, q.prefix, ()) for q in questions]
        return self._answer(bare, questions, self._read_letters)

    def texts(self, questions: Sequence[EncodedPrompt]) -> list[Answer]:
        """Summed log-probabilities of the options' tokens behind each prefix."""
        return self._answer(questions, questions, self._read_texts)

    def lines(self, questions: Sequence[EncodedPrompt], head: OptionHead) -> list[Answer]:
        """What the head reads at the last token of each option, the options standing one after
        another behind each prefix."""
        return self._answer(questions, questions, partial(self._read_lines, head), chained=True)

    def prefix_block(self, prefix: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """For generation: the last hidden state ``(d,)`` of a prefix, and the keys and values of
        all its tokens ``(2 * layers, heads, tokens, head_dim)``."""
        laid_out = self._lay_out(Row(prefix[:-1]), [EncodedPrompt("", prefix, ())], (0,), False)
        out = self._forward([laid_out.run])
        nodes, offset = laid_out.prefixes[0], laid_out.run.tree.offset
        block = out.keys_values(0, offset, nodes, 0)
        self._keep(laid_out, [prefix], out, 0)
        return out.at(0, nodes[-1:])[0], block

    def _answer(
        self,
        fed: Sequence[EncodedPrompt],
        asked: Sequence[EncodedPrompt],
        read: Any,
        *,
        chained: bool = False,
    ) -> list[Answer]:
        values: list[FloatArray] = [np.empty(0)] * len(asked)
        computed = [0] * len(asked)
        for stage in self._plan(fed):
            laid_out = [self._lay_out(row, fed, row.members, chained) for row in stage]
            for batch in self._batches(laid_out):
                out = self._forward([item.run for item in batch])
                for b, item in enumerate(batch):
                    members, trunk = item.row.members, item.row.trunk
                    found = read(item, partial(out.at, b), [asked[i] for i in members])
                    for i, value in zip(members, found, strict=True):
                        values[i] = value
                    kept = [trunk] if trunk else [_kept(fed[i], chained) for i in members]
                    self._keep(item, kept, out, b)
                    owners = members or (item.row.owner,)
                    for i, n in zip(owners, item.computed, strict=True):
                        computed[i] += n
        return [Answer(v, n) for v, n in zip(values, computed, strict=True)]

    def _plan(self, questions: Sequence[EncodedPrompt]) -> list[list[Row]]:
        if not self._reuse:
            return [[Row((), (i,)) for i in range(len(questions))]]
        return shared_rows(questions, self.cache.match, self._row_tokens)

    def _lay_out(
        self,
        row: Row,
        questions: Sequence[EncodedPrompt],
        members: Sequence[int],
        chained: bool,
    ) -> _LaidOut:
        past = self.cache.find(row.root)
        tree = TokenTree(sum(piece.shape[2] for piece in past))
        laid_out = _LaidOut(row, TreeRow(tree, past), chained, [], [], [])
        paths = [questions[i] for i in members] or [EncodedPrompt("", row.trunk, ())]
        for question in paths:
            before = len(tree)
            nodes = tree.add(question.prefix[tree.offset :])
            laid_out.prefixes.append(nodes)
            laid_out.options.append(_add_options(tree, question, nodes[-1], chained))
            laid_out.computed.append(len(tree) - before)
        return laid_out

    def _batches(self, rows: list[_LaidOut]) -> Iterator[list[_LaidOut]]:
        """Rows of similar length together, up to ``batch_tokens`` with padding."""
        batch: list[_LaidOut] = []
        for item in sorted(rows, key=lambda r: -len(r.run.tree)):
            widest = len(batch[0].run.tree) if batch else 0
            full = (len(batch) + 1) * widest > self._batch_tokens
            wasteful = len(item.run.tree) < 0.75 * widest and len(batch) * widest >= _ENOUGH
            if batch and (full or wasteful):
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch

    def _read_letters(
        self, item: _LaidOut, at: States, asked: Sequence[EncodedPrompt]
    ) -> list[FloatArray]:
        ids = [torch.tensor([o[0] for o in q.options], device=self._device) for q in asked]
        pairs = zip(item.prefixes, ids, strict=False)
        found = [self.head.logits(at(nodes[-1:]), letters)[0] for nodes, letters in pairs]
        return [logits.double().cpu().numpy() for logits in found]

    def _read_texts(
        self, item: _LaidOut, at: States, asked: Sequence[EncodedPrompt]
    ) -> list[FloatArray]:
        """All options of all members in one pass through the head."""
        nodes: list[int] = []
        for prefix, paths in zip(item.prefixes, item.options, strict=True):
            for path in paths:
                nodes += [prefix[-1], *path]
        options = [option for question in asked for option in question.options]
        if not options:
            return []
        unique, where = np.unique(nodes, return_inverse=True)
        logprobs = self.head.shared_logprobs(
            at(unique.tolist()),
            torch.as_tensor(where, device=self._device),
            torch.tensor([i for option in options for i in option], device=self._device),
        )
        by_option = np.split(logprobs.double().cpu().numpy(), np.cumsum([*map(len, options)])[:-1])
        sums = np.array([part.sum() for part in by_option])
        return np.split(sums, np.cumsum([len(question.options) for question in asked])[:-1])

    def _read_lines(
        self, head: OptionHead, item: _LaidOut, at: States, asked: Sequence[EncodedPrompt]
    ) -> list[FloatArray]:
        pairs = zip(asked, item.options, strict=False)
        return [head.scores(at([path[-1] for path in paths])) for _, paths in pairs]

    def _keep(
        self, item: _LaidOut, prefixes: Sequence[tuple[int, ...]], out: TreeOutput, b: int
    ) -> None:
        offset = item.run.tree.offset
        for k, prefix in enumerate(prefixes):
            self.cache.insert(prefix, partial(out.keys_values, b, offset, item.nodes(k)))


def _kept(question: EncodedPrompt, chained: bool) -> tuple[int, ...]:
    """The tokens that later questions may begin with."""
    return question.prefix + tuple(i for o in question.options for i in o if chained)


def _add_options(
    tree: TokenTree, question: EncodedPrompt, parent: int, chained: bool
) -> list[list[int]]:
    """Nodes of each option, see :class:`_LaidOut`."""
    paths = []
    for option in question.options:
        paths.append(tree.add(option if chained else option[:-1], parent))
        if chained:
            parent = paths[-1][-1]
    return paths
