"""Reads whole histories in a surrogate: what the session readout's network does, quickly.

What a history adds is pooled apart from the session::

    taste_g = n ** power_g * (pooled_g(history) + sum over lines taken) / (weights of both)

The lines of a history weigh less the more was taken since, so that what is pooled depends on the
history and on that number alone: of users at T0 it is computed once.  Everything behind is
:class:`~usermirror_gym.simulators.session.session_net.SessionNet`, whose weights these are.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from usermirror_gym.simulators.session.session_net import (
    JUST_NOW,
    MARKS,
    SessionNet,
    SessionShape,
    lag_classes,
)
from usermirror_gym.simulators.surrogate.histories import Histories, LineStore, Whole
from usermirror_gym.types import PAD, IntArray

_LEAST = 1e-20
"""Weight of no line at all."""
_BLOCK = 32
_KEPT = 2**20
"""Most pairs of a history and a number of lines taken of which something is kept."""


class HistoryReader(SessionNet):
    """See the module.  Vectors of items are given; no line is left out while it learns."""

    def __init__(self, shape: SessionShape, *, seed: int = 0) -> None:
        super().__init__(shape, seed=seed, dropout=0.0)

    def pool(self, histories: Histories, turns: Tensor, past: Tensor) -> Tensor:
        """``(B, d + G)`` of the history alone: weighted sums of its vectors, sums of the weights.

        Args:
            turns: ``(B,)`` how many lines stand before its newest one.
            past: ``(G, n + 1, d / G)`` vectors of the items.
        """
        store, groups = histories.store, self.shape.tastes
        sizes = histories.lengths
        begins = np.cumsum(sizes) - sizes
        row = np.repeat(np.arange(len(sizes)), sizes)
        place = np.arange(len(row)) - begins[row]
        at = store.starts[histories.of][row] + place
        behind = torch.from_numpy(sizes[row] - 1 - place) + turns[torch.from_numpy(row)]
        items, ages, marks = (
            torch.from_numpy(column[at]) for column in (store.items, store.ages, store.marks)
        )
        kept, lag, bags = behind < self.shape.lines, lag_classes(behind), torch.from_numpy(begins)
        ones, sums, totals = torch.ones(MARKS, 1), [], []
        for g in range(groups):
            logits = self.lag[g][lag] + self.age[g][ages] + self.mark[g][marks]
            weight = logits.exp() * kept
            scaled = weight * self.scale[g][marks]
            sums.append(_bags(items, bags, past[g], scaled) + _bags(
                marks, bags, self._mark_vector(g), scaled))  # fmt: skip
            totals.append(_bags(marks, bags, ones, weight))
        return torch.cat([*sums, *totals], dim=1)

    def look(self, pooled: Tensor, whole: Whole, profiles: Tensor, past: Tensor) -> Tensor:
        """``(B, d)`` what the users look for.

        Args:
            pooled: of :meth:`pool`.
            profiles: ``(B, C)``, 0 for unknown.
            past: ``(G, n + 1, d / G)``.
        """
        groups, dim = self.shape.tastes, self.shape.dim
        taken, size = whole.taken, whole.count.clamp(min=1).float()
        turns = (taken != PAD).sum(dim=1)
        behind = torch.arange(taken.shape[1])
        known, tastes = (taken != PAD) & (behind < self.shape.lines), []
        for g, (own, total) in enumerate(
            zip(pooled[:, :dim].chunk(groups, dim=1), pooled[:, dim:].T, strict=True)
        ):
            logits = self.lag[g][lag_classes(behind)] + self.age[g][JUST_NOW] + self.mark[g][0]
            weight = logits.exp()  # (T,)
            # As far as the row's own number goes: what others took does not matter.
            reached = torch.cat([weight.new_zeros(1), weight.cumsum(dim=0)])[turns]
            scaled = weight * self.scale[g][0] * known
            own = own + embedding_bag(taken, past[g], mode="sum", per_sample_weights=scaled)
            own = own + (reached * self.scale[g][0])[:, None] * self._mark_vector(g)[0]
            mean = own / (total + reached).clamp(min=_LEAST)[:, None]
            tastes.append(mean * (size ** self.power[g])[:, None])
        taste = torch.cat(tastes, dim=1) + whole.far.float()[:, None] * self.returning
        if profiles.shape[1]:
            told = (profiles != PAD).float()
            own = embedding_bag(profiles, self.profile, mode="sum", per_sample_weights=told)
            taste = taste + own
        if whole.passed.shape[1]:
            share = (whole.passed != PAD).float()
            share = share / share.sum(dim=1, keepdim=True).clamp(min=1)
            refused = [
                embedding_bag(whole.passed, table, mode="sum", per_sample_weights=share)
                for table in past
            ]
            taste = taste + times(torch.cat(refused, dim=1), self.passed)
        hidden = times(self.norm(taste), self.inner) + self.inner_bias
        query: Tensor = taste + times(torch.nn.functional.gelu(hidden), self.outer)
        return query

    def _mark_vector(self, g: int) -> Tensor:
        width = self.shape.dim // self.shape.tastes
        return self.mark_vector[:, g * width : (g + 1) * width].contiguous()


class Pools:
    """What a network makes of histories at T0, kept from when it is first asked for.

    Args:
        pool: :meth:`HistoryReader.pool` of a network, with its vectors.
        store: of all users.
    """

    def __init__(self, pool: Callable[[Histories, Tensor], Tensor], store: LineStore) -> None:
        self._pool, self._store = pool, store
        self._known = np.zeros((0, len(store.starts) - 1), np.bool_)
        self._table = torch.zeros(0, 0, 0)

    def of(self, users: IntArray, turns: Tensor) -> Tensor:
        """``(B, d + G)``; of the very long sessions of very many users nothing is kept.

        Args:
            turns: ``(B,)`` lines that were taken since.
        """
        longest = int(turns.max()) + 1 if len(turns) else 0
        if longest > len(self._known) and longest * self._known.shape[1] > _KEPT:
            return self._pool(Histories(self._store, users), turns)
        rows = turns.numpy()
        self._known = np.pad(self._known, ((0, max(longest - len(self._known), 0)), (0, 0)))
        if not self._known[rows, users].all():
            self._learn(rows, users)
        return self._table[turns, torch.from_numpy(users)]

    def _learn(self, rows: np.ndarray, users: IntArray) -> None:
        asked = np.zeros_like(self._known)
        asked[rows, users] = True
        rows, users = np.nonzero(asked & ~self._known)
        found = self._pool(Histories(self._store, users), torch.from_numpy(rows))
        if len(self._table) < len(self._known):
            table = found.new_zeros(*self._known.shape, found.shape[1])
            if len(self._table):
                table[: len(self._table)] = self._table
            self._table = table
        self._table[rows, users] = found
        self._known[rows, users] = True


def times(values: Tensor, matrix: Tensor) -> Tensor:
    """``values @ matrix``; in inference in blocks of one size: a row's numbers do not depend on the
    batch."""
    if torch.is_grad_enabled():
        return values @ matrix
    count, width = values.shape
    blocks = torch.nn.functional.pad(values, (0, 0, 0, -count % _BLOCK)).view(-1, _BLOCK, width)
    product = torch.bmm(blocks, matrix.expand(len(blocks), -1, -1))
    return product.view(-1, matrix.shape[1])[:count]


def _bags(rows: Tensor, bags: Tensor, table: Tensor, weights: Tensor) -> Tensor:
    return embedding_bag(rows, table, bags, mode="sum", per_sample_weights=weights)
