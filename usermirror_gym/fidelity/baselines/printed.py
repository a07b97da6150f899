"""What a list prints of its options, set against what the history and the profile print.

Counts and ratings come from the log before a cut.  What the scene's own user did to an option is
left out of them: a train choice is one of the counted interactions, an evaluation choice is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from usermirror_gym.corpus.checks.shortcuts import Columns, within_list
from usermirror_gym.data import RecDataset, TimeSplit
from usermirror_gym.scenes import SceneBatch
from usermirror_gym.types import (
    ITEM_ID,
    PAD,
    RATING,
    TITLE,
    TOKEN,
    USER_ID,
    BoolArray,
    FloatArray,
    IntArray,
)

_MAX_VALUES = 60
"""A column of categories with more values has no column of features for each of them."""
_MAX_GROUPS = 30
"""A profile column with more values (zip codes) says too little per value."""
_AGE_BANDS = 5
_SMOOTHING = 20.0
"""Interactions, and ratings, that are believed to be like everybody's before any is seen."""


@dataclass(frozen=True)
class PrintedFeatures:
    """Features of options from words and numbers that a reader of the scene could see.

    Attributes:
        split: cut at the moment before which everything is counted.
    """

    split: TimeSplit

    def columns(self, batch: SceneBatch) -> FloatArray:
        """``(S, K, F)``; a scene's do not depend on the others.  NaN: not known."""
        return np.stack(list(self.named(batch).values()), axis=2)

    def named(self, batch: SceneBatch) -> Columns:
        """Name -> ``(S, K)``."""
        own = self._own(batch)
        found = self._crowd(batch, own)
        for name, words in self._words.items():
            found |= self._shared_words(batch, name, words)
        for name, values in self._numbers.items():
            found |= _distances(batch, name, values)
        found |= self._profile(batch, own)
        mask = batch.slates != PAD
        # These are also set against the rest of the list.
        marks = ("log count", "mean rating", "overlap", "distance", "lift")
        for name in [name for name in found if any(mark in name for mark in marks)]:
            found |= within_list(name, found[name], mask)
        return {name: np.where(mask, values, 0.0) for name, values in found.items()}

    def _own(self, batch: SceneBatch) -> BoolArray:
        """``(S, K)`` whether the user touched the option before the cut."""
        touched = self._log.touched
        known = np.where(batch.user_ids < touched.shape[0], batch.user_ids, PAD)
        return np.asarray(touched[known[:, None], batch.slates].todense() > 0)

    def _crowd(self, batch: SceneBatch, own: BoolArray) -> Columns:
        """What everybody else did to the options."""
        log, slates = self._log, batch.slates
        users = np.where(own, batch.user_ids[:, None], PAD)
        own_rating = np.asarray(log.ratings[users, np.where(own, slates, PAD)].todense())
        log_count = np.log1p(np.maximum(log.counts[slates] - own, 0))
        rated = np.maximum(log.rated[slates] - own * (own_rating != 0), 0)
        total = log.rating_sums[slates] - own_rating
        mean = (total + _SMOOTHING * log.mean_rating) / (rated + _SMOOTHING)
        generous = _mean_of_history(batch, batch.ratings.astype(np.float64)) - log.mean_rating
        return {
            "log count": log_count,
            "mean rating": mean,
            "log rated": np.log1p(rated),
            "mean rating by own ratings": generous[:, None] * (mean - log.mean_rating),
            "log count by lines": log_count * np.log1p(batch.history_lengths)[:, None],
        }

    def _shared_words(self, batch: SceneBatch, name: str, words: _Words) -> Columns:
        """How far the words of the options are those of the history."""
        all_lines = history_matrix(batch, words.matrix.shape[0])
        late_lines = history_matrix(batch, words.matrix.shape[0], 0.7)
        liking = _ratings_of_history(batch, words.matrix.shape[0])
        found = {
            f"{name} overlap": _inner(all_lines @ words.unit, words.unit, batch.slates),
            f"{name} overlap, late lines": _inner(late_lines @ words.unit, words.unit,
                                                  batch.slates),
            f"{name} overlap, by rating": _inner(liking @ words.unit, words.unit, batch.slates),
            f"{name}, nearest line overlap": _nearest_line(batch, words.unit),
            f"{name}, number": np.asarray(words.matrix.sum(axis=1)).ravel()[batch.slates],
        }  # fmt: skip
        if words.each:
            dense = words.matrix.toarray()
            past = np.asarray((all_lines @ words.unit).todense())
            for column, word in enumerate(words.vocabulary):
                shown = dense[:, column][batch.slates]
                found[f"{name}={word}"] = shown
                found[f"{name}={word}, history"] = shown * past[:, column][:, None]
        return found

    def _profile(self, batch: SceneBatch, own: BoolArray) -> Columns:
        """How much likelier users of the same profile are to take the option, or its words."""
        found: Columns = {}
        users = np.where(batch.user_ids < self.split.dataset.n_users + 1, batch.user_ids, PAD)
        for name, group in self._groups.items():
            mine = group.of_user[users]
            counts = group.counts[mine[:, None], batch.slates] - own
            everybody = np.maximum(self._log.counts[batch.slates] - own, 0)
            expected = everybody * group.shares[mine][:, None]
            lift = np.log((np.maximum(counts, 0) + _SMOOTHING / 4) / (expected + _SMOOTHING / 4))
            found[f"{name} lift"] = np.where(mine[:, None] > 0, lift, 0.0)
            for about, table in group.word_lifts.items():
                found[f"{name} lift of {about}"] = np.where(
                    mine[:, None] > 0, table[mine[:, None], batch.slates], 0.0
                )
        return found

    @cached_property
    def _log(self) -> _Log:
        return _Log.of(self.split)

    @cached_property
    def _words(self) -> dict[str, _Words]:
        return item_words(self.split.dataset)

    @cached_property
    def _numbers(self) -> dict[str, FloatArray]:
        return item_numbers(self.split.dataset)

    @cached_property
    def _groups(self) -> dict[str, _Group]:
        words = {name: w for name, w in self._words.items() if w.each}
        found = {}
        for name, of_user in profile_groups(self.split.dataset).items():
            members = sparse.csr_matrix((np.ones(len(of_user)), (of_user, np.arange(len(of_user)))))
            found[name] = _Group.of(of_user, (members @ self._log.touched).toarray(), words)
        return found


class _Log(NamedTuple):
    """What was done before the cut, each user and item once; the last time counts."""

    touched: sparse.csr_matrix  # (n_users + 1, n_items + 1) ones
    ratings: sparse.csr_matrix  # (n_users + 1, n_items + 1), 0 where there is none
    counts: FloatArray  # (n_items + 1,) users
    rated: FloatArray  # (n_items + 1,) ratings
    rating_sums: FloatArray  # (n_items + 1,)
    mean_rating: float

    @classmethod
    def of(cls, split: TimeSplit) -> _Log:
        events = split.before.drop_duplicates([USER_ID, ITEM_ID], keep="last")
        users, items = events[USER_ID].to_numpy(), events[ITEM_ID].to_numpy()
        shape = (split.dataset.n_users + 1, split.dataset.n_items + 1)
        given, mean = events[RATING], events[RATING].mean()
        values = given.fillna(0.0).to_numpy(np.float64)
        ratings = sparse.csr_matrix((values, (users, items)), shape)

        def count(items: IntArray) -> FloatArray:
            return np.bincount(items, minlength=shape[1]).astype(np.float64)

        return cls(
            sparse.csr_matrix((np.ones(len(events)), (users, items)), shape), ratings,
            count(items), count(items[given.notna().to_numpy()]),
            np.asarray(ratings.sum(axis=0)).ravel(), float(mean) if np.isfinite(mean) else 0.0,
        )  # fmt: skip


@dataclass(frozen=True)
class _Words:
    """A column of categories as zeros and ones.

    Attributes:
        matrix: ``(n_items + 1, V)`` ones where the item has the word.
        unit: the same, weighted by rarity, with rows of length 1.
        vocabulary: V words.
        each: whether they are few enough for a feature of their own.
    """

    matrix: sparse.csr_matrix
    unit: sparse.csr_matrix
    vocabulary: list[str]
    each: bool


@dataclass(frozen=True)
class _Group:
    """Users with the same value of a profile column; group 0 is unknown.

    Attributes:
        of_user: ``(n_users + 1,)`` group of each user.
        counts: ``(G, n_items + 1)`` interactions.
        shares: ``(G,)`` of all interactions.
        word_lifts: name of a word column -> ``(G, n_items + 1)`` mean log-lift of an item's words.
    """

    of_user: IntArray
    counts: FloatArray
    shares: FloatArray
    word_lifts: dict[str, FloatArray]

    @classmethod
    def of(cls, of_user: IntArray, counts: FloatArray, words: dict[str, _Words]) -> _Group:
        shares = counts.sum(axis=1) / max(counts.sum(), 1.0)
        lifts = {}
        for name, column in words.items():
            taken = counts @ column.matrix  # (G, V)
            expected = shares[:, None] * taken.sum(axis=0, keepdims=True)
            lift = np.log((taken + _SMOOTHING) / (expected + _SMOOTHING))
            number = np.maximum(np.asarray(column.matrix.sum(axis=1)).ravel(), 1)
            lifts[name] = (column.matrix @ lift.T).T / number
        return cls(of_user, counts, shares, lifts)


def item_words(dataset: RecDataset) -> dict[str, _Words]:
    """Columns of categories by name, and the words of the titles."""
    found = {}
    for name in dataset.items.columns.difference([TOKEN], sort=False):
        column = dataset.items[name]
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            continue
        texts = column.astype("string").fillna("")
        split = r"[^\w]+" if name == TITLE else r",\s*"
        cells = texts.str.lower().str.split(split, regex=True).tolist()
        words = _words(cells, few=name != TITLE)
        if words is not None:
            found[str(name)] = words
    return found


def item_numbers(dataset: RecDataset) -> dict[str, FloatArray]:
    """Columns of numbers by name, ``(n_items + 1,)``; NaN where there is none."""
    items = dataset.items
    return {
        str(name): np.r_[np.nan, items[name].to_numpy(np.float64, na_value=np.nan)]
        for name in items.columns
        if pd.api.types.is_numeric_dtype(items[name])
        and not pd.api.types.is_bool_dtype(items[name])
    }


def profile_groups(dataset: RecDataset) -> dict[str, IntArray]:
    """Group ids ``(n_users + 1,)`` by profile column; numbers become five bands of equal size."""
    found = {}
    for name in dataset.users.columns.difference([TOKEN], sort=False):
        column = dataset.users[name]
        if pd.api.types.is_numeric_dtype(column) and column.nunique() > _AGE_BANDS:
            column = pd.qcut(column.astype("float64"), _AGE_BANDS, labels=False, duplicates="drop")
        codes, values = pd.factorize(column, sort=True)
        if 1 < len(values) <= _MAX_GROUPS:
            found[str(name)] = np.r_[0, codes + 1].astype(np.int64)
    return found


def _words(cells: list[list[str]], *, few: bool) -> _Words | None:
    """``None`` where no word says anything: every item has its own, or all have the same."""
    pairs = [(row, word) for row, cell in enumerate(cells, start=1) for word in set(cell) if word]
    counts = pd.Series([word for _, word in pairs], dtype=object).value_counts()
    kept = sorted(counts.index[(counts > 1) & (counts < len(cells))])
    if not kept:
        return None
    number = {word: column for column, word in enumerate(kept)}
    rows, columns = zip(*((r, number[w]) for r, w in pairs if w in number), strict=True)
    shape = (len(cells) + 1, len(kept))
    matrix = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape)
    rarity = np.log((1 + len(cells)) / (1 + counts[kept].to_numpy(np.float64)))
    weighted = (matrix @ sparse.diags(rarity)).tocsr()
    norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    unit = (sparse.diags(scale) @ weighted).tocsr()
    return _Words(matrix, unit, kept, few and len(kept) <= _MAX_VALUES)


def history_matrix(batch: SceneBatch, width: int, decay: float = 1.0) -> sparse.csr_matrix:
    """``(S, width)`` weights of the items in each history, divided by the root of their sum.

    A sum over many lines spreads more than one over few; the root takes that out.
    """
    since = batch.history_lengths[:, None] - 1 - np.arange(batch.history.shape[1])
    shown = (since >= 0) & (batch.history != PAD)
    weights = np.where(shown, decay ** np.maximum(since, 0).astype(np.float64), 0.0)
    weights /= np.sqrt(np.maximum(weights.sum(axis=1, keepdims=True), 1e-12))
    matrix = _by_item(batch, weights, shown, width)
    matrix.sum_duplicates()
    return matrix


def _by_item(
    batch: SceneBatch, values: FloatArray, lines: BoolArray, width: int
) -> sparse.csr_matrix:
    """``(S, width)`` values ``(S, H)`` of some lines of the histories, by their items."""
    entries = (values[lines], (np.nonzero(lines)[0], batch.history[lines]))
    return sparse.csr_matrix(entries, (len(values), width))


def _inner(past: sparse.csr_matrix, unit: sparse.csr_matrix, slates: IntArray) -> FloatArray:
    """``(S, K)`` inner products of each scene's row with the rows of its options."""
    return np.column_stack([
        np.asarray(past.multiply(unit[shown]).sum(axis=1)).ravel() for shown in slates.T
    ])  # fmt: skip


def _nearest_line(batch: SceneBatch, unit: sparse.csr_matrix) -> FloatArray:
    """``(S, K)`` the largest similarity of an option with one line of the history."""
    nearest = np.zeros(batch.slates.shape)
    for line in range(batch.history.shape[1]):
        shown = np.where(line < batch.history_lengths, batch.history[:, line], PAD)
        nearest = np.maximum(nearest, _inner(unit[shown], unit, batch.slates))
    return nearest


def _ratings_of_history(batch: SceneBatch, width: int) -> sparse.csr_matrix:
    """``(S, width)`` ratings of the lines above or below the user's own mean, a mean of lines."""
    ratings = batch.ratings.astype(np.float64)
    shown = _lines(batch) & np.isfinite(ratings)
    liking = np.where(shown, ratings - _mean_of_history(batch, ratings)[:, None], 0.0)
    liking /= np.maximum(shown.sum(axis=1, keepdims=True), 1)
    return _by_item(batch, liking, shown, width)


def _distances(batch: SceneBatch, name: str, values: FloatArray) -> Columns:
    """A number of the options, and how far it is from those of the history."""
    shown, past = values[batch.slates], values[batch.history]
    past = np.where(_lines(batch), past, np.nan)
    mean = _mean_of_history(batch, past)[:, None]
    last = np.full(len(batch), np.nan)
    for line in range(past.shape[1]):
        last = np.where(np.isfinite(past[:, line]), past[:, line], last)
    gaps = np.abs(shown[:, :, None] - past[:, None, :])
    gaps = np.where(np.isfinite(gaps), gaps, np.inf).min(axis=2, initial=np.inf)
    return {
        name: shown,
        f"{name} after mean": shown - mean,
        f"{name} distance from mean": np.abs(shown - mean),
        f"{name} distance from last": np.abs(shown - last[:, None]),
        f"{name} distance from nearest": np.where(np.isfinite(gaps), gaps, np.nan),
        f"{name} by mean": shown * np.where(np.isfinite(mean), mean - np.nanmean(values), 0.0),
    }


def _mean_of_history(batch: SceneBatch, values: FloatArray) -> FloatArray:
    """``(S,)`` mean of ``(S, H)`` values over the lines that have one; NaN without any."""
    known = _lines(batch) & np.isfinite(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


def _lines(batch: SceneBatch) -> BoolArray:
    """``(S, H)`` where the padded history has a line."""
    return np.arange(batch.history.shape[1]) < batch.history_lengths[:, None]
