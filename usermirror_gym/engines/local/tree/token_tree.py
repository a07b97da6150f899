"""Many token sequences that share beginnings, laid out as one row of a forward pass.

A row holds every distinct token of a set of paths once; a token attends to its own ancestors only
(tree attention).  K options behind one prefix, or the slates of one user, then cost one short pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from usermirror_gym.types import BoolArray, IntArray

ROOT = -1
"""Parent of the first tokens of a row: they attend to the cached tokens only."""


class TokenTree:
    """Tokens of one row behind ``offset`` tokens that are already in a KV cache."""

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        self.tokens: list[int] = []
        self._parents: list[int] = []
        self._depths: list[int] = []
        self._children: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, path: Sequence[int], parent: int = ROOT) -> list[int]:
        """Insert a path below ``parent``; the index of each of its tokens in the row."""
        indices = []
        for token in path:
            node = self._children.get((parent, token))
            if node is None:
                node = self._append(token, parent)
            indices.append(node)
            parent = node
        return indices

    def _append(self, token: int, parent: int) -> int:
        node = len(self.tokens)
        self._children[(parent, token)] = node
        self.tokens.append(token)
        self._parents.append(parent)
        self._depths.append(0 if parent == ROOT else self._depths[parent] + 1)
        return node

    def positions(self) -> IntArray:
        """``(T,)`` position of every token in its own sequence."""
        return np.asarray(self._depths, np.int64) + self.offset

    def ancestors(self) -> BoolArray:
        """``(T, T)``: row i marks the tokens that token i attends to, itself included."""
        visible = np.eye(len(self), dtype=np.bool_)
        for node, parent in enumerate(self._parents):
            if parent != ROOT:
                visible[node] |= visible[parent]
        return visible


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences share at their beginning."""
    if a == b:
        return len(a)
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n
