"""Agents that are trained by gradients: the two towers they score with, optimizer, experience."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Self

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from usermirror_gym.agents.base import Transition
from usermirror_gym.agents.learners.item_space import ItemSpace
from usermirror_gym.agents.learners.learning import LearningAgent
from usermirror_gym.agents.saved import Arrays
from usermirror_gym.configs.settings import Positive, Settings
from usermirror_gym.threads import one_thread
from usermirror_gym.types import PAD, BoolArray, IntArray, Observation

ITEM_TABLES = ("history", "option")
"""Parameters with a vector per item, which learn at a rate of their own."""
_MOMENTS, _EXPERIENCE = "optimizer.", "experience."


class TorchSettings(Settings):
    """Shared by the agents that are trained by gradients."""

    d: Positive = 64
    """Item factors."""
    history: Positive = 20
    """Newest items of the history that count."""
    learning_rate: PositiveFloat = 2e-3
    item_learning_rate: NonNegativeFloat = 1e-4
    """Of the numbers that belong to single items: each is seen rarely, and was good before."""
    batch_size: Positive = 256
    epochs: Positive = 2
    """Times that the experience of an iteration is gone through."""
    discount: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Gamma, per list."""


class TorchAgent(LearningAgent):
    """Adam (Kingma & Ba, ICLR 2015) on the loss of an agent, some epochs per iteration."""

    settings: TorchSettings

    def _begin(self) -> None:
        self.modules = nn.ModuleDict(self._modules())
        rate, item_rate = self.settings.learning_rate, self.settings.item_learning_rate
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self._trained_parameters():
            own = item_rate if name.split(".")[-1] in ITEM_TABLES else rate
            groups.setdefault(own, []).append(parameter)
        self._optimizer = torch.optim.Adam(
            [{"params": own, "lr": lr} for lr, own in groups.items()]
        )
        self._experience = Experience()

    @one_thread()
    def recommend(self, observations: Observation, k: int) -> IntArray:
        """See :class:`usermirror_gym.agents.Agent`; also a function of ``explore``."""
        return super().recommend(observations, k)

    @one_thread()
    def _observe(self, transition: Transition) -> None:
        self._experience.add(self._record(transition))

    @one_thread()
    def _learn(self) -> dict[str, float]:
        """Some epochs over what is remembered; means of the losses."""
        self._experience = self._forget(self._experience)
        if not len(self._experience):
            return {}
        rng = np.random.default_rng([self.seed, self.iteration])
        sums: dict[str, float] = {}
        steps = 0
        for _ in range(self.settings.epochs):
            for rows in self._experience.batches(self.settings.batch_size, rng):
                batch = {name: torch.from_numpy(values) for name, values in rows.items()}
                for name, value in self._descend(batch).items():
                    sums[name] = sums.get(name, 0.0) + value
                steps += 1
        return {name: total / steps for name, total in sums.items()} | {"gradient_steps": steps}

    def _seen(self, users: Tensor, history: Tensor) -> BoolArray:
        """``(B, n_items + 1)`` what users that are remembered must not be shown.

        Args:
            history: ``(B, H)`` the whole observed history, in any order, 0 behind it.
        """
        items = history.numpy()
        lengths = (items != PAD).sum(axis=1)
        return self.space.mask(
            {"user_id": users.numpy(), "history_items": items, "history_length": lengths}
        )

    def _descend(self, batch: dict[str, Tensor]) -> dict[str, float]:
        losses = self._loss(batch)
        self._optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_([p for _, p in self._trained_parameters()], 10.0)
        self._optimizer.step()
        self._after_step()
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def _policy_arrays(self) -> Arrays:
        return {name: v.numpy().copy() for name, v in self.modules.state_dict().items()}

    def _take_policy(self, arrays: Arrays) -> None:
        self.modules.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in arrays.items()})

    def training_arrays(self) -> Arrays:
        """Moments of the optimizer, and experience."""
        found = {_EXPERIENCE + k: v for k, v in self._experience.arrays().items()}
        return found | moments_of(self._optimizer)

    def take_training(self, arrays: Arrays) -> None:
        """What :meth:`training_arrays` gave."""
        rows = {k: v for k, v in arrays.items() if k.startswith(_EXPERIENCE)}
        set_moments(self._optimizer, {k: v for k, v in arrays.items() if k not in rows})
        self._experience = Experience({k.removeprefix(_EXPERIENCE): v for k, v in rows.items()})

    @abstractmethod
    def _modules(self) -> dict[str, nn.Module]:
        """New ones, from ``space``; no randomness but that of the seed."""

    @abstractmethod
    def _record(self, transition: Transition) -> Arrays:
        """What is remembered of N user-steps: columns of N rows."""

    @abstractmethod
    def _forget(self, experience: Experience) -> Experience:
        """What of it is learned from now, and kept."""

    @abstractmethod
    def _loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Terms by name; their sum is minimised."""

    def _trained_parameters(self) -> list[tuple[str, nn.Parameter]]:
        return list(self.modules.named_parameters())

    def _after_step(self) -> None:
        """After each gradient step."""


def moments_of(optimizer: torch.optim.Optimizer) -> Arrays:
    """What an optimizer has noted of its parameters, by their numbers."""
    found = {}
    for number, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            found[f"{_MOMENTS}{number}.{name}"] = torch.as_tensor(value).numpy().copy()
    return found


def set_moments(optimizer: torch.optim.Optimizer, arrays: Arrays) -> None:
    """What :func:`moments_of` gave, into an optimizer of the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in arrays.items():
        number, name = key.removeprefix(_MOMENTS).split(".")
        state.setdefault(int(number), {})[name] = torch.from_numpy(np.array(value))
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


@dataclass
class Experience:
    """Columns, oldest row first; ``iteration`` is the one in which a row was made."""

    columns: Arrays = field(default_factory=dict)
    _new: list[Arrays] = field(default_factory=list)

    def __len__(self) -> int:
        self._settle()
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def add(self, columns: Arrays) -> None:
        """Rows behind those that are there."""
        self._new.append({name: np.array(values) for name, values in columns.items()})

    def arrays(self) -> Arrays:
        """All columns, each in one piece."""
        self._settle()
        return self.columns

    def last(self, count: int) -> Self:
        """The newest rows."""
        return self.where(np.arange(len(self)) >= len(self) - count)

    def where(self, mask: np.ndarray) -> Self:
        """Some rows."""
        return type(self)({name: values[mask] for name, values in self.arrays().items()})

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[Arrays]:
        """All rows once, in a random order."""
        order = rng.permutation(len(self))
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            yield {name: values[rows] for name, values in self.columns.items()}

    def _settle(self) -> None:
        if self._new:
            pieces = ([self.columns] if self.columns else []) + self._new
            self.columns = {k: np.concatenate([p[k] for p in pieces]) for k in pieces[0]}
            self._new = []


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
