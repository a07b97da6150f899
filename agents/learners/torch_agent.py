"""Agents that are trained by gradients: modules, optimizer, experience."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from usermirror_gym.agents.base import Transition
from usermirror_gym.agents.learners.learning import LearningAgent
from usermirror_gym.agents.learners.settings import TorchSettings
from usermirror_gym.agents.learners.two_tower import ITEM_TABLES
from usermirror_gym.agents.saved import Arrays
from usermirror_gym.threads import one_thread
from usermirror_gym.types import PAD, BoolArray, IntArray, Observation

_MOMENTS, _EXPERIENCE = "optimizer.", "experience."


class TorchAgent(LearningAgent):
    """Adam (Kingma & Ba, ICLR 2015) on the loss of an agent, some epochs per iteration."""

    settings: TorchSettings
    modules: dict[str, nn.Module]

    def _begin(self) -> None:
        self.modules = self._modules()
        rate, item_rate = self.settings.learning_rate, self.settings.item_learning_rate
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self._trained_parameters():
            own = item_rate if name.split(".")[-1] in ITEM_TABLES else rate
            groups.setdefault(own, []).append(parameter)
        self._optimizer = torch.optim.Adam(
            [{"params": own, "lr": lr} for lr, own in groups.items()]
        )
        self._experience = Experience()

    def recommend(self, observations: Observation, k: int) -> IntArray:
        """See :class:`usermirror_gym.agents.Agent`; also a function of ``explore``."""
        with one_thread():
            return super().recommend(observations, k)

    def _observe(self, transition: Transition) -> None:
        with one_thread():
            self._experience.add(self._record(transition))

    def _learn(self) -> dict[str, float]:
        with one_thread():
            return self._descended()

    def _descended(self) -> dict[str, float]:
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
        parts = (module_arrays(m, f"{name}.") for name, m in self.modules.items())
        return {k: v for part in parts for k, v in part.items()}

    def _take_policy(self, arrays: Arrays) -> None:
        for name, module in self.modules.items():
            load_module(module, arrays, f"{name}.")

    def training_arrays(self) -> Arrays:
        """Moments of the optimizer, and experience."""
        rows = {_EXPERIENCE + k: v for k, v in self._experience.arrays().items()}
        return rows | optimizer_arrays(self._optimizer, _MOMENTS)

    def take_training(self, arrays: Arrays) -> None:
        """What :meth:`training_arrays` gave."""
        load_optimizer(self._optimizer, arrays, _MOMENTS)
        self._experience = Experience({
            k.removeprefix(_EXPERIENCE): v for k, v in arrays.items() if k.startswith(_EXPERIENCE)
        })  # fmt: skip

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
        return [pair for module in self.modules.values() for pair in module.named_parameters()]

    def _after_step(self) -> None:
        """After each gradient step."""


def module_arrays(module: nn.Module, prefix: str = "") -> dict[str, np.ndarray]:
    """Copies of parameters and buffers by name."""
    return {prefix + k: v.detach().cpu().numpy().copy() for k, v in module.state_dict().items()}


def load_module(module: nn.Module, arrays: dict[str, np.ndarray], prefix: str = "") -> None:
    """Take what :func:`module_arrays` gave.

    Raises:
        RuntimeError: names or shapes differ.
    """
    own = {k.removeprefix(prefix): torch.from_numpy(np.array(v)) for k, v in arrays.items()
           if k.startswith(prefix)}  # fmt: skip
    module.load_state_dict(own)


def optimizer_arrays(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, np.ndarray]:
    """The moments of an optimizer; its settings are not among them."""
    state = optimizer.state_dict()["state"]
    return {
        f"{prefix}{number}.{name}": np.asarray(torch.as_tensor(value).numpy()).copy()
        for number, values in state.items()
        for name, value in values.items()
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, arrays: dict[str, np.ndarray], prefix: str
) -> None:
    """Take what :func:`optimizer_arrays` gave."""
    content = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in arrays.items():
        if key.startswith(prefix):
            number, name = key.removeprefix(prefix).split(".")
            state.setdefault(int(number), {})[name] = torch.from_numpy(np.array(value))
    content["state"] = state
    optimizer.load_state_dict(content)


Columns = dict[str, np.ndarray]


@dataclass
class Experience:
    """Columns, oldest row first; ``iteration`` is the one in which a row was made."""

    columns: Columns = field(default_factory=dict)
    _new: list[Columns] = field(default_factory=list)

    def __len__(self) -> int:
        self._settle()
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def add(self, columns: Columns) -> None:
        """Rows behind those that are there."""
        self._new.append({name: np.array(values) for name, values in columns.items()})

    def arrays(self) -> Columns:
        """All columns, each in one piece."""
        self._settle()
        return self.columns

    def last(self, count: int) -> Self:
        """The newest rows."""
        return self.where(np.arange(len(self)) >= len(self) - count)

    def where(self, mask: np.ndarray) -> Self:
        """Some rows."""
        return type(self)({name: values[mask] for name, values in self.arrays().items()})

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[Columns]:
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
