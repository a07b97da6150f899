"""Policies that exploit, or spoil: attacks on a simulated user by what is shown to it.

Text attacks edit a title (:mod:`usermirror_gym.fidelity.checks.text_attacks`); these choose lists.
An honest user gives them nothing that the truth would not: where one gains in the simulator and
loses in the truth, a recommender that learns from this simulator will find it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from usermirror_gym.agents.base import Agent
from usermirror_gym.agents.observations import situation_keys
from usermirror_gym.agents.oracle import OracleAgent
from usermirror_gym.agents.ranking import SeenItems, observed_items
from usermirror_gym.agents.returns import Sessions
from usermirror_gym.agents.simple import PopAgent, RandomAgent, SameForAll, SimpleAgent
from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import AgentError, ConfigError
from usermirror_gym.measures.bootstrap import UserBootstrap
from usermirror_gym.scenes import SceneBatch
from usermirror_gym.scenes.randomness import uniforms
from usermirror_gym.simulators.base import UserSimulator
from usermirror_gym.types import PAD, FloatArray, IntArray, Observation

_MIX_STREAM, _ASKED_USERS, _DISTRACTORS = 7, 64, 4


class _Adversary(SimpleAgent):
    """Shared: a base policy behind, nothing learned online."""

    def __init__(self, name: str, base: Agent | None = None) -> None:
        self.base: Agent = PopAgent() if base is None else base
        self.name = name.format(base=self.base.name)

    def fit(self, data: TimeSplit) -> Self:
        """Fit the policy behind."""
        self.base.fit(data)
        return self.fitted(data)

    def fitted(self, data: TimeSplit) -> Self:
        """As :meth:`fit`, around a policy that is fitted already."""
        self._seen = SeenItems.of(data)
        return self


class RepeatAgent(_Adversary):
    """Shows the newest of what the user has had already, in the first ``copies`` places.

    The rest of the list, and all of it for a user without history, is the base policy's.

    Args:
        copies: places of the list that are given to what was had; ``None``: all.
        base: fills the rest; by default the most popular.
    """

    def __init__(self, copies: int | None = None, base: Agent | None = None) -> None:
        super().__init__("Repeat" if copies is None else f"{{base}}+repeat{copies}", base)
        if copies is not None and copies < 1:
            raise ConfigError(f"copies must be at least 1 or None, got {copies}")
        self.copies = copies

    def recommend(self, observations: Observation, k: int) -> IntArray:
        """See :class:`~usermirror_gym.agents.base.Agent`."""
        self._checked(k)
        places = k if self.copies is None else min(self.copies, k)
        newest = _newest(observations, places)
        rest = self.base.recommend(observations, k)
        both = np.concatenate([newest, rest], axis=1).tolist()
        rows = [list(dict.fromkeys(item for item in row if item != PAD))[:k] for row in both]
        return np.array(rows, np.int64)


class MostClickedAgent(SameForAll):
    """Shows everybody the same items: those that the simulator takes most of all.

    Every item is put to a sample of users once, in a list with items drawn at random; its score is
    the mean probability with which it is taken.

    Args:
        simulator: whom to exploit.
        seed: of the sample.
    """

    name = "MostClicked"

    def __init__(self, simulator: UserSimulator, seed: int = 0) -> None:
        self.simulator, self.seed = simulator, seed

    def fit(self, data: TimeSplit) -> Self:
        """Ask the simulator about every item."""
        self._seen = SeenItems.of(data)
        users = data.users_with_history(1)
        if not len(users):
            raise AgentError("MostClicked asks users with a history, and nobody has one before T0")
        rng = np.random.default_rng([self.seed, 11])
        asked = rng.permutation(users)[:_ASKED_USERS]
        self._scores = np.zeros(data.dataset.n_items + 1)
        for user in asked.tolist():
            self._scores += _taken(self.simulator, data, user, rng) / len(asked)
        return self


class AllBadAgent(PopAgent):
    """Shows what was taken least of all before T0: honest users leave."""

    name = "AllBad"

    def fit(self, data: TimeSplit) -> Self:
        """Count interactions before T0."""
        super().fit(data)
        self._scores = -self._scores
        return self


class MixtureAgent(_Adversary):
    """The base policy, degraded: each list is with probability ``epsilon`` one at random.

    The draw is a hash of (seed, user, turns, history length), so a row does not depend on others.

    Args:
        base: the policy.
        epsilon: share of the lists that are random.
        seed: of the draw and of the random lists.
    """

    def __init__(self, base: Agent, epsilon: float, seed: int = 0) -> None:
        super().__init__(f"{{base}}~{epsilon:g}", base)
        if not 0 <= epsilon <= 1:
            raise ConfigError(f"epsilon must be between 0 and 1, got {epsilon!r}")
        self.epsilon, self.seed = epsilon, seed
        self._random = RandomAgent(seed)

    def fitted(self, data: TimeSplit) -> Self:
        """Also remembers what the users have had."""
        self._random.fit(data)
        return super().fitted(data)

    def recommend(self, observations: Observation, k: int) -> IntArray:
        """See :class:`~usermirror_gym.agents.base.Agent`."""
        self._checked(k)
        drawn = uniforms(situation_keys(self.seed, observations), _MIX_STREAM)[:, 0] < self.epsilon
        random = self._random.recommend(observations, k)
        return np.where(drawn[:, None], random, self.base.recommend(observations, k))


def adversarial_agents(
    simulator: UserSimulator, base: Agent, split: TimeSplit, seed: int = 0
) -> list[Agent]:
    """Adversaries around a fitted base policy, ready to play; the last asks the simulator."""
    return [
        RepeatAgent(None, base).fitted(split),
        RepeatAgent(1, base).fitted(split),
        MostClickedAgent(simulator, seed).fit(split),
        AllBadAgent().fit(split),
        OracleAgent(simulator, candidates=200, list_size=25).fit(split),
    ]


def adversary_rows(
    simulated: Mapping[str, Sessions],
    true: Mapping[str, Sessions],
    base: str,
    users: IntArray,
    *,
    n_resamples: int = 2000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """What each adversary earns more than the base policy, in the simulator and in the truth.

    Args:
        simulated, true: sessions by policy name, of the same plan.
        base: the policy that the others are compared with.
        users: ``(E,)`` the user of each episode.

    Returns:
        one dict per other policy: ``name``; ``simulated``, ``true``: the return; ``*_gain``: return
        minus that of the base; ``*_left``: share of sessions that the user left, minus that of the
        base; ``excess``: simulated minus true gain, all as ``{mean, low, high}``.  ``overpaid``:
        the interval of the excess lies above zero, so that the simulator pays more for the policy,
        or punishes it less, than the truth.  ``exploited``: the simulator prefers the policy to
        the base and the truth the base to it, both intervals clear of zero: a learner that has
        the base policy would leave it for the worse.
    """
    bootstrap = UserBootstrap(users, n_resamples, seed)
    rows = []
    for name in simulated:
        if name == base:
            continue
        gains = [w[name].returns - w[base].returns for w in (simulated, true)]
        lefts = [w[name].left - w[base].left for w in (simulated, true)]
        values = [simulated[name].returns, true[name].returns, *gains, *lefts, gains[0] - gains[1]]
        blocks = bootstrap.intervals(np.column_stack(values))
        labels = ("simulated", "true", "simulated_gain", "true_gain", "simulated_left",
                  "true_left", "excess")  # fmt: skip
        rows.append({
            "name": name, **{k: b._asdict() for k, b in zip(labels, blocks, strict=True)},
            "overpaid": bool(blocks[-1].low > 0),
            "exploited": bool(blocks[2].low > 0 and blocks[3].high < 0),
        })  # fmt: skip
    return rows


def _taken(
    simulator: UserSimulator, data: TimeSplit, user: int, rng: np.random.Generator
) -> FloatArray:
    """``(n_items + 1,)`` with which probability the user takes each item, among random others."""
    n_items = data.dataset.n_items
    size = min(_DISTRACTORS + 1, n_items)
    filler = -n_items % size
    order = np.concatenate([rng.permutation(n_items), rng.permutation(n_items)[:filler]]) + 1
    slates = order.reshape(-1, size)
    slates = slates[[len(set(row)) == size for row in slates.tolist()]]
    users = np.full(len(slates), user, np.int64)
    batch = SceneBatch.first_lists(users, data.memory(users, 50), slates)
    scores = np.zeros(n_items + 1)
    scores[slates] = simulator.choose(batch).probs[:, :size]
    return scores


def _newest(observations: Observation, count: int) -> IntArray:
    """``(N, count)`` different items of the history, newest first, 0 behind them."""
    history = observed_items(observations)
    out = np.zeros((len(history), count), np.int64)
    for row, items in enumerate(history):
        newest = list(dict.fromkeys(items[items != PAD][::-1].tolist()))[:count]
        out[row, : len(newest)] = newest
    return out
