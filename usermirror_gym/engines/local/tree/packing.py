"""Which questions share a row of a forward pass, and which shared beginnings are computed first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from usermirror_gym.engines.local.encoding import EncodedPrompt
from usermirror_gym.types import BoolArray, IntArray

ROOT = -1
"""Parent of the first tokens of a row: they attend to the cached tokens only."""


class TokenTree:
    """Tokens of one row behind ``offset`` tokens that are already in a KV cache.

    A row holds every distinct token of a set of paths once; a token attends to its own ancestors
    only (tree attention).  K options behind one prefix, or the slates of one user, then cost one
    short pass.
    """

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


Tokens = tuple[int, ...]
MIN_SHARED = 8
"""A shared beginning shorter than this is computed again rather than in a pass of its own."""


@dataclass(frozen=True)
class Row:
    """One row of a forward pass.

    Attributes:
        root: tokens whose keys should come from the cache.
        members: indices of the questions answered in this row.
        trunk: a shared beginning that is only computed and kept, for later rows.
        owner: the question that the trunk's tokens are charged to.
    """

    root: Tokens
    members: tuple[int, ...] = ()
    trunk: Tokens = ()
    owner: int = -1


def shared_rows(
    questions: Sequence[EncodedPrompt], match: Callable[[Tokens], int], row_tokens: int
) -> list[list[Row]]:
    """Rows in stages; those of one stage may run together, in any order.

    Args:
        questions: Q encoded prompts.
        match: how many leading tokens of a prefix are in the cache.
        row_tokens: the most new tokens a row of several questions should have.
    """
    return _Planner(questions, match, row_tokens).stages


class _Planner:
    """Walks down the tree of shared beginnings.  Works on slices of the sorted questions."""

    def __init__(
        self, questions: Sequence[EncodedPrompt], match: Callable[[Tokens], int], row_tokens: int
    ) -> None:
        self._row_tokens = row_tokens
        self._order = sorted(range(len(questions)), key=lambda i: questions[i].prefix)
        self._sorted = [questions[i] for i in self._order]
        prefixes = [q.prefix for q in self._sorted]
        self._known = [match(p[:-1]) for p in prefixes]
        # The last token of a prefix is never shared as a trunk: the answer is read there.
        self._lcp = [0] + [
            min(common_prefix(a, b), len(a) - 1, len(b) - 1) for a, b in pairwise(prefixes)
        ]
        self.stages: list[list[Row]] = []
        if questions:
            self._visit(0, len(questions), 0)

    def _visit(self, start: int, stop: int, stage: int) -> None:
        shared = self._shared(start, stop)
        known = min(shared, self._known[start])
        if self._fits(start, stop, known):
            self._emit(stage, start, stop, known)
            return
        if shared - known >= MIN_SHARED:
            self._emit_trunk(stage, start, shared, known)
            known, stage = shared, stage + 1
            for i in range(start, stop):
                self._known[i] = max(self._known[i], shared)
        self._pack(self._branches(start, stop, shared), known, stage)

    def _pack(self, branches: list[tuple[int, int]], known: int, stage: int) -> None:
        """Neighbouring branches into rows of about equal size; too large ones are walked down."""
        total = sum(self._cost(a, b, known) for a, b in branches)
        target = total / math.ceil(total / self._row_tokens)
        pending: tuple[int, int] | None = None
        for start, stop in branches:
            if pending and self._fits(pending[0], stop, known, 1.1 * target):
                pending = (pending[0], stop)
                continue
            self._flush(pending, known, stage)
            pending = None
            if self._fits(start, stop, known):
                pending = (start, stop)
            else:
                self._visit(start, stop, stage)
        self._flush(pending, known, stage)

    def _flush(self, pending: tuple[int, int] | None, known: int, stage: int) -> None:
        if pending:
            self._emit(stage, *pending, known)

    def _branches(self, start: int, stop: int, shared: int) -> list[tuple[int, int]]:
        """Slices whose members go on alike after the shared beginning; single questions if that
        does not divide them (equal prefixes)."""
        cuts = [i for i in range(start + 1, stop) if self._lcp[i] <= shared]
        if len(cuts) == 0 or cuts == list(range(start + 1, stop)):
            cuts = list(range(start + 1, stop))
        return list(zip([start, *cuts], [*cuts, stop], strict=True))

    def _shared(self, start: int, stop: int) -> int:
        if stop - start == 1:
            return len(self._sorted[start].prefix) - 1
        return min(self._lcp[start + 1 : stop])

    def _fits(self, start: int, stop: int, known: int, limit: float | None = None) -> bool:
        """Whether the slice is one row: small enough, and nothing cached would be recomputed."""
        if stop - start == 1:
            return True
        if any(self._known[i] > known for i in range(start, stop)):
            return False
        return self._cost(start, stop, known) <= (limit or self._row_tokens)

    def _cost(self, start: int, stop: int, known: int) -> int:
        """New tokens of a row behind ``known`` ones."""
        cost = 0
        for i in range(start, stop):
            question = self._sorted[i]
            shared = known if i == start else max(known, self._lcp[i])
            cost += len(question.prefix) - shared + sum(len(o) - 1 for o in question.options)
        return cost

    def _emit(self, stage: int, start: int, stop: int, known: int) -> None:
        if stop - start == 1:
            known = self._known[start]
        members = tuple(self._order[start:stop])
        self._stage(stage).append(Row(self._sorted[start].prefix[:known], members))

    def _emit_trunk(self, stage: int, start: int, shared: int, known: int) -> None:
        prefix = self._sorted[start].prefix
        row = Row(prefix[:known], trunk=prefix[:shared], owner=self._order[start])
        self._stage(stage).append(row)

    def _stage(self, stage: int) -> list[Row]:
        while len(self.stages) <= stage:
            self.stages.append([])
        return self.stages[stage]
