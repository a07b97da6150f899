"""What learning agents know of the data before T0: item factors, popularity, who had what."""

from __future__ import annotations

from typing import Self

import numpy as np
import scipy.sparse as sp

from usermirror_gym.agents.ranking import SeenItems, observed_items
from usermirror_gym.data import TimeSplit
from usermirror_gym.envs.shortlist import relative_popularity
from usermirror_gym.types import (
    ITEM_ID,
    PAD,
    USER_ID,
    BoolArray,
    Float32Array,
    IntArray,
    Observation,
)


class ItemSpace:
    """Items as vectors whose inner products are item-item cosines, as far as ``d`` numbers can say.

    The matrix of users and items (1 where there is an interaction before T0), its columns scaled
    to length one, is cut to its ``d`` largest singular values (PureSVD of Cremonesi et al.,
    RecSys 2010, on normalised columns): ``factors @ factors.T`` is then the best approximation of
    rank ``d`` of the similarities that item-kNN uses.  Rows are scaled by a common number so that
    the root mean square of the items' lengths is one.

    Attributes:
        factors: ``(n_items + 1, d)``; zeros for padding and for items without interactions.
        counts: ``(n_items + 1,)`` interactions before T0.
        popularity: ``(n_items + 1,)`` log(1 + counts) relative to the most popular item.
        seen: what each user had before T0.
    """

    def __init__(self, factors: Float32Array, counts: IntArray, seen: SeenItems) -> None:
        self.factors = factors
        self.counts = counts
        self.seen = seen
        self.popularity = relative_popularity(counts)

    @classmethod
    def of(cls, split: TimeSplit, d: int) -> Self:
        """Read ``split.before``; at most as many factors as the data have, zeros behind."""
        return cls(_factors(split, d), split.popularity, SeenItems.of(split))

    @property
    def n_items(self) -> int:
        return self.seen.n_items

    @property
    def d(self) -> int:
        return self.factors.shape[1]

    def mask(self, observations: Observation) -> BoolArray:
        """``(N, n_items + 1)`` true for what a user must not be shown."""
        return self.seen.mask(observations)

    def arrays(self) -> dict[str, np.ndarray]:
        """For a file; see :meth:`from_arrays`."""
        return {
            "factors": self.factors,
            "counts": self.counts,
            "seen_indptr": self.seen.indptr,
            "seen_items": self.seen.items,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Self:
        """What :meth:`arrays` gave.

        Raises:
            KeyError: one is missing.
            ValueError: they do not fit together.
        """
        factors, counts = arrays["factors"], arrays["counts"]
        ends, items = arrays["seen_indptr"], arrays["seen_items"]
        inside = not len(items) or (items.min() >= 0 and items.max() < len(counts))
        fit = factors.ndim == 2 and len(factors) == len(counts) and ends[0] == 0
        if not (fit and inside and (np.diff(ends) >= 0).all() and ends[-1] == len(items)):
            raise ValueError("its arrays of items and of what users had do not fit together")
        return cls(factors, counts, SeenItems(ends, items, len(counts) - 1))


def newest_items(observations: Observation, count: int) -> IntArray:
    """``(N, count)`` item ids of the observed history, newest first, 0 behind its end.

    What was chosen in the session is the newest part of the history.
    """
    items = observed_items(observations)
    lengths = (items != PAD).sum(axis=1)
    place = lengths[:, None] - 1 - np.arange(count)
    return np.where(place >= 0, np.take_along_axis(items, np.maximum(place, 0), axis=1), PAD)


def _factors(split: TimeSplit, d: int) -> Float32Array:
    users, items = (split.before[c].to_numpy() for c in (USER_ID, ITEM_ID))
    shape = split.dataset.n_users + 1, split.dataset.n_items + 1
    matrix = sp.csr_matrix((np.ones(len(users)), (users, items)), shape)
    matrix.data[:] = 1.0  # an item consumed twice is still one item
    counts = np.asarray(matrix.sum(axis=0)).ravel()
    scaled = matrix @ sp.diags(1.0 / np.sqrt(np.maximum(counts, 1.0)))
    # Through the small Gram matrix of the items: exact, and the same on every machine.
    values, vectors = np.linalg.eigh((scaled.T @ scaled).toarray())
    factors = np.zeros((shape[1], d))
    kept = min(d, len(values))
    top = slice(len(values) - kept, None)
    factors[:, :kept] = (vectors[:, top] * np.sqrt(np.maximum(values[top], 0.0)))[:, ::-1]
    length = np.sqrt((factors[counts > 0] ** 2).sum(axis=1).mean())
    return (factors * (counts > 0)[:, None] / length).astype(np.float32)
