"""REINFORCE with top-K off-policy correction."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from usermirror_gym.agents.base import Transition
from usermirror_gym.agents.learners.item_space import newest_items
from usermirror_gym.agents.learners.torch_agent import (
    Experience,
    TorchAgent,
    TorchSettings,
    TwoTower,
)
from usermirror_gym.agents.ranking import hashed_gumbel, hashed_words
from usermirror_gym.agents.saved import Arrays
from usermirror_gym.configs.settings import Positive
from usermirror_gym.threads import one_thread
from usermirror_gym.types import Float32Array, FloatArray, IntArray, Observation

_SCALE = 6.0


class ReinforceSettings(TorchSettings):
    """Of :class:`ReinforceAgent`."""

    memory: Positive = 2
    """Iterations whose experience is learned from; that of earlier ones is off-policy."""
    cap: PositiveFloat = 5.0
    """Largest importance weight."""
    entropy: NonNegativeFloat = 0.0
    """Weight of the policy's entropy in the objective."""


class ReinforceAgent(TorchAgent):
    """Policy gradient for slates (Chen et al., WSDM 2019).

    The policy is a softmax over all unseen items.  In training a slate is drawn from it without
    replacement (its scores with Gumbel noise, which is a hash, and then the k best); otherwise the
    k most probable items are shown.  An item that the user took is credited with what was earned
    and the discounted return of the rest of the session; the gradient is that of::

        sum over items i that were taken of
            min(pi(i|s) / beta(i|s), cap) * lambda_K(i|s) * (credit - value(s)) * grad log pi(i|s)

    with ``lambda_K = K (1 - pi)^(K - 1)``, the paper's correction for slates of K, beta the policy
    that showed the list (logged), and ``value`` a baseline: the mean credit of the lists in a
    state, *none of these* included, by ridge regression on taste and turn anew in each iteration.
    Items of one list compete, and an item helps a list exactly if it is worth more than the list
    (the baseline's doing: credit that is only positive would favour whatever takes the place of
    something better).  Experience of the last ``memory`` iterations is used, which is where the
    off-policy part comes in.
    """

    kind = "REINFORCE"
    settings_type = ReinforceSettings
    settings: ReinforceSettings

    def _modules(self) -> dict[str, nn.Module]:
        self._sessions = _SessionNumbers()
        self._policy = TwoTower(self.space, self.settings.history, _SCALE)
        return {"policy": self._policy}

    @torch.no_grad()
    def _scores(self, observations: Observation, k: int) -> FloatArray:
        scores = self._logits(observations).numpy()
        if not self.explore:
            return scores
        words = hashed_words(observations, self.seed, self.iteration)
        noisy: FloatArray = scores + hashed_gumbel(words, self.space.n_items)
        return noisy

    def _logits(self, observations: Observation) -> Tensor:
        newest = newest_items(observations, self.settings.history)
        return self._policy.all_scores(torch.from_numpy(newest))

    @torch.no_grad()
    def _record(self, transition: Transition) -> Arrays:
        seen = transition.observations
        allowed = ~torch.from_numpy(self.space.mask(seen))
        # What was shown was possible, even if it was seen before (nothing else was left).
        allowed.scatter_(1, torch.from_numpy(transition.slates), True)
        log_pi = torch.log_softmax(self._logits(seen).masked_fill(~allowed, -torch.inf), dim=1)
        k = transition.slates.shape[1]
        return {
            "session": self._sessions.of(transition),
            "user": seen["user_id"].astype(np.int32),
            "history": newest_items(seen, seen["history_items"].shape[1]).astype(np.int32),
            "turn": seen["turns"].reshape(-1).astype(np.float32),
            "slate": transition.slates.astype(np.int32),
            "chosen": (transition.choices[:, None] == np.arange(k)).astype(np.float32),
            "log_beta": log_pi.gather(1, torch.from_numpy(transition.slates)).numpy(),
            "reward": transition.rewards.astype(np.float32),
            "iteration": np.full(len(transition.slates), self.iteration, np.int32),
            # What follows is known when the iteration is over.
            "following": np.zeros(len(transition.slates), np.float32),
            "advantage": np.zeros(len(transition.slates), np.float32),
        }

    @one_thread()
    def _learn(self) -> dict[str, float]:
        self._experience = self._forget(self._experience)
        columns = self._experience.arrays()
        if not columns:
            return {}
        fresh = columns["iteration"] == self.iteration
        session, turn, reward = (columns[n][fresh] for n in ("session", "turn", "reward"))
        columns["following"][fresh] = _following(session, turn, reward, self.settings.discount)
        credit = columns["reward"] + columns["following"]
        advantage = credit - _fitted(self._state(columns), credit)
        spread = max(float(credit.std()), 1e-6)
        columns["advantage"] = (advantage / spread).astype(np.float32)
        self._sessions = _SessionNumbers()
        explained = 1.0 - float(advantage.var()) / spread**2
        return super()._learn() | {"baseline_explains": explained}

    def _forget(self, experience: Experience) -> Experience:
        if not len(experience):
            return experience
        oldest = self.iteration - self.settings.memory + 1
        return experience.where(experience.columns["iteration"] >= oldest)

    @torch.no_grad()
    def _state(self, columns: Arrays) -> FloatArray:
        """``(R, d + 2)``: taste, turn, 1."""
        newest = torch.from_numpy(columns["history"][:, : self.settings.history].astype(np.int64))
        taste = self._policy.taste(newest).numpy()
        return np.column_stack([taste, columns["turn"], np.ones(len(taste))]).astype(np.float64)

    def _loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        slate = batch["slate"].long()
        newest = batch["history"][:, : self.settings.history].long()
        scores = self._policy.all_scores(newest).masked_fill(self._hidden(batch), -torch.inf)
        log_policy = torch.log_softmax(scores, dim=1)
        log_pi = log_policy.gather(1, slate)
        weight = self._weight(log_pi.detach(), batch["log_beta"])
        gain = batch["chosen"] * batch["advantage"][:, None] * weight
        # Where nothing was taken the logarithm may be infinite and must not meet a zero.
        taken = batch["chosen"] > 0
        policy_loss = -torch.where(taken, gain * log_pi.masked_fill(~taken, 0.0), 0.0)
        losses = {"policy_loss": policy_loss.sum(dim=1).mean()}
        if self.settings.entropy:
            each = log_policy.exp() * log_policy.masked_fill(self._hidden(batch), 0.0)
            losses["negative_entropy"] = self.settings.entropy * each.sum(dim=1).mean()
        return losses

    def _weight(self, log_pi: Tensor, log_beta: Tensor) -> Tensor:
        """``(B, K)`` importance weight times lambda_K, both without gradient as in the paper."""
        k = log_pi.shape[1]
        importance = (log_pi - log_beta).exp().clamp(max=self.settings.cap)
        return importance * k * (1 - log_pi.exp()) ** (k - 1)

    def _hidden(self, batch: dict[str, Tensor]) -> Tensor:
        """``(B, n_items + 1)`` what the policy must not show; what it did show is never hidden."""
        hidden = self._seen(batch["user"], batch["history"])
        np.put_along_axis(hidden, batch["slate"].numpy().astype(np.int64), False, axis=1)
        return torch.from_numpy(hidden)


class _SessionNumbers:
    """Which rows of successive transitions belong to one session.

    Rows keep their order from step to step, and those whose session ended are left out.
    """

    def __init__(self) -> None:
        self._alive = np.zeros(0, np.int64)
        self._next = 0

    def of(self, transition: Transition) -> IntArray:
        """``(N,)`` numbers; a batch that does not follow the one before starts new sessions."""
        n = len(transition.rewards)
        turns = np.asarray(transition.observations["turns"]).reshape(-1)
        if len(self._alive) != n or not turns.all():
            self._alive = np.arange(self._next, self._next + n)
            self._next += n
        numbers = self._alive
        self._alive = numbers[~(transition.terminated | transition.truncated)]
        return numbers


def _following(
    session: IntArray, turn: Float32Array, reward: Float32Array, discount: float
) -> Float32Array:
    """``(R,)`` discounted return of the session behind each step."""
    _, session = np.unique(session, return_inverse=True)
    returns = np.zeros(session.max(initial=-1) + 1, np.float32)
    out = np.zeros(len(reward), np.float32)
    for now in np.unique(turn)[::-1]:
        rows = np.flatnonzero(turn == now)
        out[rows] = discount * returns[session[rows]]
        returns[session[rows]] = reward[rows] + out[rows]
    return out


def _fitted(x: FloatArray, y: Float32Array) -> FloatArray:
    """``(R,)`` what a ridge regression on ``x`` says of ``y``."""
    penalty = np.eye(x.shape[1])
    penalty[-1, -1] = 1e-6  # the mean is free
    fitted: FloatArray = x @ np.linalg.solve(x.T @ x + penalty, x.T @ y)
    return fitted
