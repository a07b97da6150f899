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
from usermirror_gym.scenes.draw.strata import Strata
from usermirror_gym.scenes.randomness import KeyArray, uniforms
from usermirror_gym.types import BoolArray, Float32Array, IntArray

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
