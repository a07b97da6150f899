"""Keys and values of earlier prefixes, found again by their longest common beginning.

A radix tree of token runs, as SGLang's RadixAttention keeps it (Zheng et al., 2024): sequences that
share a beginning share its memory, and the runs unused for longest are dropped first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from usermirror_gym.engines.local.tree.packing import common_prefix

if TYPE_CHECKING:
    import torch

Tokens = tuple[int, ...]


class _Run:
    """A run of tokens with their keys and values ``(2 * layers, heads, tokens, head_dim)``."""

    __slots__ = ("children", "kv", "parent", "tokens", "used")

    def __init__(self, tokens: Tokens, kv: torch.Tensor | None, parent: _Run | None) -> None:
        self.tokens, self.kv, self.parent = tokens, kv, parent
        self.children: dict[int, _Run] = {}
        self.used = 0


class PrefixCache:
    """LRU cache of prefixes, bounded by a number of tokens.

    Args:
        max_tokens: how many tokens are kept at most; 0 keeps nothing.
    """

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._clock = 0
        self.clear()

    def clear(self) -> None:
        """Keep nothing of what was kept so far."""
        self.n_tokens = 0
        self._root = _Run((), None, None)

    def match(self, tokens: Tokens) -> int:
        """Length of the longest beginning of ``tokens`` that is kept."""
        return sum(n for _, n in self._walk(tokens))

    def find(self, tokens: Tokens) -> list[torch.Tensor]:
        """Keys and values of the longest kept beginning, in pieces along the token dimension."""
        self._clock += 1
        pieces = []
        for run, n in self._walk(tokens):
            run.used = self._clock
            assert run.kv is not None
            pieces.append(run.kv if n == len(run.tokens) else run.kv[:, :, :n])
        return pieces

    def insert(self, tokens: Tokens, compute: Callable[[int], torch.Tensor]) -> None:
        """Keep a prefix.

        Args:
            tokens: the whole prefix.
            compute: given how many leading tokens are kept already, the keys and values of the
                others.
        """
        self._clock += 1
        node, at = self._root, 0
        for run, n in self._walk(tokens):
            node = run if n == len(run.tokens) else self._split(run, n)
            node.used = self._clock
            at += n
        if at == len(tokens) or len(tokens) > self.max_tokens:
            return
        leaf = _Run(tokens[at:], compute(at), node)
        leaf.used = self._clock
        node.children[tokens[at]] = leaf
        self.n_tokens += len(leaf.tokens)
        if self.n_tokens > self.max_tokens:
            self._evict()

    def _walk(self, tokens: Tokens) -> list[tuple[_Run, int]]:
        """Runs along ``tokens`` and how much of each matches (only the last may match in part)."""
        path, node, at = [], self._root, 0
        while at < len(tokens):
            run = node.children.get(tokens[at])
            if run is None:
                break
            n = common_prefix(run.tokens, tokens[at : at + len(run.tokens)])
            path.append((run, n))
            at += n
            if n < len(run.tokens):
                break
            node = run
        return path

    def _split(self, run: _Run, n: int) -> _Run:
        """Cut a run after n tokens; the new upper half."""
        assert run.parent is not None
        assert run.kv is not None
        upper = _Run(run.tokens[:n], run.kv[:, :, :n].clone(), run.parent)
        upper.used = run.used
        run.parent.children[upper.tokens[0]] = upper
        run.tokens, run.kv, run.parent = run.tokens[n:], run.kv[:, :, n:].clone(), upper
        upper.children[run.tokens[0]] = run
        return upper

    def _evict(self) -> None:
        """Drop the leaves unused for longest until a tenth of the room is free."""
        goal = int(0.9 * self.max_tokens)
        while self.n_tokens > goal:
            leaves = sorted(self._leaves(self._root), key=lambda run: run.used)
            for leaf in leaves:
                assert leaf.parent is not None
                del leaf.parent.children[leaf.tokens[0]]
                self.n_tokens -= len(leaf.tokens)
                if self.n_tokens <= goal:
                    return

    def _leaves(self, node: _Run) -> list[_Run]:
        stack, leaves = list(node.children.values()), []
        while stack:
            run = stack.pop()
            if run.children:
                stack.extend(run.children.values())
            else:
                leaves.append(run)
        return leaves
