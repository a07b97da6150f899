"""The rankings that exposure lists are filled from (Wei et al., Mirroring Users, ACL 2026, sec. 3).

A sampler is a function of a :class:`Place`: it gives every list one allowed item of the place's
stratum, or 0 if it knows none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from usermirror_gym.scenes.draw.rankers import Rankers
from usermirror_gym.scenes.randomness import KeyArray, uniforms
from usermirror_gym.types import BoolArray, Float32Array, FloatArray, IntArray


@dataclass(frozen=True)
class Strata:
    """S groups of items.

    Attributes:
        of_item: ``(n_items + 1,)`` stratum of each item, 0..S-1; -1 for padding.
        order: ``(n_items,)`` item ids, stratum by stratum.
        bounds: ``(S + 1,)`` where each stratum begins in ``order``.
        mass: ``(n_items + 1,)`` running sum of the items' popularity in ``order``.
        cumulative: ``(S,)`` running share of choices that fall into the strata.
    """

    of_item: IntArray
    order: IntArray
    bounds: IntArray
    mass: FloatArray
    cumulative: FloatArray

    @classmethod
    def single(cls, popularity: IntArray) -> Strata:
        """All items in one stratum: lists that are not balanced."""
        of_item = np.zeros(len(popularity), np.int64)
        return cls._of(of_item, popularity, np.ones(1))

    @classmethod
    def balanced(cls, popularity: IntArray, chosen: IntArray, n: int = 10) -> Strata:
        """Up to ``n`` strata with about equally many choices each.

        Equally popular items stay together, and items without interactions are a stratum of
        their own.

        Args:
            popularity: ``(n_items + 1,)`` interactions before T0.
            chosen: item ids of the choices that lists are built around.
        """
        chosen_counts = np.bincount(chosen, minlength=len(popularity))
        levels, level_of_item = np.unique(popularity[1:], return_inverse=True)
        weight = np.bincount(level_of_item, chosen_counts[1:], minlength=len(levels))
        middle = (np.cumsum(weight) - weight / 2) / weight.sum()
        group = np.minimum((middle * n).astype(np.int64), n - 1) + 1
        group[levels == 0] = 0
        _, group = np.unique(group, return_inverse=True)
        shares = np.bincount(group, weight) / weight.sum()
        return cls._of(np.r_[0, group[level_of_item]], popularity, shares)

    @classmethod
    def _of(cls, of_item: IntArray, popularity: IntArray, shares: FloatArray) -> Strata:
        of_item = of_item.astype(np.int64)
        of_item[0] = -1
        order = 1 + np.argsort(of_item[1:], kind="stable")
        bounds = np.searchsorted(of_item[order], np.arange(len(shares) + 1))
        mass = np.r_[0.0, np.cumsum(popularity[order])]
        return cls(of_item, order, bounds.astype(np.int64), mass, np.cumsum(shares))

    def draw(self, u: FloatArray) -> IntArray:
        """Strata for uniform numbers of any shape, as often as choices fall into them."""
        drawn = np.searchsorted(self.cumulative, u * self.cumulative[-1], side="right")
        return np.minimum(drawn, len(self.cumulative) - 1).astype(np.int64)

    def pick(self, strata: IntArray, u: FloatArray, *, weighted: bool) -> IntArray:
        """An item of each stratum; ``weighted``: in proportion to popularity.

        A stratum without any popularity is drawn from uniformly.

        Args:
            strata: of any shape that broadcasts to that of ``u``.
            u: numbers in [0, 1); the items have their shape.
        """
        low, high = self.bounds[strata], self.bounds[strata + 1]
        flat = low + (u * (high - low)).astype(np.int64)
        if weighted:
            total = self.mass[high] - self.mass[low]
            heavy = np.searchsorted(self.mass, self.mass[low] + u * total, side="right") - 1
            flat = np.where(total > 0, np.clip(heavy, low, high - 1), flat)
        return self.order[np.minimum(flat, high - 1)]


TRIES = 64
"""Draws that may hit a forbidden item until a random sampler gives up."""
CHAIN_STREAM, FIRST_DRAW_STREAM = 3, 16


@dataclass(frozen=True)
class Draft:
    """B lists in the making.

    Attributes:
        keys: ``(B,)`` random keys of the scenes.
        users, times: ``(B,)`` whose list it is and when it is shown.
        starts, lengths: ``(B,)`` the part of the timeline that is the user's past.
        chosen: ``(B,)`` the item that was really chosen.
        sizes: ``(B,)`` how many items each list needs besides it.
        allowed: ``(B, n_items + 1)`` items that may still be shown; picks are taken out.
        items: ``(B, S)`` what is in the list so far, padded with 0.
    """

    keys: KeyArray
    users: IntArray
    times: IntArray
    starts: IntArray
    lengths: IntArray
    chosen: IntArray
    sizes: IntArray
    allowed: BoolArray
    items: IntArray

    @cached_property
    def scores(self) -> Float32Array:
        """``(B, n_items + 1)`` collaborative scores, valid from a list's first such place on."""
        return np.empty(self.allowed.shape, np.float32)


@dataclass(frozen=True)
class Place:
    """The same place of some of the lists: R rows of a draft, column ``number`` of its items."""

    draft: Draft
    rows: IntArray  # (R,)
    number: int
    first: IntArray  # (R,) the first place of the list that this sampler has
    count: IntArray  # (R,) how many places it has
    strata: IntArray  # (R,) the stratum that the pick must come from
    rankers: Rankers
    groups: Strata
    balanced: bool

    def draw(self, *, weighted: bool) -> IntArray:
        """``(R,)`` random items, each the first of :data:`TRIES` draws that is allowed; else 0."""
        picks = np.zeros(len(self.rows), np.int64)
        pending = np.arange(len(self.rows))
        done, step = 0, 1
        while len(pending) and done < TRIES:
            rows, stream = self.rows[pending], FIRST_DRAW_STREAM + self.number
            u = uniforms(self.draft.keys[rows], stream, n=step, first=done)
            drawn = self.groups.pick(self.strata[pending, None], u, weighted=weighted)
            good = self.draft.allowed[rows[:, None], drawn]
            hit, first = good.any(axis=1), good.argmax(axis=1)
            picks[pending[hit]] = drawn[hit, first[hit]]
            pending = pending[~hit]
            # Most lists need one draw, a few need many: these get them together.
            done, step = done + step, min(2 * step, TRIES - done - step)
        return picks

    def best(self, scores: np.ndarray) -> IntArray:
        """``(R,)`` the allowed items with the highest of the ``(R, n_items + 1)`` scores; 0 where
        no allowed item has a positive one."""
        fits = self.draft.allowed[self.rows]
        if len(self.groups.cumulative) > 1:
            fits &= self.groups.of_item[None, :] == self.strata[:, None]
        ranked = np.where(fits, scores, 0)
        best = ranked.argmax(axis=1)
        return np.where(ranked[np.arange(len(best)), best] > 0, best, 0)


def uniform(place: Place) -> IntArray:
    """Every item alike."""
    return place.draw(weighted=False)


def popularity(place: Place) -> IntArray:
    """In proportion to the interactions before T0."""
    return place.draw(weighted=True)


def collaborative(place: Place) -> IntArray:
    """What a recommender would put first for this user, given what they did so far."""
    draft, rows = place.draft, place.rows
    new = rows[place.first == place.number]
    draft.scores[new] = place.rankers.collaborative_scores(draft.starts[new], draft.lengths[new])
    return place.best(draft.scores[rows])


def social(place: Place) -> IntArray:
    """What most of the user's friends touched before this moment."""
    draft = place.draft
    counts = np.stack(
        [
            place.rankers.friend_counts(user, time)
            for user, time in zip(draft.users[place.rows], draft.times[place.rows], strict=True)
        ]
    )
    return place.best(counts)


def content(place: Place) -> IntArray:
    """The nearest texts: to the true item, or in balanced lists along a chain of neighbours.

    Neighbours of the true item alone would make it the centre of its list, which a reader of the
    list finds without knowing the user.  A balanced list with c places of this sampler has a chain
    of c + 1 neighbours.  The true item is one of them with probability (c + 1) / K, as any item of
    the list is, and then stands anywhere in the chain.
    """
    draft, rows = place.draft, place.rows
    anchors = _chain_ends(place) if place.balanced else draft.chosen[rows]
    embedding = place.rankers.require_embedding()
    scores = embedding[anchors] @ embedding.T
    if place.balanced:
        scores -= place.rankers.crowding / 2
    # Shifted, because `best` takes 0 for unknown.
    return place.best(scores + 2)


def _chain_ends(place: Place) -> IntArray:
    """``(R,)`` the end of the chain that grows now: first all of its left side, then its right."""
    draft, rows, first = place.draft, place.rows, place.first
    length, size = place.count + 1, draft.sizes[rows] + 1
    u = uniforms(draft.keys[rows], CHAIN_STREAM, n=3)
    other = np.minimum((u[:, 1] * first).astype(np.int64), np.maximum(first - 1, 0))
    member = draft.items[rows, other]
    from_chosen = (u[:, 0] < length / size) | (first == 0) | (member == 0)
    root = np.where(from_chosen, draft.chosen[rows], member)
    left = (u[:, 2] * length).astype(np.int64)
    done = place.number - first
    previous = draft.items[rows, max(place.number - 1, 0)]
    return np.where((done == 0) | (done == left) | (previous == 0), root, previous)


SAMPLERS: dict[str, Callable[[Place], IntArray]] = {
    "uniform": uniform,
    "popularity": popularity,
    "collaborative": collaborative,
    "social": social,
    "content": content,  # last: its chain may start at any item of the list so far
}
