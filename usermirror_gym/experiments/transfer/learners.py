"""Trainings by name: whatever gives a policy from time to time, to be judged by the truth.

:class:`LinearReinforce` is a small online learner that climbs the return of a world.  A list is
drawn without replacement in proportion to ``exp(score)`` (Plackett-Luce); the return that followed
moves the scores by the policy gradient (REINFORCE, Williams, 1992).  The scores are linear in a
handful of features that can be read, so that what a training has found can be said: it shows
popular films, or films like the last, or films that were had already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import scipy.sparse as sp

from usermirror_gym.agents import make_agent
from usermirror_gym.agents.learners.item_space import newest_items
from usermirror_gym.agents.observations import situation_keys
from usermirror_gym.agents.ranking import SeenItems, observed_items, top_k
from usermirror_gym.agents.returns import SessionSettings
from usermirror_gym.agents.rollout import Episodes, play_steps
from usermirror_gym.agents.simple import SimpleAgent
from usermirror_gym.data import TimeSplit
from usermirror_gym.envs import SlateVectorEnv, World
from usermirror_gym.errors import ConfigError
from usermirror_gym.experiments.transfer.curves import Checkpoint
from usermirror_gym.scenes.randomness import uniforms
from usermirror_gym.types import ITEM_ID, PAD, USER_ID, BoolArray, FloatArray, IntArray, Observation

FEATURES = ("popular", "like the history", "like the newest", "had before", "the newest itself")
_NEWEST, _LIST_STREAM = 5, 8


class LinearReinforce(SimpleAgent):
    """Draws lists by ``weights . features (+ own score of the item)``, and learns the scores.

    In training every list is drawn anew, and after a round of sessions the scores take a step of
    the policy gradient, with the mean return-to-go of all rows as the baseline.  Otherwise the draw
    is a hash of (seed, user, turns, history length, item), so that a row is the same whatever the
    batch.

    Features of an item for an observation: log popularity, cosine of co-choices with the whole
    observed history and with its newest five, whether it is in the history, and whether it is its
    newest.  The first three have mean 0 and standard deviation 1 over the catalogue.

    Args:
        name: for tables.
        weights: ``(5,)`` in the order of :data:`FEATURES`, to begin with; by default zeros.
        items: whether every item has a score of its own besides the features.
        repeats: whether items that the user has had may be shown.
        seed: of everything that is drawn.

    Attributes:
        own: ``(n_items + 1,)`` scores of items, or ``None``.
        explore: whether it is in training.
        rng: what a training draws from: its lists, and users and seeds of its sessions.
    """

    _seen: SeenItems

    def __init__(
        self, name: str, weights: FloatArray | None = None, *, items: bool = False,
        repeats: bool = True, seed: int = 0,
    ) -> None:  # fmt: skip
        self.name, self.items, self.repeats, self.seed = name, items, repeats, seed
        self.weights = np.zeros(len(FEATURES)) if weights is None else weights
        self.own: FloatArray | None = None
        self.explore = False
        self.rng = np.random.default_rng([seed, 5])
        self._adam = _Adam(), _Adam()

    def fit(self, data: TimeSplit) -> Self:
        """Count co-choices and popularity before T0."""
        if self.items:
            self.own = np.zeros(data.dataset.n_items + 1)
        self._seen = SeenItems.of(data)
        had = np.zeros((data.dataset.n_users + 1, data.dataset.n_items + 1), np.float32)
        had[data.before[USER_ID].to_numpy(), data.before[ITEM_ID].to_numpy()] = 1.0
        both = (had.T @ had).astype(np.float64)
        size = np.sqrt(np.maximum(np.diag(both), 1.0))
        self._cosine = both / size / size[:, None]
        np.fill_diagonal(self._cosine, 0.0)
        self._popular = _standard(np.log1p(data.popularity.astype(np.float64)))
        return self

    def recommend(self, observations: Observation, k: int) -> IntArray:
        """See :class:`~usermirror_gym.agents.base.Agent`; in training also keeps the gradient."""
        self._checked(k)
        if self.explore:
            return self._draw(observations, k)
        scores = self.scores(self.features(observations))
        luck = uniforms(situation_keys(self.seed, observations), _LIST_STREAM, scores.shape[1])
        # The largest of score + Gumbel noise are a draw without replacement.
        noisy = scores - np.log(-np.log1p(-luck))
        noisy = np.where(np.isfinite(noisy), noisy, scores)  # luck of exactly 0
        return top_k(noisy, self.hidden(observations), k)

    def scores(self, features: FloatArray) -> FloatArray:
        """``(N, n_items + 1)``."""
        # A sum over one axis, not a product of matrices: a row does not depend on the others.
        found: FloatArray = (features * self.weights[:, None]).sum(axis=1)
        return found if self.own is None else found + self.own

    def hidden(self, observations: Observation) -> np.ndarray:
        """``(N, n_items + 1)`` what may not be shown."""
        mask = self._seen.mask(observations)
        if self.repeats:
            mask = np.zeros_like(mask)
            mask[:, PAD] = True
        return mask

    def features(self, observations: Observation) -> FloatArray:
        """``(N, 5, n_items + 1)``."""
        history = observed_items(observations)
        newest = newest_items(observations, _NEWEST)
        n, m = len(history), self._cosine.shape[0]
        out = np.zeros((n, len(FEATURES), m))
        out[:, 0] = self._popular
        for place, items in ((1, history), (2, newest)):
            out[:, place] = _standard(_counted(items, m) @ self._cosine)
        rows = np.arange(n)
        out[rows[:, None], 3, history] = 1.0
        out[rows, 4, newest[:, 0]] = 1.0
        out[:, :, PAD] = 0.0
        return out

    def practise(self, env: SlateVectorEnv, users: IntArray, seeds: list[int]) -> dict[str, float]:
        """Play one session per row, then take a step uphill."""
        self.explore, self._env = True, env
        self._gradients: list[tuple[FloatArray, IntArray, FloatArray]] = []
        plan = Episodes(np.arange(len(users)), users, np.asarray(seeds, np.int64))
        rewards, live = [], []
        for step in play_steps(env, self, plan):
            rewards.append(step.rewards)
            live.append(np.isin(plan.numbers, step.live))
        self._climb(np.stack(rewards), np.stack(live))
        return {}

    def _climb(self, rewards: FloatArray, live: BoolArray) -> None:
        to_go = np.cumsum(rewards[::-1], axis=0)[::-1]
        mean = (to_go * live).sum(axis=1, keepdims=True) / np.maximum(live.sum(1, keepdims=True), 1)
        advantage = np.where(live, to_go - mean, 0.0) / max(float(to_go[live].std()), 1e-6)
        count = max(int(live.sum()), 1)
        grads = self._gradients
        slope = sum(a @ g for a, (g, _, _) in zip(advantage, grads, strict=True)) / count
        self.weights = self.weights + self._adam[0].step(slope)
        if self.own is not None:
            slope = np.zeros(len(self.own))
            for a, (_, slates, expected) in zip(advantage, grads, strict=True):
                np.add.at(slope, slates, np.broadcast_to(a[:, None], slates.shape))
                slope -= a @ expected
            slope[PAD] = 0.0
            self.own = self.own + self._adam[1].step(slope / count)

    def _draw(self, observations: Observation, k: int) -> IntArray:
        """Lists of the rows that go on, and, with zeros for the others, the gradient of their
        log-probability: by weight ``(N, 5)``, and by item what it is less than the items shown,
        ``(N, n_items + 1)``."""
        live, n = self._env.live, self._env.num_envs
        features = self.features(observations)
        scores = self.scores(features)
        scores[self.hidden(observations)] = -np.inf
        noise = self.rng.exponential(size=(n, scores.shape[1]))[live]
        shown = np.argsort(np.log(noise) - scores, axis=1)[:, :k]
        mass = np.exp(scores - scores.max(axis=1, keepdims=True))
        rows, slates = np.arange(len(scores)), np.zeros((n, k), np.int64)
        gradient, expected = np.zeros((n, len(FEATURES))), np.zeros((n, scores.shape[1]))
        for place in range(k):
            probs = mass / mass.sum(axis=1, keepdims=True)
            chosen = shown[:, place]
            gradient[live] += features[rows, :, chosen] - np.einsum("nfm,nm->nf", features, probs)
            expected[live] += probs
            mass[rows, chosen] = 0.0
        slates[live] = shown
        self._gradients.append((gradient, slates, expected))
        return shown.astype(np.int64)


class _Adam:
    """Kingma & Ba, Adam (2015), uphill."""

    def __init__(self, rate: float = 0.05) -> None:
        self.rate, self.first, self.second, self.count = rate, np.zeros(1), np.zeros(1), 0

    def step(self, gradient: FloatArray) -> FloatArray:
        self.count += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        first = self.first / (1 - 0.9**self.count)
        second = self.second / (1 - 0.999**self.count)
        moved: FloatArray = self.rate * first / (np.sqrt(second) + 1e-8)
        return moved


def _standard(values: FloatArray) -> FloatArray:
    """Mean 0 and standard deviation 1 along the last axis, padding left out."""
    items = values[..., 1:]
    centred = values - items.mean(axis=-1, keepdims=True)
    size = items.std(axis=-1, keepdims=True)
    found: FloatArray = centred / np.where(size > 0, size, 1.0)
    return found


def _counted(items: IntArray, m: int) -> sp.csr_matrix:
    """``(N, m)`` how often each item is in a row; sparse, because the rows of its products do not
    depend on how many there are."""
    rows, places = np.nonzero(items != PAD)
    ones = np.ones(len(rows))
    return sp.csr_matrix((ones, (rows, items[rows, places])), shape=(len(items), m))


CLIMBERS: dict[str, dict[str, Any]] = {
    "climber": {}, "climber-items": {"items": True}, "climber-new": {"repeats": False},
}  # fmt: skip
"""Names and settings of :class:`LinearReinforce`: ``-items``: with a score for every item;
``-new``: may not show what a user has had."""


@dataclass(frozen=True)
class Practice:
    """The training of an agent that practises.

    It has ``explore``, whether it tries things out or gives its best, and ``practise(env, users,
    seeds)``, which plays one session per row of an environment and learns from them; see
    :class:`~usermirror_gym.agents.learners.learning.LearningAgent`.

    Attributes:
        name: of the agent: one of :data:`CLIMBERS` or of
            :data:`~usermirror_gym.agents.learners.store.KINDS`, the latter in any case.
        settings: of the sessions that it learns from.
        users: sessions side by side.
        updates: rounds of such sessions.
        evaluations: checkpoints after the first, evenly spaced.
        make: an unfitted agent from a seed; by default the one of that name.
    """

    name: str
    settings: SessionSettings = field(default_factory=SessionSettings)
    users: int = 64
    updates: int = 60
    evaluations: int = 12
    make: Callable[[int], Any] | None = None

    def __post_init__(self) -> None:
        for name in ("users", "updates", "evaluations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        if self.evaluations > self.updates:
            raise ConfigError(
                f"evaluations is {self.evaluations}, and there are but {self.updates} updates"
            )

    def new(self, seed: int) -> Any:
        """An agent, not yet fitted.

        Raises:
            UnknownNameError: no such agent.
            ConfigError: it does not learn from sessions.
        """
        from usermirror_gym.agents.learners.store import agent_class, kind_of

        agent: Any
        if self.make is not None:
            agent = self.make(seed)
        elif self.name in CLIMBERS:
            agent = LinearReinforce(self.name, seed=seed, **CLIMBERS[self.name])
        elif kind_of(self.name):  # without a policy of its own yet
            agent = agent_class(self.name)(seed=seed)
        else:
            agent = make_agent(self.name, seed=seed, progress=False)
        if not hasattr(agent, "practise"):
            raise ConfigError(
                f"agent {self.name!r} does not learn from sessions: name one that does, or one of "
                f"{', '.join(CLIMBERS)}"
            )
        return agent

    def checkpoints(self, world: World, seed: int) -> Iterator[Checkpoint]:
        """Train in a world; see :func:`~usermirror_gym.experiments.transfer.curves.judge`."""
        agent: Any = self.new(seed).fit(world.split)
        env = self.settings.env(world, self.users)
        rng = getattr(agent, "rng", np.random.default_rng([seed, 5]))
        at = np.linspace(0, self.updates, self.evaluations + 1).round().astype(int)
        agent.explore = False
        yield Checkpoint(0, agent)
        for update in range(1, self.updates + 1):
            agent.explore = True
            ids = rng.choice(world.users, self.users)
            agent.practise(env, ids, rng.integers(2**31, size=self.users).tolist())
            agent.explore = False
            if update in at:
                yield Checkpoint(update * self.users, agent)


def make_learner(
    name: str,
    settings: SessionSettings,
    *,
    users: int = 64,
    updates: int = 60,
    evaluations: int = 12,
) -> Practice:
    """A training by name: one of :data:`CLIMBERS`, or any agent that practises.

    Raises:
        UnknownNameError: no such agent; suggests the nearest.
        ConfigError: an agent that does not learn from sessions.
    """
    practice = Practice(name, settings, users, updates, min(evaluations, updates))
    practice.new(0)
    return practice
