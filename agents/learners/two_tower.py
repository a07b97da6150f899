"""Two towers: a taste from the newest items of the history, and a vector and a bias per item."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from usermirror_gym.agents.learners.item_space import ItemSpace
from usermirror_gym.types import PAD

ITEM_TABLES = ("history", "option")
"""Parameters with a vector per item, which learn at a rate of their own."""


class TwoTower(nn.Module):
    """``score(s, i) = scale * taste(s) . option(i) + bias(i) + popular * popularity(i)``.

    ``taste(s) = mix(sum over m of softmax(lags)[m] * history(item m))``, newest item first: the
    form of the neural recommenders of Covington et al. (RecSys 2016) and Chen et al. (WSDM 2019).
    Before training it is item-kNN on the factors: both tables are the factors, ``mix`` is the
    identity, biases are 0.  Items themselves learn, and ``mix`` learns for all of them at once.

    Args:
        space: item factors before T0.
        history: L, how many items are looked at.
        scale: of the scores at the beginning.
    """

    def __init__(self, space: ItemSpace, history: int, scale: float = 1.0) -> None:
        super().__init__()
        factors = torch.from_numpy(space.factors.copy())
        self.history = nn.Parameter(factors.clone())
        self.option = nn.Parameter(factors.clone())
        self.bias = nn.Parameter(torch.zeros(len(factors)))
        self.mix = nn.Parameter(torch.eye(space.d))
        self.lags = nn.Parameter(-0.05 * torch.arange(history, dtype=torch.float32))
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.popular = nn.Parameter(torch.tensor(0.0))
        self.register_buffer("popularity", torch.from_numpy(space.popularity.copy()))
        self.popularity: Tensor

    def taste(self, newest: Tensor) -> Tensor:
        """``(N, d)`` from at most L item ids a row, newest first, 0 behind the end."""
        there = newest != PAD
        logits = self.lags[: newest.shape[1]].expand_as(newest).masked_fill(~there, -1e9)
        weights = torch.softmax(logits, dim=1) * there
        return torch.einsum("nl,nld->nd", weights, self.history[newest]) @ self.mix

    def all_scores(self, newest: Tensor) -> Tensor:
        """``(N, n_items + 1)`` of every item."""
        own = self.bias + self.popular * self.popularity
        return self.scale * self.taste(newest) @ self.option.T + own

    def scores(self, newest: Tensor, items: Tensor) -> Tensor:
        """``(N, K)`` of the given items."""
        own = self.bias[items] + self.popular * self.popularity[items]
        match = torch.einsum("nd,nkd->nk", self.taste(newest), self.option[items])
        return self.scale * match + own
