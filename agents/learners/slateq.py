"""SlateQ: Q-learning over slates, decomposed into items by a model of the user's choice."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn

from usermirror_gym.agents.base import Transition
from usermirror_gym.agents.learners.item_space import ItemSpace, newest_items
from usermirror_gym.agents.learners.torch_agent import (
    Experience,
    TorchAgent,
    TorchSettings,
    TwoTower,
)
from usermirror_gym.agents.ranking import hashed_gumbel, hashed_words
from usermirror_gym.agents.saved import Arrays
from usermirror_gym.configs.settings import Positive
from usermirror_gym.types import PAD, Float32Array, Observation

_SCALE = 3.0
_ROUNDS = 4


class SlateQSettings(TorchSettings):
    """Of :class:`SlateQAgent`."""

    replay: Positive = 20_000
    """User-steps that are remembered; the newest."""
    temperature: NonNegativeFloat = 0.5
    """Of the noise on utilities by which slates are explored in training."""
    target_rate: Annotated[float, Field(gt=0, le=1)] = 0.01
    """By how much the target network follows after each gradient step."""


class Values(NamedTuple):
    """Q values of the options of N states."""

    items: Tensor
    """``(N, n_items + 1)`` or ``(N, K)``: of choosing each item."""
    none: Tensor
    """``(N,)``: of *none of these*."""


class _SlateNet(nn.Module):
    """Choice utilities and item-wise Q values, each a :class:`TwoTower` of its own.

    The situation (turns, whether the last list was left untouched) moves all Q values of a user.
    """

    def __init__(self, space: ItemSpace, history: int) -> None:
        super().__init__()
        self.utility = TwoTower(space, history, _SCALE)
        self.outside = nn.Parameter(torch.tensor(0.0))
        self.value = TwoTower(space, history, 0.0)
        self.situation = nn.Linear(2, 2)

    def values(self, newest: Tensor, situation: Tensor, items: Tensor | None = None) -> Values:
        base = self.situation(situation)
        tower = self.value
        own = tower.all_scores(newest) if items is None else tower.scores(newest, items)
        return Values(own + base[:, :1], base[:, 1])


class SlateQAgent(TorchAgent):
    """SlateQ (Ie et al., IJCAI 2019): ``Q(s, A) = sum over i of P(i | s, A) Q(s, i)``.

    The sum has *none of these* among the i.  P is a conditional logit (McFadden 1974) with an
    outside option, ``P(i | s, A) = v(s, i) / (v(s, none) + sum over A of v)``, fitted to the
    choices that users make; Q is learned by temporal differences, of the chosen option only::

        target = r + discount * sum over i in A' of P(i | s', A') Q'(s', i)

    with the target network Q' and A' the slate that it would show: the best one under choice
    model and Q, found exactly (:func:`best_slate_scores`).  A list that the horizon cuts off is
    followed by the value of the next state, one after which the user leaves by nothing.  The
    decomposition needs a reward that depends on what was chosen, such as ``click`` or
    ``satisfaction``; with ``expected_click`` it would not hold.

    In training Gumbel noise on the utilities explores; it is a hash, see
    :func:`~usermirror_gym.agents.ranking.hashed_words`.
    """

    kind = "SlateQ"
    settings_type = SlateQSettings
    settings: SlateQSettings

    def _modules(self) -> dict[str, nn.Module]:
        self._net, self._target = (_SlateNet(self.space, self.settings.history) for _ in range(2))
        # A list that is taken is worth one click, before anything is known of what follows.
        for each in (self._net, self._target):
            nn.init.zeros_(each.situation.weight)
            each.situation.bias.data = torch.tensor([1.0, 0.0])
        return {"net": self._net, "target": self._target}

    def _trained_parameters(self) -> list[tuple[str, nn.Parameter]]:
        return list(self._net.named_parameters())

    @torch.no_grad()
    def _scores(self, observations: Observation, k: int) -> Float32Array:
        newest = torch.from_numpy(newest_items(observations, self.settings.history))
        utility = self._net.utility.all_scores(newest)
        if self.explore and self.settings.temperature:
            words = hashed_words(observations, self.seed, self.iteration)
            gumbel = hashed_gumbel(words, self.space.n_items)
            utility = utility + self.settings.temperature * torch.from_numpy(gumbel).float()
        hidden = torch.from_numpy(self.space.mask(observations))
        values = self._net.values(newest, torch.from_numpy(_situation(observations)))
        return best_slate_scores(utility, self._net.outside, values, hidden, k).numpy()

    def _record(self, transition: Transition) -> Arrays:
        before, after = transition.observations, transition.next_observations
        # What may be shown next is all but what was seen: kept by user and by the whole history.
        return {
            "newest": newest_items(before, self.settings.history).astype(np.int32),
            "situation": _situation(before),
            "slate": transition.slates.astype(np.int32),
            "choice": transition.choices.astype(np.int32),
            "reward": transition.rewards.astype(np.float32),
            "next_user": after["user_id"].astype(np.int32),
            "next_history": newest_items(after, after["history_items"].shape[1]).astype(np.int32),
            "next_situation": _situation(after),
            "over": transition.terminated.astype(np.float32),
        }

    def _forget(self, experience: Experience) -> Experience:
        return experience.last(self.settings.replay)

    def _loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        newest, slate, choice = batch["newest"].long(), batch["slate"].long(), batch["choice"]
        utility = self._net.utility.scores(newest, slate).masked_fill(slate == PAD, -1e9)
        outside = self._net.outside.expand(len(slate), 1)
        logits = torch.cat([utility, outside], dim=1)
        choice_loss = nn.functional.cross_entropy(logits, choice.long())
        values = self._net.values(newest, batch["situation"], slate)
        options = torch.cat([values.items, values.none[:, None]], dim=1)
        predicted = options.gather(1, choice.long()[:, None])[:, 0]
        with torch.no_grad():
            follows = self._next_value(batch) * (1 - batch["over"])
            target = batch["reward"] + self.settings.discount * follows
        return {
            "choice_loss": choice_loss,
            "q_loss": nn.functional.mse_loss(predicted, target),
        }

    def _next_value(self, batch: dict[str, Tensor]) -> Tensor:
        """``(B,)`` value of the slate that would be shown next."""
        history, situation = batch["next_history"].long(), batch["next_situation"]
        newest = history[:, : self.settings.history]
        utility = self._net.utility.all_scores(newest)
        values = self._target.values(newest, situation)
        k = batch["slate"].shape[1]
        hidden = torch.from_numpy(self._seen(batch["next_user"], batch["next_history"]))
        scores = best_slate_scores(utility, self._net.outside, values, hidden, k)
        best = scores.masked_fill(hidden, -torch.inf).topk(k, dim=1).indices
        logits = torch.cat([
            utility.gather(1, best), self._net.outside.expand(len(best), 1)
        ], dim=1)  # fmt: skip
        options = torch.cat([values.items.gather(1, best), values.none[:, None]], dim=1)
        return (torch.softmax(logits, dim=1) * options).sum(dim=1)

    def _after_step(self) -> None:
        rate = self.settings.target_rate
        with torch.no_grad():
            for mine, theirs in zip(self._target.parameters(), self._net.parameters(), strict=True):
                mine.lerp_(theirs, rate)


def best_slate_scores(
    utility: Tensor, outside: Tensor, values: Values, hidden: Tensor, k: int
) -> Tensor:
    """``(N, n_items + 1)`` scores whose k best items are the slate of the largest value.

    The value of a slate under a conditional logit is a ratio of sums,
    ``(v0 Q0 + sum v Q) / (v0 + sum v)``; Dinkelbach's method (Management Science 1967) finds the
    maximum by a few rounds of top-k on ``v (Q - t)``, where t is the value of the slate before.
    (The paper's top-k is the first round with t = 0, its linear program the same maximum.)

    Args:
        utility: ``(N, n_items + 1)`` log v.
        outside: log v0.  Sums are in float64: where users nearly always take something, v0 is what
            tells slates apart.
        hidden: ``(N, n_items + 1)`` items that cannot be shown.
    """
    utility, outside = utility.double(), outside.double()
    values = Values(values.items.double(), values.none.double())
    peak = torch.maximum(utility.masked_fill(hidden, -torch.inf).amax(1, keepdim=True), outside)
    v, v0 = (utility - peak).exp(), (outside - peak).exp()
    q0 = values.none[:, None]
    bar = q0
    for _ in range(_ROUNDS):
        best = (v * (values.items - bar)).masked_fill(hidden, -torch.inf).topk(k, dim=1).indices
        mine, worth = v.gather(1, best), values.items.gather(1, best)
        bar = (v0 * q0 + (mine * worth).sum(1, keepdim=True)) / (v0 + mine.sum(1, keepdim=True))
    return v * (values.items - bar)


def _situation(observations: Observation) -> Float32Array:
    """``(N, 2)``: turns / (turns + 10), and whether the last list was left untouched."""
    turns = observations["turns"].astype(np.float32).reshape(-1)
    k = observations["last_slate"].shape[1]
    missed = (observations["last_choice"].reshape(-1) == k) & (turns > 0)
    return np.column_stack([turns / (turns + 10.0), missed]).astype(np.float32)
