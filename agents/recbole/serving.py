"""Scores of a trained RecBole model for users whose history has grown since training.

One scorer per family.  All of them compute a row by itself: torch models are called with batches
of one fixed shape, and sums over histories are sparse products, so a row has the same bits
whatever its neighbours are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp

from usermirror_gym.agents.recbole.fit import Built
from usermirror_gym.types import BoolArray, Float32Array, FloatArray, IntArray

_CHUNK = 32
"""Rows of one call of a torch model."""

_BASIS_USERS = 1024
_MAX_FACTORS = 64
_RIDGE = 10.0
"""Chosen on ml-100k: BPR users served as strangers then reach the accuracy of trained ones."""

Fold = tuple[FloatArray, FloatArray, FloatArray]
"""Item factors V ``(n_items, d)``, map W ``(d, d)``, offset ``(n_items,)``."""


@dataclass(frozen=True)
class Asked:
    """N users in RecBole's ids.

    Attributes:
        users: ``(N,)``; 0 is a user who was not there in training.
        histories: for each row the distinct items so far, oldest first; never empty.
        grown: ``(N,)`` whether the history holds more than training saw of this user.
    """

    users: IntArray
    histories: list[IntArray]
    grown: BoolArray

    def __len__(self) -> int:
        return len(self.users)

    def matrix(self, n_items: int) -> sp.csr_matrix:
        """``(N, n_items)`` float32 of zeros and ones."""
        indptr = np.cumsum([0, *map(len, self.histories)])
        items = np.concatenate([np.sort(h) for h in self.histories])
        data = np.ones(len(items), np.float32)
        return sp.csr_matrix((data, items, indptr), shape=(len(self), n_items))


Scorer = Callable[[Asked], np.ndarray]
"""``(N, n_model_items)`` scores for N users; column 0 (padding) means nothing."""


def scorer_for(built: Built, trained: sp.csr_matrix) -> Scorer:
    """The scorer of the model's family.

    Args:
        trained: ``(n_model_users, n_model_items)`` the interactions the model was trained on.
    """
    from recbole.utils import ModelType

    model = built.model
    model.eval()
    if built.config["MODEL_TYPE"] == ModelType.SEQUENTIAL:
        listwise = _has_full_sort(model)
        return partial(score_sequences, built) if listwise else CandidateScorer(built, trained)
    if hasattr(model, "item_similarity") or built.config["model"] == "ItemKNN":
        return SimilarityScorer(model)
    if hasattr(model, "get_rating_matrix"):
        return partial(score_rows, built)
    return FoldInScorer(built, trained)


def _has_full_sort(model: Any) -> bool:
    from recbole.model.abstract_recommender import AbstractRecommender

    return type(model).full_sort_predict is not AbstractRecommender.full_sort_predict


class SimilarityScorer:
    """EASE, ItemKNN, SLIM: the row of the user times an item-item matrix."""

    def __init__(self, model: Any) -> None:
        weights = model.w if hasattr(model, "w") else model.item_similarity
        self.weights = weights.tocsc() if sp.issparse(weights) else np.asarray(weights)
        centred = getattr(model, "center_columns", False)
        self.means = np.asarray(model.item_means, np.float64) if centred else None

    def __call__(self, asked: Asked) -> np.ndarray:
        product = asked.matrix(self.weights.shape[0]) @ self.weights
        dense = product.toarray() if sp.issparse(product) else np.asarray(product)
        if self.means is None:
            return dense
        return dense - self.means @ self.weights + self.means


def score_rows(built: Built, asked: Asked) -> np.ndarray:
    """Autoencoders: the network reads the row of the user, grown or not."""
    import torch

    model = built.model
    rows = asked.matrix(model.n_items)

    def run(index: IntArray) -> np.ndarray:
        matrix = torch.from_numpy(rows[index].toarray()).to(built.config["device"])
        model.get_rating_matrix = lambda user: matrix
        try:
            return _full_sort(built, {model.USER_ID: asked.users[index]})
        finally:
            del model.get_rating_matrix

    return _in_chunks(len(asked), run)


def score_sequences(built: Built, asked: Asked) -> np.ndarray:
    """Sequential models: the last items of the grown history, exactly as in training."""
    fields = sequence_fields(built, asked)

    def run(index: IntArray) -> np.ndarray:
        return _full_sort(built, {name: value[index] for name, value in fields.items()})

    return _in_chunks(len(asked), run)


class CandidateScorer:
    """Sequential models that score one item at a time (DIN, DIEN).

    Asking them about a whole catalog costs seconds, so only the ``candidates`` most popular items
    that the user has not had are scored.
    """

    def __init__(self, built: Built, trained: sp.csr_matrix, candidates: int = 200) -> None:
        self.built = built
        self.candidates = candidates
        counts = np.asarray(trained.sum(axis=0)).ravel()
        counts[0] = -1
        self.by_popularity = np.argsort(-counts, kind="stable")[:-1]

    def __call__(self, asked: Asked) -> np.ndarray:
        model = self.built.model
        fields = sequence_fields(self.built, asked)
        out = np.full((len(asked), model.n_items), -np.inf, np.float32)
        for row, history in enumerate(asked.histories):
            fresh = self.by_popularity[~np.isin(self.by_popularity, history)]
            items = np.resize(fresh, self.candidates) if len(fresh) else self.by_popularity
            repeated = {n: np.repeat(v[row : row + 1], len(items), 0) for n, v in fields.items()}
            out[row, items] = _predict(self.built, {**repeated, model.ITEM_ID: items})
        return out


def sequence_fields(built: Built, asked: Asked) -> dict[str, np.ndarray]:
    """RecBole's inputs of a sequential model: left-aligned, cut to the newest, padded with 0."""
    model = built.model
    width = model.max_seq_length
    sequences = np.zeros((len(asked), width), np.int64)
    lengths = np.zeros(len(asked), np.int64)
    for row, history in enumerate(asked.histories):
        last = history[-width:]
        sequences[row, : len(last)] = last
        lengths[row] = len(last)
    fields = {
        built.config["USER_ID_FIELD"]: asked.users,
        model.ITEM_SEQ: sequences,
        model.ITEM_SEQ_LEN: lengths,
    }
    if hasattr(model, "NEG_ITEM_SEQ"):  # DIEN reads it, but only for a loss
        fields[model.NEG_ITEM_SEQ] = np.zeros_like(sequences)
    return fields


class FoldInScorer:
    """Models that know a user only by a trained vector.

    A user whose history has not grown gets the model's own scores.  For growth, the score matrix
    ``S`` of (a sample of) the training users is factored as ``mean + U V'``; a ridge regression
    maps what a user consumed, projected on the fixed item factors ``V``, to ``U``.  Items consumed
    since training move the user's scores by that map; a user unknown to the model gets the map of
    the whole history.  After Sarwar et al. (ICCIT 2002), with a learned map in place of the
    projection, so that it follows whatever scale the scores of a model have.
    """

    def __init__(self, built: Built, trained: sp.csr_matrix) -> None:
        self.built = built
        self.trained = trained.tocsr()
        self.listwise = _has_full_sort(built.model)
        self._blocks: OrderedDict[int, Float32Array] = OrderedDict()
        self._basis: Fold | None = None

    def __call__(self, asked: Asked) -> np.ndarray:
        known = asked.users > 0
        out = np.zeros((len(asked), self.trained.shape[1]))
        for row in np.flatnonzero(known):
            out[row] = self._known(int(asked.users[row]))
        moved = np.flatnonzero(asked.grown)
        if len(moved):
            change = self._code(asked.matrix(self.trained.shape[1])[moved])
            out[moved] += self._to_scores(change)
            old = known[moved]
            out[moved[old]] -= self._to_scores(self._code(self.trained[asked.users[moved[old]]]))
            out[moved[~old]] += self._fold()[2]
        return out.astype(np.float32)

    def _known(self, user: int) -> Float32Array:
        """The model's scores of a training user; computed in fixed blocks of users and kept."""
        block = user // _CHUNK
        if block not in self._blocks:
            users = np.arange(block * _CHUNK, (block + 1) * _CHUNK)
            # Padding user 0 breaks some models, so user 1 stands in for what is out of range.
            users[(users == 0) | (users >= self.trained.shape[0])] = 1
            self._blocks[block] = self._score_users(users)
            if len(self._blocks) > 512:
                self._blocks.popitem(last=False)
        return self._blocks[block][user % _CHUNK]

    def _score_users(self, users: IntArray) -> Float32Array:
        uid, iid = self.built.dataset.uid_field, self.built.dataset.iid_field
        if self.listwise:
            return _full_sort(self.built, {uid: users})
        items = np.arange(self.trained.shape[1])
        pairs = ({uid: np.full(len(items), user), iid: items} for user in users)
        return np.stack([_predict(self.built, own) for own in pairs])

    def _fold(self) -> Fold:
        """``(V, W, offset)`` of :func:`fit_fold_in` on a sample of the training users."""
        if self._basis is None:
            n_users = self.trained.shape[0]
            users = np.unique(
                np.linspace(1, n_users - 1, min(n_users - 1, _BASIS_USERS)).astype(int)
            )
            scores = np.stack([self._known(int(u)) for u in users]).astype(np.float64)
            self._basis = fit_fold_in(scores, self.trained[users])
        return self._basis

    def _code(self, rows: sp.csr_matrix) -> FloatArray:
        return history_code(rows, self._fold()[0])

    def _to_scores(self, code: FloatArray) -> FloatArray:
        items, weights, _ = self._fold()
        # A sparse product, because its rows do not depend on how many there are.
        return np.asarray(sp.csr_matrix(code) @ (weights @ items.T))


def history_code(rows: sp.csr_matrix, items: FloatArray) -> FloatArray:
    """``(N, d)`` sum of the item factors of a history, divided by the root of its length."""
    lengths = np.maximum(np.asarray(rows.sum(axis=1)), 1.0)
    return np.asarray(rows.astype(np.float64) @ items) / np.sqrt(lengths)


def fit_fold_in(scores: FloatArray, rows: sp.csr_matrix) -> Fold:
    """Factor scores of M users and learn the way from their histories to their factors.

    Args:
        scores: ``(M, n_items)``.
        rows: ``(M, n_items)`` what these users consumed.

    Returns:
        item factors ``(n_items, d)`` with orthonormal columns, the map ``(d, d)``, and the offset
        ``(n_items,)``: a user with history row ``x`` has scores ``offset + code(x) W V'``.
    """
    mean = scores.mean(axis=0)
    centred = scores - mean
    values, vectors = np.linalg.eigh(centred @ centred.T)
    keep = values > max(values[-1] * 1e-8, 1e-12)
    order = np.flatnonzero(keep)[::-1][:_MAX_FACTORS]
    if len(order) == 0:  # everybody has the same scores: growth changes nothing
        return np.zeros((scores.shape[1], 1)), np.zeros((1, 1)), mean
    lengths = np.sqrt(values[order])
    items = centred.T @ (vectors[:, order] / lengths)
    users = vectors[:, order] * lengths
    code = history_code(rows, items)
    offset = code.mean(axis=0)
    code = code - offset
    scale = np.trace(code.T @ code) / len(order)
    gram = code.T @ code + _RIDGE * scale / np.sqrt(len(scores)) * np.eye(len(order))
    weights = np.linalg.solve(gram, code.T @ users)
    return items, weights, mean - offset @ weights @ items.T


def _in_chunks(n: int, run: Any) -> np.ndarray:
    """``run`` on row indices in batches of exactly ``_CHUNK``; the last is filled with row 0."""
    parts = []
    for start in range(0, n, _CHUNK):
        index = np.arange(start, start + _CHUNK)
        index[index >= n] = 0
        parts.append(run(index)[: min(_CHUNK, n - start)])
    return np.concatenate(parts)


def _interaction(built: Built, fields: dict[str, np.ndarray]) -> Any:
    import torch
    from recbole.data.interaction import Interaction
    from recbole.data.transform import construct_transform

    batch = Interaction({name: torch.from_numpy(np.asarray(v)) for name, v in fields.items()})
    if built.config["transform"] == "inverse_itemseq":
        batch = construct_transform(built.config)(built.dataset, batch)
    return batch


def _full_sort(built: Built, fields: dict[str, np.ndarray]) -> np.ndarray:
    return _scored(built.model.full_sort_predict, _interaction(built, fields), built, -1)


def _predict(built: Built, fields: dict[str, np.ndarray]) -> np.ndarray:
    return _scored(built.model.predict, built.dataset.join(_interaction(built, fields)), built)


def _scored(ask: Any, batch: Any, built: Built, *width: int) -> np.ndarray:
    import torch

    # A few models draw noise even when asked; the same draw for every batch.
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        scores = ask(batch.to(built.config["device"]))
    return scores.reshape(len(batch), *width).cpu().numpy().astype(np.float32)
