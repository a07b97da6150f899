"""The rankings that exposure lists are filled from (Wei et al., Mirroring Users, ACL 2026, sec. 3).

A sampler is a function of a :class:`Place`: it gives every list one allowed item of the place's
stratum, or 0 if it knows none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from usermirror_gym.scenes.randomness import KeyArray, uniforms
from usermirror_gym.scenes.rankers import Rankers
from usermirror_gym.scenes.strata import Strata
from usermirror_gym.types import BoolArray, IntArray

TRIES = 64
"""Draws that may hit a forbidden item until a random sampler gives up."""
ANCHOR_STREAM, FIRST_DRAW_STREAM = 3, 16


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


@dataclass(frozen=True)
class Place:
    """The same place of some of the lists: R rows of a draft, column ``number`` of its items."""

    draft: Draft
    rows: IntArray  # (R,)
    number: int
    strata: IntArray  # (R,) the stratum that the pick must come from
    rankers: Rankers
    groups: Strata
    balanced: bool

    def draw(self, *, weighted: bool) -> IntArray:
        """``(R,)`` random allowed items."""
        picks = np.zeros(len(self.rows), np.int64)
        pending = np.arange(len(self.rows))
        for attempt in range(TRIES):
            rows = self.rows[pending]
            stream = FIRST_DRAW_STREAM + self.number
            u = uniforms(self.draft.keys[rows], stream, first=attempt)[:, 0]
            drawn = self.groups.pick(self.strata[pending], u, weighted=weighted)
            good = self.draft.allowed[rows, drawn]
            picks[pending[good]] = drawn[good]
            pending = pending[~good]
            if not len(pending):
                break
        return picks

    def best(self, scores: np.ndarray) -> IntArray:
        """``(R,)`` the allowed items with the highest positive ``(R, n_items + 1)`` scores."""
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
    return place.best(place.rankers.collaborative_scores(draft.starts[rows], draft.lengths[rows]))


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
    """The nearest text to an anchor: the true item, or in balanced lists some item of the list.

    A list with one pair of neighbours has its true item among them with probability 2/K if the
    anchor is the true item so often: then a pair that looks alike tells nothing.
    """
    draft, rows = place.draft, place.rows
    anchors = draft.chosen[rows]
    if place.balanced:
        u = uniforms(draft.keys[rows], ANCHOR_STREAM, first=place.number)[:, 0]
        share = 2 / (draft.sizes[rows] + 1)
        other = ((u - share) / np.maximum(1 - share, 1e-9) * place.number).astype(np.int64)
        member = draft.items[rows, np.clip(other, 0, max(place.number - 1, 0))]
        anchors = np.where((u < share) | (member == 0), anchors, member)
    embedding = place.rankers.embedding
    assert embedding is not None  # checked before the first list is filled
    # Shifted from [-1, 1] to [1, 3], because `best` takes 0 for unknown.
    return place.best(embedding[anchors] @ embedding.T + 2)


SAMPLERS: dict[str, Callable[[Place], IntArray]] = {
    "uniform": uniform,
    "popularity": popularity,
    "collaborative": collaborative,
    "social": social,
    "content": content,  # last: its anchors are the items of the list so far
}
