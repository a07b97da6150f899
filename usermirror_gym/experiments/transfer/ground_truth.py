"""A user whose mind is known: the independent world in which policies and simulators are judged.

This is a *stated* world, not real people.  Its numbers are fitted on a whole real log, so that
tastes and popularity have a real shape, and its rules are written down here: what is liked, what
tires, and that nobody takes a film twice.  What holds in it is therefore evidence about methods
(does a policy that learned from a simulator of these users do well with the users themselves?), not
about people.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from math import inf
from pathlib import Path

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import expit, ndtri, softmax

from usermirror_gym.configs.session import SLATE_SIZE, RunConfig
from usermirror_gym.configs.settings import Positive
from usermirror_gym.data import RecDataset, TimeSplit
from usermirror_gym.errors import ConfigError, SceneError, UnknownNameError
from usermirror_gym.files import load_arrays, save_arrays
from usermirror_gym.measures.choice_models import with_outside
from usermirror_gym.scenes.scene import Scene, SceneBatch
from usermirror_gym.simulators.affinity.affinity import newest_lines
from usermirror_gym.simulators.base import ChoiceBatch
from usermirror_gym.simulators.ratings import BiasRatings
from usermirror_gym.types import (
    ITEM_ID,
    PAD,
    RATING,
    TIMESTAMP,
    USER_ID,
    BoolArray,
    FloatArray,
    IntArray,
)

_ARRAYS = ("user_factors", "item_factors", "item_bias")
_LISTS = 4096
"""Random lists on which the level of *none of these* is set."""
_MOST_CELLS = 50_000_000
"""Users times items that are fitted at once; as float64 0.4 GB, of which three are held."""
_BIAS_PENALTY = 0.1
"""Biases are held back less than factors: what all agree on is no taste."""
KINDS = ("factors", "neighbours")
"""What a taste may come from."""
_SHRINK, _FLOOR = 10.0, 0.05
"""Neighbours: against chance meetings of rare items; and what is added to every share, so that all
have a logarithm."""


@dataclass(frozen=True)
class TruthSettings(RunConfig):
    """The rules of the world."""

    kind: str = "factors"
    """Where tastes come from: 'factors' of users and items, or 'neighbours', how much of what is
    near an item the user has had; everything else is the same."""
    factors: Positive = 24
    """d, numbers of a taste."""
    neighbours: Positive = 40
    """Items near an item, if tastes come from them."""
    penalty: float = 4.0
    """Of the squared factors and item biases, in the fit."""
    iterations: Positive = 100
    """Steps of L-BFGS, at most."""
    taste: float = 1.0
    """How much user factor times item factor counts."""
    popularity: float = 0.5
    """How much the item's own bias counts.  The log's bias is appeal and exposure together; lists
    show an item whether it is known or not, so only a part of it is appeal."""
    temperature: float = 1.0
    """Utilities are divided by it: larger is more random."""
    satiation: float = 1.5
    """Utility that an item loses if all of the newest choices were exactly like it."""
    memory: Positive = 5
    """So many of the newest choices tire."""
    decay: float = 0.7
    """Weight of the m-th newest of them: ``decay ** m``."""
    random_take: float = 0.5
    """Share of random lists from which something is taken; it sets *none of these*."""
    slate_size: Positive = SLATE_SIZE
    """Length of those lists."""
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in KINDS:
            raise UnknownNameError("kind of truth", str(self.kind), KINDS)
        for names, fits, what in (
            (("penalty", "temperature"), lambda v: 0 < v < inf, "a number above 0"),
            (
                ("taste", "popularity", "satiation"),
                lambda v: 0 <= v < inf,
                "a number, 0 or more",
            ),
            (("decay", "random_take"), lambda v: 0 < v < 1, "between 0 and 1"),
        ):
            for name in names:
                if not fits(value := getattr(self, name)):
                    raise ConfigError(f"{name} must be {what}, got {value!r}")


@dataclass(frozen=True, eq=False)
class LatentFactorUser:
    """Chooses by factors fitted on a whole log; see the module for what it is and is not.

    Of the options that the user has not had, with x the user's and y an item's factor, b its bias
    and z a factor scaled to length 1::

        tired_i   = sum_m decay**m z_i . z_(m-th newest choice) / sum_m decay**m
        utility_i = (taste x_u . y_i + popularity b_i - satiation tired_i) / temperature

    and P(i) is proportional to ``exp(utility_i)``, with *none of these* at ``outside``: a
    conditional logit (McFadden, 1974).  Choices unlike the newest ones gain as much as those like
    them lose.  An item that the user has had, in the log, the history or the session, is never
    taken.

    ``y, x, b`` come from logistic matrix factorisation (Johnson, Logistic Matrix Factorization for
    Implicit Feedback Data, 2014) over all pairs of the log; see :meth:`fit`.  If tastes come from
    neighbours, ``x_u . y_i`` is what :func:`neighbour_tastes` says, as varied as the factors' one;
    ``x`` and ``y`` are then as long as it takes to say that exactly.

    Attributes:
        settings: the rules.
        user_factors: ``(n_users + 1, d)``; row 0 is zeros, as in the next two.
        item_factors: ``(n_items + 1, d)``.
        item_bias: ``(n_items + 1,)`` mean 0 over items.
        outside: utility of *none of these*, after the temperature.
        had: ``(n_users + 1, n_items + 1)`` what users have had before their histories begin;
            ``None``: nothing that their scenes do not show.
    """

    settings: TruthSettings
    user_factors: FloatArray
    item_factors: FloatArray
    item_bias: FloatArray
    outside: float
    had: BoolArray | None = None

    @classmethod
    def fit(cls, dataset: RecDataset, settings: TruthSettings | None = None) -> LatentFactorUser:
        """Fit the factors on *all* interactions of a data set and set *none of these*.

        The same data and settings give the same user.

        Raises:
            ConfigError: more users times items than can be fitted at once.
        """
        settings = settings or TruthSettings()
        users, items, bias = logistic_factors(
            dataset, settings.factors, penalty=settings.penalty,
            iterations=settings.iterations, seed=settings.seed,
        )  # fmt: skip
        if settings.kind == "neighbours":
            spread = float((users[1:] @ items[1:].T).std())
            users, items = _factored(spread * neighbour_tastes(dataset, settings.neighbours))
        free = cls(settings, users, items, bias, 0.0)
        return replace(free, outside=free._level())

    @property
    def name(self) -> str:
        s = self.settings
        size = f"d={s.factors}" if s.kind == "factors" else f"neighbours={s.neighbours}"
        return f"ground-truth({size}, {self.digest[:8]})"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that decides a choice, but what users have had."""
        found = hashlib.sha256(repr((self.settings, self.outside)).encode())
        for name in _ARRAYS:
            found.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        return found.hexdigest()

    def knowing(self, split: TimeSplit) -> LatentFactorUser:
        """The same users, who remember all they had before T0, beyond what a scene shows."""
        had = np.zeros((len(self.user_factors), len(self.item_factors)), np.bool_)
        had[split.before[USER_ID].to_numpy(), split.before[ITEM_ID].to_numpy()] = True
        return replace(self, had=had)

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        """See :class:`~usermirror_gym.simulators.base.UserSimulator`.

        Raises:
            SceneError: a user or an item that this world does not have; names the scene.
        """
        batch = SceneBatch.of(scenes)
        slates, users = batch.slates, batch.user_ids
        self._check(batch)
        past = newest_lines(batch, batch.history.shape[1] + batch.turn_chosen.shape[1])
        had = (slates[:, :, None] == past[:, None, :]).any(axis=2)
        if self.had is not None:
            had |= self.had[users[:, None], slates]
        return ChoiceBatch(self.probabilities(users, slates, past[:, : self.settings.memory], had))

    def probabilities(
        self, users: IntArray, slates: IntArray, newest: IntArray, had: BoolArray
    ) -> FloatArray:
        """``(B, K + 1)`` choice probabilities, *none of these* last.

        Args:
            users: ``(B,)``.
            slates: ``(B, K)``, padded with 0.
            newest: ``(B, m)`` the newest choices, newest first, padded with 0; more than
                ``settings.memory`` are too many.
            had: ``(B, K)`` options that the user has had.
        """
        utility = self.utility(users, slates, newest)
        options = with_outside(utility, self.outside, ~had & (slates != PAD))
        probs: FloatArray = softmax(options, axis=1)
        return probs

    def utility(self, users: IntArray, slates: IntArray, newest: IntArray) -> FloatArray:
        """``(B, K)``, whether the user has had the item or not; see the class."""
        s = self.settings
        # Sums over one axis, not products of matrices: a row does not depend on the others.
        liked = (self.user_factors[users][:, None, :] * self.item_factors[slates]).sum(axis=-1)
        worth = s.taste * liked + s.popularity * self.item_bias[slates]
        if newest.shape[1]:
            weights = s.decay ** np.arange(s.memory)
            weights = (weights / weights.sum())[: newest.shape[1]]
            lately = (weights[:, None] * self._directions[newest]).sum(axis=1)
            worth -= s.satiation * (self._directions[slates] * lately[:, None, :]).sum(axis=-1)
        return worth / s.temperature

    def save(self, path: Path) -> Path:
        """Write everything but what users have had as ``.npz``."""
        plain = {f"settings.{name}": value for name, value in asdict(self.settings).items()}
        arrays = {name: getattr(self, name) for name in (*_ARRAYS, "outside")}
        return save_arrays(path, **arrays, **plain)

    @classmethod
    def load(cls, path: Path) -> LatentFactorUser:
        """What :meth:`save` wrote.

        Raises:
            RunError: the file is missing or damaged.
        """
        names = [f"settings.{f.name}" for f in fields(TruthSettings)]
        held = load_arrays(path, *names, *_ARRAYS, "outside")
        settings = TruthSettings(*(held[name].item() for name in names))
        arrays = {name: held[name] for name in _ARRAYS}
        return cls(settings, **arrays, outside=float(held["outside"]))

    @cached_property
    def _directions(self) -> FloatArray:
        """``(n_items + 1, d)`` item factors of length 1; those without any length stay 0."""
        length = np.sqrt((self.item_factors**2).sum(axis=1, keepdims=True))
        return self.item_factors / np.where(length > 0, length, 1.0)

    def _level(self) -> float:
        """*None of these* such that random lists are taken from as often as the settings say."""
        s = self.settings
        rng = np.random.default_rng([s.seed, 1])
        n_items, size = len(self.item_factors) - 1, min(s.slate_size, len(self.item_factors) - 1)
        users = rng.integers(1, len(self.user_factors), _LISTS)
        slates = 1 + rng.random((_LISTS, n_items)).argpartition(size - 1, axis=1)[:, :size]
        utility = self.utility(users, slates, np.zeros((_LISTS, 0), np.int64))
        top = utility.max(axis=1)
        value = top + np.log(np.exp(utility - top[:, None]).sum(axis=1))
        bounds = value.min() - 40.0, value.max() + 40.0
        return float(brentq(lambda level: expit(value - level).mean() - s.random_take, *bounds))

    def _check(self, batch: SceneBatch) -> None:
        for what, ids, n in (
            ("user", batch.user_ids[:, None], len(self.user_factors)),
            ("item", batch.slates, len(self.item_factors)),
        ):
            bad = ((ids < 0) | (ids >= n)).any(axis=1)
            if bad.any():
                row = int(bad.argmax())
                raise SceneError(
                    f"{batch[row].name}: {what} ids of the ground truth are 1 to {n - 1}, got "
                    f"{ids[row].tolist()}; ask about the data set that it was fitted on"
                )


class LatentFactorRatings:
    """Ratings in the ground truth: biases of the whole log, plus taste, plus luck.

    ``mean + user bias + item bias + slope * x_u . y_i + residual``, rounded to the log's levels;
    see :class:`~usermirror_gym.simulators.ratings.BiasRatings`.  The slope is the least-squares
    one.
    """

    def __init__(self, dataset: RecDataset, user: LatentFactorUser) -> None:
        self.user = user
        end = int(dataset.interactions[TIMESTAMP].max()) + 1
        self.base = BiasRatings(TimeSplit(dataset, end))
        self._centre, self.slope, self.residual = 0.0, 0.0, self.base.residual
        rated = dataset.interactions[dataset.interactions[RATING].notna()]
        if len(rated):
            self._fit(*(rated[name].to_numpy() for name in (USER_ID, ITEM_ID, RATING)))

    def sample(self, user_ids: IntArray, items: IntArray, uniforms: FloatArray) -> FloatArray:
        """See :class:`~usermirror_gym.simulators.ratings.RatingModel`."""
        levels = self.base.levels
        if not len(levels):
            return np.full(len(items), np.nan)
        value = self.base.expected(user_ids, items) + self.slope * self._liked(user_ids, items)
        middles = (levels[1:] + levels[:-1]) / 2
        rated: FloatArray = levels[middles.searchsorted(value + self.residual * ndtri(uniforms))]
        return rated

    def _fit(self, users: IntArray, items: IntArray, ratings: FloatArray) -> None:
        rest = ratings - self.base.expected(users, items)
        liked = self._liked(users, items)
        self._centre = float(liked.mean())
        liked = liked - self._centre
        self.slope = float((liked * rest).sum() / max((liked**2).sum(), 1e-12))
        self.residual = float((rest - self.slope * liked).std())

    def _liked(self, users: IntArray, items: IntArray) -> FloatArray:
        liked: FloatArray = (self.user.user_factors[users] * self.user.item_factors[items]).sum(-1)
        return liked - self._centre


def neighbour_tastes(dataset: RecDataset, count: int) -> FloatArray:
    """``(n_users, n_items)`` how much users like items by what they have had near them.

    Two items are near if the same users had both (cosine, shrunken); with s the share of the
    ``count`` nearest of an item that the user has had, by weight, the taste is ``log(floor + s)``:
    the first neighbours say most.  Whether the item itself was had says nothing.  What all users
    share of an item, and all items of a user, is taken out; the deviation is 1.
    """
    had = _had(dataset)
    common = had.T @ had
    sizes = np.sqrt(np.diag(common))
    near = common / (np.outer(sizes, sizes) + _SHRINK)
    np.fill_diagonal(near, 0.0)
    count = min(count, len(near) - 1)
    least = np.partition(near, -count, axis=1)[:, -count, None]
    near[near < least] = 0.0
    share = (had @ near.T) / np.maximum(near.sum(axis=1), 1e-12)
    taste = np.log(_FLOOR + share)
    taste -= taste.mean(axis=0)
    taste -= taste.mean(axis=1, keepdims=True)
    scaled: FloatArray = taste / max(float(taste.std()), 1e-12)
    return scaled


def _factored(tastes: FloatArray) -> tuple[FloatArray, FloatArray]:
    """User and item factors whose products are these tastes, with rows of padding."""
    left, sizes, right = np.linalg.svd(tastes, full_matrices=False)
    root = np.sqrt(sizes)
    zero = np.zeros((1, len(root)))
    return np.concatenate([zero, left * root]), np.concatenate([zero, right.T * root])


def _had(dataset: RecDataset) -> FloatArray:
    """``(n_users, n_items)`` ones where a user had an item.

    Raises:
        ConfigError: more users times items than are held at once.
    """
    n_users, n_items = dataset.n_users, dataset.n_items
    if n_users * n_items > _MOST_CELLS:
        raise ConfigError(
            f"a ground truth is fitted on all pairs at once, here {n_users:,} users times "
            f"{n_items:,} items and at most {_MOST_CELLS:,}: take a smaller data set"
        )
    had = np.zeros((n_users, n_items))
    events = dataset.interactions
    had[events[USER_ID].to_numpy() - 1, events[ITEM_ID].to_numpy() - 1] = 1.0
    return had


def logistic_factors(
    dataset: RecDataset, d: int, *, penalty: float, iterations: int, seed: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """User factors, item factors and item biases of largest posterior probability.

    Johnson's logistic matrix factorisation (2014), without his weights for repeated choices and
    without sampling: every pair counts once.

    ``P(u had i) = expit(x_u . y_i + a_u + b_i + m)`` over all pairs; ``a_u`` is how active the user
    is and ``m`` how full the log.

    Args:
        dataset: whose interactions, all of them.
        d: numbers of a factor.
        penalty: half of it times the squared factors is added to the loss.
        iterations: of L-BFGS, at most.
        seed: of the start.

    Returns:
        ``(n_users + 1, d)``, ``(n_items + 1, d)`` and ``(n_items + 1,)``, the last with mean 0 over
        items; rows of padding are 0.

    Raises:
        ConfigError: more users times items than can be fitted at once.
    """
    n_users, n_items = dataset.n_users, dataset.n_items
    had = _had(dataset)
    sizes = [n_users * d, n_items * d, n_users, n_items, 1]
    edges = np.cumsum([0, *sizes])

    def parts(flat: FloatArray) -> list[FloatArray]:
        x, y, a, b, m = (flat[i:j] for i, j in pairwise(edges))
        return [x.reshape(n_users, d), y.reshape(n_items, d), a, b, m]

    def loss(flat: FloatArray) -> tuple[float, FloatArray]:
        x, y, a, b, m = parts(flat)
        logits = x @ y.T
        logits += a[:, None]
        logits += b + m
        fit = np.logaddexp(0.0, logits).sum() - (had * logits).sum()
        wrong = expit(logits) - had
        slope = [wrong @ y, wrong.T @ x, wrong.sum(axis=1), wrong.sum(axis=0), wrong.sum()[None]]
        held = [penalty, penalty, _BIAS_PENALTY, _BIAS_PENALTY, 0.0]
        prior = sum(
            0.5 * h * float((p**2).sum()) for h, p in zip(held, (x, y, a, b, m), strict=True)
        )
        full = [s + h * p for s, h, p in zip(slope, held, (x, y, a, b, m), strict=True)]
        return fit + prior, np.concatenate([f.ravel() for f in full])

    start = np.random.default_rng([seed, 0]).normal(0.0, 0.1, int(edges[-1]))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": iterations})
    x, y, _, b, _ = parts(found.x)
    zero = np.zeros((1, d))
    return (
        np.concatenate([zero, x]), np.concatenate([zero, y]),
        np.concatenate([[0.0], b - b.mean()]),
    )  # fmt: skip
