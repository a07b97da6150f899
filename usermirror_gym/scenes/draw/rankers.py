"""What exposure lists are drawn from, all of it fitted on what is before T0.

Popularity, a collaborative ranker (low-pass graph filter), item embeddings, friends.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.linalg import eigh

from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import ConfigError
from usermirror_gym.scenes.draw.columns import Timeline, spans
from usermirror_gym.types import (
    AVAILABLE_FROM,
    FRIEND_ID,
    ITEM_ID,
    USER_ID,
    Float32Array,
    FloatArray,
    IntArray,
)

# The last digits of a decomposition differ from run to run; rounding makes lists repeatable.
FACTOR_DECIMALS, SCORE_DECIMALS = 8, 5
NEIGHBOURS = 10
EXACT_SIDE = 4096
"""Matrices whose smaller side is longer are decomposed by random projections."""


@dataclass(frozen=True)
class Collaborative:
    """Ideal low-pass filter of the degree-normalised user-item graph.

    A user with the binary row r gets the scores ``r D^-1/2 V V' D^1/2``, where D holds the items'
    degrees and V spans the leading right singular vectors of ``D_u^-1/2 R D^-1/2`` (Shen et al.,
    How powerful is graph convolution for recommendation?, CIKM 2021).  Users need no training:
    any row works.
    """

    factors: FloatArray  # (n_items + 1, d): V; row 0 and items without interactions are 0
    degrees: FloatArray  # (n_items + 1,)

    def scores(self, rows: sparse.csr_matrix) -> Float32Array:
        """``(B, n_items + 1)`` scores of B binary user rows; 0 where nothing is known."""
        inside = rows @ (_inverse_root(self.degrees)[:, None] * self.factors)
        scores = inside @ (np.sqrt(self.degrees)[:, None] * self.factors).T
        return np.round(scores, SCORE_DECIMALS).astype(np.float32)


def fit_collaborative(split: TimeSplit, dim: int = 64, seed: int = 0) -> Collaborative:
    """Fit on the interactions before T0.

    Args:
        dim: singular vectors; fewer if the matrix has fewer, or if the last ones have equals
            that would be left out.
        seed: of the basis, and of the decomposition of large matrices.
    """
    users, items = (split.before[c].to_numpy() for c in (USER_ID, ITEM_ID))
    shape = (split.dataset.n_users + 1, split.dataset.n_items + 1)
    matrix = sparse.csr_matrix((np.ones(len(users)), (users, items)), shape)
    matrix.data[:] = 1.0  # a repeated interaction counts once
    degrees = np.asarray(matrix.sum(axis=0)).ravel()
    of_users, of_items = (
        sparse.diags(_inverse_root(d)) for d in (np.asarray(matrix.sum(axis=1)).ravel(), degrees)
    )
    normal = of_users @ matrix @ of_items
    vectors, strength = _right_vectors(normal, min(dim, min(shape) - 1), seed)
    return Collaborative(_basis(vectors[:, : _gap(strength)], seed), degrees)


def _right_vectors(matrix: sparse.csr_matrix, dim: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """The leading ``dim + 1`` squared singular values, descending, and ``dim + 1`` right vectors.

    Exact where the smaller side allows it.  Lanczos methods (ARPACK) are not used: they miss
    copies of equal singular values, which every separate part of a graph brings.
    """
    if min(matrix.shape) > EXACT_SIDE:
        from sklearn.utils.extmath import randomized_svd

        _, values, rows = randomized_svd(
            matrix, dim + 1, n_iter=10, power_iteration_normalizer="QR", random_state=seed
        )
        return rows.T, values**2
    wide = matrix.shape[0] <= matrix.shape[1]
    gram = (matrix @ matrix.T if wide else matrix.T @ matrix).toarray()
    last = len(gram) - 1
    squares, vectors = eigh(gram, subset_by_index=[last - dim, last])
    squares, vectors = squares[::-1], vectors[:, ::-1]
    if wide:
        lengths = np.sqrt(np.maximum(squares, 1e-12))
        vectors = (matrix.T @ vectors) / lengths
    return vectors, squares


def _gap(squares: FloatArray) -> int:
    """How many of the leading vectors to keep: the cut must not part equal singular values, whose
    vectors are interchangeable, and needs no vectors of value 0."""
    drop = squares[:-1] - squares[1:] > 1e-9
    kept = np.flatnonzero(drop & (squares[:-1] > 1e-9))
    return int(kept[-1]) + 1 if len(kept) else 0


def _basis(vectors: FloatArray, seed: int) -> FloatArray:
    """An orthonormal basis of the span that is the same however equal values were told apart."""
    mix = np.random.default_rng(seed).standard_normal(vectors.shape)
    basis, upper = np.linalg.qr(vectors @ (vectors.T @ mix))
    return np.round(basis * np.sign(np.diag(upper)), FACTOR_DECIMALS)


def _inverse_root(degrees: FloatArray) -> FloatArray:
    root = np.sqrt(degrees)
    return np.divide(1.0, root, out=np.zeros_like(root), where=root > 0)


@dataclass(eq=False, repr=False)
class Rankers:
    """Everything the samplers of one split need; each part is fitted when it is first asked for.

    Args:
        split: its T0 is what all parts are fitted before.
        embedding: ``(n_items + 1, e)`` L2-normalised item embeddings, if the content sampler is
            used (see :func:`usermirror_gym.scenes.draw.embeddings.embed_texts`).
        dim: of the collaborative ranker.
        seed: of the decomposition.

    Raises:
        ConfigError: the embedding does not have one row an item.
    """

    split: TimeSplit
    _: KW_ONLY
    embedding: Float32Array | None = None
    dim: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        rows, given = self.split.dataset.n_items + 1, self.embedding
        if given is not None and (given.ndim != 2 or len(given) != rows):
            raise ConfigError(
                f"embedding must have the shape (n_items + 1, e) = ({rows}, e), the first row for "
                f"padding, got {given.shape}"
            )

    @cached_property
    def timeline(self) -> Timeline:
        """All interactions: whom a list must not surprise with what they already know."""
        return Timeline.of(self.split.dataset)

    @cached_property
    def published_from(self) -> IntArray:
        """``(n_items + 1,)`` since when each item could be shown, in seconds; the beginning of time
        where that is not known."""
        items, always = self.split.dataset.items, np.iinfo(np.int64).min
        if AVAILABLE_FROM not in items:
            return np.full(len(items) + 1, always)
        return np.r_[0, items[AVAILABLE_FROM].fillna(always).to_numpy(np.int64)]

    @cached_property
    def collaborative(self) -> Collaborative:
        """The collaborative ranker."""
        return fit_collaborative(self.split, self.dim, self.seed)

    def collaborative_scores(self, starts: IntArray, lengths: IntArray) -> Float32Array:
        """``(B, n_items + 1)`` scores for B stretches of the timeline: what each did so far."""
        flat, rows = spans(starts, lengths)
        shape = (len(starts), self.split.dataset.n_items + 1)
        matrix = sparse.csr_matrix((np.ones(len(flat)), (rows, self.timeline.items[flat])), shape)
        matrix.data[:] = 1.0
        return self.collaborative.scores(matrix)

    def require_embedding(self) -> Float32Array:
        """The embedding, for what cannot do without it.

        Raises:
            ConfigError: there is none.
        """
        if self.embedding is None:
            raise ConfigError("the sampler 'content' needs item embeddings: give embedding a model")
        return self.embedding

    @cached_property
    def crowding(self) -> Float32Array:
        """``(n_items + 1,)`` mean similarity of each item to its ten nearest neighbours.

        Items in crowded places are the neighbour of many (hubs); taking half of this off a
        similarity evens that out (CSLS: Conneau et al., Word translation without parallel data,
        ICLR 2018).
        """
        embedding = self.require_embedding()
        near = min(NEIGHBOURS, len(embedding) - 1)
        crowding = np.empty(len(embedding), np.float32)
        for start in range(0, len(embedding), 1024):
            rows = embedding[start : start + 1024] @ embedding.T
            # The nearest of all is the item itself.
            top = np.partition(rows, -near - 1, axis=1)[:, -near - 1 :]
            crowding[start : start + 1024] = (top.sum(axis=1) - top.max(axis=1)) / near
        return crowding

    def friend_counts(self, user: int, time: int) -> IntArray:
        """How many friends of ``user`` touched each item strictly before ``time``."""
        counts = np.zeros(self.split.dataset.n_items + 1, np.int64)
        line = self.timeline
        for friend in self._friends.get(user, ()):
            span = slice(line.offsets[friend], line.offsets[friend + 1])
            known = np.unique(line.items[span][line.times[span] < time])
            counts[known] += 1
        return counts

    @cached_property
    def _friends(self) -> dict[int, list[int]]:
        pairs = self.split.dataset.friends
        if pairs is None:
            return {}
        friends = pairs.groupby(USER_ID)[FRIEND_ID].agg(list)
        return dict(zip(friends.index.tolist(), friends.tolist(), strict=True))
