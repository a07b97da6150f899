"""Small online learners that climb the return of a world: a training to be judged by the truth.

A list is drawn without replacement in proportion to ``exp(score)`` (Plackett-Luce); the return that
followed moves the scores by the policy gradient (REINFORCE, Williams, 1992).  The scores are linear
in a handful of features that can be read, so that what a training has found can be said: it shows
popular films, or films like the last, or films that were had already.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import scipy.sparse as sp

from usermirror_gym.agents.base import Transition
from usermirror_gym.agents.observations import situation_keys
from usermirror_gym.agents.ranking import SeenItems, check_k, not_fitted, observed_items, top_k
from usermirror_gym.agents.returns import SessionSettings
from usermirror_gym.data import TimeSplit
from usermirror_gym.envs import World
from usermirror_gym.errors import ConfigError
from usermirror_gym.experiments.transfer.curves import Checkpoint
from usermirror_gym.scenes.randomness import uniforms
from usermirror_gym.types import ITEM_ID, PAD, USER_ID, FloatArray, IntArray, Observation

FEATURES = ("popular", "like the history", "like the newest", "had before", "the newest itself")
_NEWEST, _LIST_STREAM = 5, 8


class LinearPolicy:
    """Draws lists by ``weights . features (+ own score of the item)``; see the module.

    The draw is a hash of (seed, user, turns, history length, item), so that a row is the same
    whatever the batch.

    Features of an item for an observation: log popularity, cosine of co-choices with the whole
    observed history and with its newest five, whether it is in the history, and whether it is its
    newest.  The first three have mean 0 and standard deviation 1 over the catalogue.

    Args:
        name: for tables.
        weights: ``(5,)`` in the order of :data:`FEATURES`.
        own: ``(n_items + 1,)`` scores of items, or ``None``.
        repeats: whether items that the user has had may be shown.
        seed: of the draw.
    """

    def __init__(
        self, name: str, weights: FloatArray, own: FloatArray | None = None, *,
        repeats: bool = False, seed: int = 0,
    ) -> None:  # fmt: skip
        self._name, self.weights, self.own = name, weights, own
        self.repeats, self.seed = repeats, seed
        self._cosine: FloatArray | None = None

    @property
    def name(self) -> str:
        return self._name

    def fit(self, data: TimeSplit) -> Self:
        """Count co-choices and popularity before T0."""
        self._seen = SeenItems.of(data)
        had = np.zeros((data.dataset.n_users + 1, data.dataset.n_items + 1), np.float32)
        had[data.before[USER_ID].to_numpy(), data.before[ITEM_ID].to_numpy()] = 1.0
        both = (had.T @ had).astype(np.float64)
        size = np.sqrt(np.maximum(np.diag(both), 1.0))
        self._cosine = both / size / size[:, None]
        np.fill_diagonal(self._cosine, 0.0)
        self._popular = _standard(np.log1p(data.popularity.astype(np.float64)))
        return self

    def with_weights(self, weights: FloatArray, own: FloatArray | None) -> LinearPolicy:
        """A copy with other scores."""
        copy = object.__new__(LinearPolicy)
        copy.__dict__ |= self.__dict__ | {"weights": weights, "own": own}
        return copy

    def observe(self, transition: Transition) -> None:
        """Do nothing: a checkpoint stays as it is."""

    def recommend(self, observations: Observation, k: int) -> IntArray:
        """See :class:`~usermirror_gym.agents.base.Agent`."""
        scores = self.scores(self.features(observations))
        check_k(self.name, k, scores.shape[1] - 1)
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
        if self._cosine is None:
            raise not_fitted(self.name)
        history = observed_items(observations)
        newest = _newest_first(history, _NEWEST)
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


@dataclass(frozen=True)
class Climber:
    """A training of a :class:`LinearPolicy`.

    Attributes:
        name: for tables and files.
        items: whether every item has a score of its own besides the features.
        repeats: whether items that the user has had may be shown.
        settings: of the sessions that it learns from.
        users: sessions side by side.
        updates: rounds of such sessions.
        evaluations: checkpoints after the first, evenly spaced.
        rate: step of the weights of features (Adam), and ``items_rate`` of the items' own scores.
    """

    name: str = "climber"
    items: bool = False
    repeats: bool = True
    settings: SessionSettings = field(default_factory=SessionSettings)
    users: int = 64
    updates: int = 60
    evaluations: int = 12
    rate: float = 0.05
    items_rate: float = 0.05

    def __post_init__(self) -> None:
        for name in ("users", "updates", "evaluations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        if self.evaluations > self.updates:
            raise ConfigError(
                f"evaluations is {self.evaluations}, and there are but {self.updates} updates"
            )

    def checkpoints(self, world: World, seed: int) -> Iterator[Checkpoint]:
        """See :class:`~usermirror_gym.experiments.transfer.curves.Learner`."""
        n_items = world.split.dataset.n_items
        policy = LinearPolicy(self.name, np.zeros(len(FEATURES)), repeats=self.repeats, seed=seed)
        policy.fit(world.split)
        own = np.zeros(n_items + 1) if self.items else None
        state = _Ascent(self, policy.with_weights(policy.weights, own), world, seed)
        yield Checkpoint(0, state.policy)
        at = np.linspace(0, self.updates, self.evaluations + 1).round().astype(int)[1:]
        for update in range(1, self.updates + 1):
            state.update()
            if update in at:
                yield Checkpoint(update * self.users, state.policy)


class _Ascent:
    """Policy gradient with the mean return-to-go of all rows as the baseline."""

    def __init__(self, climber: Climber, policy: LinearPolicy, world: World, seed: int) -> None:
        self.climber, self.policy = climber, policy
        self.env = climber.settings.env(world, climber.users)
        self.rng = np.random.default_rng([seed, 5])
        self.users = world.users
        sizes = [len(FEATURES), *([len(policy.own)] if policy.own is not None else [])]
        self.adam = [_Adam(n, r) for n, r in zip(
            sizes, (climber.rate, climber.items_rate), strict=False)]  # fmt: skip

    def update(self) -> None:
        """Play one session per row, then take a step uphill."""
        grads, rewards, lives = self._sessions()
        to_go = np.cumsum(np.stack(rewards)[::-1], axis=0)[::-1]
        live = np.stack(lives)
        mean = (to_go * live).sum(axis=1, keepdims=True) / np.maximum(live.sum(1, keepdims=True), 1)
        advantage = np.where(live, to_go - mean, 0.0) / max(float(to_go[live].std()), 1e-6)
        count = max(int(live.sum()), 1)
        weights = sum(a @ g for a, (g, _) in zip(advantage, grads, strict=True)) / count
        own = self.policy.own
        moved = self.policy.weights + self.adam[0].step(weights)
        if own is not None:
            slope = np.zeros(len(own))
            for a, (_, (slates, expected)) in zip(advantage, grads, strict=True):
                np.add.at(slope, slates, np.broadcast_to(a[:, None], slates.shape))
                slope -= a @ expected
            slope[PAD] = 0.0
            own = own + self.adam[1].step(slope / count)
        self.policy = self.policy.with_weights(moved, own)

    def _sessions(self) -> tuple[list, list, list]:
        env, n = self.env, self.climber.users
        ids = self.rng.choice(self.users, n)
        seeds = self.rng.integers(2**31, size=n).tolist()
        observations, _ = env.reset(seed=seeds, options={"user_id": ids})
        grads, rewards, lives = [], [], []
        while env.live.any():
            live = env.live.copy()
            slates, *gradient = self._draw(observations)
            observations, reward, *_ = env.step(slates)
            grads.append((gradient[0], (slates, gradient[1])))
            rewards.append(reward)
            lives.append(live)
        return grads, rewards, lives

    def _draw(self, observations: Observation) -> tuple[IntArray, FloatArray, FloatArray]:
        """Lists ``(N, K)``, and the gradient of their log-probability: by weight ``(N, 5)``, and
        what it is less than the items shown by item ``(N, n_items + 1)``."""
        features = self.policy.features(observations)
        scores = self.policy.scores(features)
        scores[self.policy.hidden(observations)] = -np.inf
        k, rows = self.climber.settings.slate_size, np.arange(len(scores))
        noisy = scores - np.log(self.rng.exponential(size=scores.shape))
        slates = np.argsort(-noisy, axis=1)[:, :k]
        mass = np.exp(scores - scores.max(axis=1, keepdims=True))
        gradient = np.zeros((len(scores), len(FEATURES)))
        expected = np.zeros(scores.shape)
        for place in range(k):
            probs = mass / mass.sum(axis=1, keepdims=True)
            chosen = slates[:, place]
            gradient += features[rows, :, chosen] - np.einsum("nfm,nm->nf", features, probs)
            expected += probs
            mass[rows, chosen] = 0.0
        return slates.astype(np.int64), gradient, expected


class _Adam:
    """Kingma & Ba, Adam (2015), uphill."""

    def __init__(self, n: int, rate: float) -> None:
        self.rate, self.first, self.second, self.count = rate, np.zeros(n), np.zeros(n), 0

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


def _newest_first(history: IntArray, count: int) -> IntArray:
    """``(N, count)`` the newest items of padded histories, newest first, 0 behind them."""
    lengths = (history != PAD).sum(axis=1)
    place = lengths[:, None] - 1 - np.arange(count)
    found = np.take_along_axis(history, np.maximum(place, 0), axis=1)
    return np.where(place >= 0, found, PAD)
