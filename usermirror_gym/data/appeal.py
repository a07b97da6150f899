"""What makes an item likely to be taken, whoever the user is: one table, counted before T0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from usermirror_gym.data.split import TimeSplit
from usermirror_gym.types import (
    AVAILABLE_FROM,
    ITEM_ID,
    PAD,
    RATING,
    TIMESTAMP,
    UNDATED,
    USER_ID,
    BoolArray,
    FloatArray,
    IntArray,
)

DAY = 86_400
_NAMES = (
    "log popularity", "log opener popularity", "log recent popularity", "mean rating", "log age",
)  # fmt: skip
_YEARS = ("year", "release_year")
"""Item columns that say when an item came out where the catalogue has no ``available_from``."""
_RATINGS = 5.0
"""Ratings of the common mean that every item starts with."""


@dataclass(frozen=True)
class Appeal:
    """Numbers of the items that are the same for every user.

    Attributes:
        names: of the F numbers.
        values: ``(n_items + 1, F)`` in standard deviations from the mean of the items with an
            interaction before the cut.  Row 0 is zero, and so is what is not known.
    """

    names: tuple[str, ...]
    values: FloatArray


def appeal(split: TimeSplit, *, sitting: int = 3600, recent_days: float = 60) -> Appeal:
    """The non-personal features of a catalogue; only ``split.before`` is read.

    ``log popularity``: ``log(1 + interactions)``.  ``log opener popularity``: the same of those
    that open a sitting, later than ``sitting`` seconds after the user's previous interaction; the
    first of a user does not count, since nobody knows what it follows.  ``log recent popularity``:
    of those in the last ``recent_days``.  ``mean rating``: shrunken to that of the log.  ``log
    age``: of the days before the cut, since the item came out (``available_from``, or a release
    year), in a catalogue that does not say it since its first interaction.

    Where the log has no ratings, or no known times, what needs them is zero.

    Args:
        split: cut at the moment before which everything is counted.
        sitting: seconds without an interaction after which another sitting begins.
        recent_days: before the cut.
    """
    events, n = split.before, split.dataset.n_items + 1
    items = events[ITEM_ID].to_numpy()
    dated = _dated(events)
    times = events[TIMESTAMP].to_numpy()

    def log_count(rows: BoolArray) -> FloatArray:
        return np.log1p(np.bincount(items[rows], minlength=n).astype(np.float64))

    columns = [
        np.log1p(split.popularity.astype(np.float64)),
        log_count(_openers(events, dated, sitting)),
        log_count(dated & (times >= split.t0 - recent_days * DAY)),
        _mean_rating(items, events[RATING].to_numpy(np.float64), n),
        np.log1p((split.t0 - np.minimum(_born(split, items, times, dated), split.t0)) / DAY),
    ]
    return Appeal(_NAMES, _standardised(np.stack(columns, axis=1), split.popularity > 0))


def _dated(events: pd.DataFrame) -> BoolArray:
    """``(N,)`` whose time is known."""
    if UNDATED not in events:
        return np.ones(len(events), np.bool_)
    return ~events[UNDATED].astype("boolean").fillna(False).to_numpy(np.bool_)


def _openers(events: pd.DataFrame, dated: BoolArray, sitting: int) -> BoolArray:
    """``(N,)`` which events open a sitting of their user."""
    gaps = events[TIMESTAMP].where(dated).groupby(events[USER_ID]).diff()
    return (gaps > sitting).to_numpy(np.bool_)


def _mean_rating(items: IntArray, ratings: FloatArray, n: int) -> FloatArray:
    """``(n,)``; NaN for an item without a rating."""
    rated = np.isfinite(ratings)
    if not rated.any():
        return np.full(n, np.nan)
    count = np.bincount(items[rated], minlength=n)
    total = np.bincount(items[rated], ratings[rated], minlength=n)
    mean = (total + _RATINGS * ratings[rated].mean()) / (count + _RATINGS)
    return np.where(count > 0, mean, np.nan)


def _born(split: TimeSplit, items: IntArray, times: IntArray, dated: BoolArray) -> FloatArray:
    """``(n_items + 1,)`` seconds since 1970; NaN where it is not known."""
    catalogue = split.dataset.items
    found = np.full(len(catalogue), np.nan)
    if AVAILABLE_FROM in catalogue:
        found = _numbers(catalogue[AVAILABLE_FROM])
    for name in (name for name in _YEARS if name in catalogue):
        # Of a 1st of January; a year that is no year at all, such as 0, is as good as none.
        years = _numbers(catalogue[name])
        seconds = (np.where(years > 0, years, np.nan) - 1970) * 365.2425 * DAY
        found = np.where(np.isfinite(found), found, seconds)
    if np.isfinite(found).any():
        return np.r_[np.nan, found]
    first = np.full(len(catalogue) + 1, np.inf)
    np.minimum.at(first, items[dated], times[dated].astype(np.float64))
    return np.where(np.isfinite(first), first, np.nan)


def _numbers(column: pd.Series) -> FloatArray:
    """NaN where there is none."""
    numbers: FloatArray = pd.to_numeric(column, errors="coerce").to_numpy(
        np.float64, na_value=np.nan
    )
    return numbers


def _standardised(values: FloatArray, known: BoolArray) -> FloatArray:
    """Each column by its mean and deviation over the known items; 0 where that says nothing."""
    found = np.zeros_like(values)
    for column, out in zip(values.T, found.T, strict=True):
        own = column[known & np.isfinite(column)]
        if len(own) and own.std() > 1e-9 * max(1.0, abs(own.mean())):
            out[:] = np.where(np.isfinite(column), (column - own.mean()) / own.std(), 0.0)
    found[PAD] = 0.0
    return found
