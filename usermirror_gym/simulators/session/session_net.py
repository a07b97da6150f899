"""The network of the session readout: from a whole history and a list to two numbers per option.

Every item is a vector as a line of the past, ``p(i)``, a vector as an option, ``o(i)``, and a
number that it has for everybody, ``b(i)``: a linear map of what the LLM says of its line, plus, of
items of training, what the words leave open.  A user is the sequence of what they took, all of it::

    taste_g = n ** power_g * sum over lines m of softmax(lag_g + age_g + rating_g)[m] * p_g(m)
    q       = taste + profile + passed + returning, mixed by one hidden layer
    match(i) = q . o(i) + again(i) + shown(i)            general(i) = b(i)

Lines are weighed by how many lie behind them, how long ago they were, and how they were rated, in G
parts of the vector apart; n is their number (a set is read better if its size is not forgotten:
Zaheer et al., Deep Sets, 2017).  ``passed`` is a linear map of the mean of what was shown
and not taken, ``returning`` what those look for who come back after an hour.
``again`` and ``shown`` count what the option's own lines in both add.

An option's numbers do not depend on the rest of the list: one question about the union of lists
answers each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, embedding_bag

from usermirror_gym.types import PAD, Float32Array, FloatArray, IntArray

LAGS, AGES, MARKS = 18, 7, 6
"""Classes of how many lines lie behind one, of its age, and of its rating."""
_AGE_EDGES = np.array([0, 61, 601, 3601, 86_401, 30 * 86_400])
"""Seconds: a minute, ten, an hour, a day, thirty days."""
UNKNOWN_TIME, JUST_NOW, FAR, LONG_AGO = 0, 1, 4, 5
"""Classes of ages; from ``FAR`` on it is an hour and more."""
GAIN = 8.0
"""Vectors start small and learn with this much more speed."""


@dataclass(frozen=True)
class SessionShape:
    """Sizes of a :class:`SessionNet`.

    Attributes:
        dim: numbers of an item's vector, a multiple of ``tastes``.
        tastes: G, ways to weigh the lines of the past.
        lines: newest lines of the past that count.
        profiles: values of profile features; 0 for none.
    """

    dim: int = 64
    tastes: int = 2
    lines: int = 1000
    profiles: int = 0


class ItemTables(NamedTuple):
    """Vectors of items, row 0 for padding."""

    past: Tensor  # (n + 1, d)
    option: Tensor  # (n + 1, d)
    bias: Tensor  # (n + 1,)


class Lines(NamedTuple):
    """What B users did, oldest first, padded with 0 on the right; tensors, or arrays alike."""

    items: Tensor  # (B, L) rows of the tables
    ages: Tensor  # (B, L) see :func:`age_classes`
    marks: Tensor  # (B, L) see :func:`rating_classes`
    passed: Tensor  # (B, M) rows of the tables: what was shown to them and not taken
    profiles: Tensor  # (B, C) one value per profile feature; 0 for unknown


class SessionNet(nn.Module):
    """See the module.

    Args:
        shape: its sizes.
        seed: of the initial weights.
        dropout: share of the lines, and of the hidden numbers, that are left out in training.
    """

    def __init__(self, shape: SessionShape, *, seed: int = 0, dropout: float = 0.2) -> None:
        super().__init__()
        self.shape = shape
        draw = torch.Generator().manual_seed(seed)
        dim, groups = shape.dim, shape.tastes

        def normal(*size: int, scale: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(*size, generator=draw) * scale)

        self.lag = nn.Parameter(torch.zeros(groups, LAGS))
        self.age = nn.Parameter(torch.zeros(groups, AGES))
        self.mark = nn.Parameter(torch.zeros(groups, MARKS))
        liked = torch.tensor([1.0, 0.4, 0.6, 0.8, 1.0, 1.2])
        self.scale = nn.Parameter(liked.repeat(groups, 1))
        self.mark_vector = normal(MARKS, dim, scale=0.02)
        self.power = nn.Parameter(torch.full((groups,), 0.25))
        self.returning = nn.Parameter(torch.zeros(dim))
        self.profile = nn.Parameter(torch.zeros(shape.profiles + 1, dim))
        self.passed = nn.Parameter(torch.zeros(dim, dim))
        self.norm = nn.LayerNorm(dim)
        self.inner = normal(dim, 2 * dim, scale=dim**-0.5)
        self.inner_bias = nn.Parameter(torch.zeros(2 * dim))
        self.outer = normal(2 * dim, dim, scale=0.3 * (2 * dim) ** -0.5)
        self.again = nn.Parameter(torch.zeros(()))
        self.shown = nn.Parameter(torch.zeros(()))
        self.dropout = nn.Dropout(dropout)

    def query(self, lines: Lines, past: Tensor) -> Tensor:
        """``(B, d)`` what the users look for.

        Args:
            past: ``(n + 1, d)`` of :class:`ItemTables`.
        """
        real = lines.items != PAD
        count = real.sum(dim=1)
        behind = (count[:, None] - 1 - torch.arange(real.shape[1])).clamp(min=0)
        lag = lag_classes(behind)
        kept = real
        if self.training and self.dropout.p:
            # A part of the lines must do, where there are enough for a part.
            drawn = real & (torch.rand(real.shape) >= self.dropout.p)
            kept = torch.where(drawn.any(dim=1, keepdim=True), drawn, real)
        size = count.clamp(min=1).float()
        width = self.shape.dim // self.shape.tastes
        parts = past.view(len(past), self.shape.tastes, width).transpose(0, 1).contiguous()
        tastes = []
        marked = self.mark_vector.split(width, dim=1)
        for g, part in enumerate(parts):
            logits = self.lag[g][lag] + self.age[g][lines.ages] + self.mark[g][lines.marks]
            share = torch.softmax(logits.masked_fill(~kept, -1e30), dim=1) * kept
            weight = share * self.scale[g][lines.marks]
            pooled = GAIN * embedding_bag(lines.items, part, mode="sum", per_sample_weights=weight)
            by_mark = weight.new_zeros(len(weight), MARKS).scatter_add(1, lines.marks, weight)
            pooled = pooled + _times(by_mark, marked[g])
            tastes.append(pooled * (size ** self.power[g])[:, None])
        newest = lines.ages.gather(1, (count - 1).clamp(min=0)[:, None])
        taste = torch.cat(tastes, dim=1) + (newest >= FAR) * self.returning
        known = (lines.profiles != PAD).float()[:, :, None]
        taste = taste + (self.profile[lines.profiles] * known).sum(dim=1)
        if lines.passed.shape[1]:
            share = (lines.passed != PAD).float()
            share = share / share.sum(dim=1, keepdim=True).clamp(min=1)
            mean = GAIN * embedding_bag(lines.passed, past, mode="sum", per_sample_weights=share)
            taste = taste + _times(mean, self.passed)
        hidden = torch.nn.functional.gelu(_times(self.norm(taste), self.inner) + self.inner_bias)
        query: Tensor = taste + _times(self.dropout(hidden), self.outer)
        return query

    def match(
        self, query: Tensor, lines: Lines, slates: Tensor, option: Tensor, past: Tensor
    ) -> Tensor:
        """``(B, K)`` how much each option is what its user looks for.

        Sums over one axis, not products of matrices: an option's number does not depend on its
        place, on the list, or on the batch.

        Args:
            slates: ``(B, K)`` rows of the tables, 0 behind.
            option, past: of :class:`ItemTables`.
        """
        match = (embedding(slates, option) * query[:, None, :]).sum(dim=-1)
        again = _times_in(slates, lines.items).clamp(max=1)
        shown = torch.log1p(_times_in(slates, lines.passed).float())
        return match + self.again * again + self.shown * shown


def _times(values: Tensor, matrix: Tensor) -> Tensor:
    """``values @ matrix``; in inference row by row, so that the batch does not matter."""
    if torch.is_grad_enabled():
        return values @ matrix
    return (values[:, :, None] * matrix).sum(dim=1)


def _times_in(slates: Tensor, rows: Tensor) -> Tensor:
    """``(B, K)`` how often each option is among the rows."""
    if rows.shape[1] == 0:
        return torch.zeros_like(slates)
    wide = torch.zeros((), dtype=torch.long)
    counts = [(rows == column[:, None]).sum(dim=1) for column in slates.T] or [wide]
    return torch.stack(counts, dim=1) * (slates != PAD)


def lag_classes(behind: Tensor) -> Tensor:
    """Classes of how many lines lie behind one, two for every doubling."""
    return (torch.log2(behind + 1.0) * 2.0).long().clamp(max=LAGS - 1)


def age_classes(ages: IntArray) -> IntArray:
    """Classes of seconds since something happened: 0 for unknown (below 0), 1 .. 6 for up to a
    minute, ten, an hour, a day, thirty days, and more."""
    found: IntArray = np.where(ages < 0, UNKNOWN_TIME, np.searchsorted(_AGE_EDGES, ages, "right"))
    return found


def rating_classes(ratings: Float32Array | FloatArray, lowest: float, highest: float) -> IntArray:
    """Classes of ratings: 0 for none (NaN), 1 .. 5 for fifths of the scale."""
    span = max(highest - lowest, 1e-9)
    share = np.nan_to_num((np.asarray(ratings, np.float64) - lowest) / span)
    fifths = np.clip(np.floor(share * 5), 0, 4).astype(np.int64) + 1
    return np.where(np.isnan(ratings), 0, fifths)
