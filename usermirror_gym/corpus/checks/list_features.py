"""Lists as arrays, and what can be said of their options without knowing the user.

N lists are padded to the longest, W; every array of options is ``(N, W)`` and means nothing where
``mask`` is False.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import sparse

from usermirror_gym.data import RecDataset
from usermirror_gym.types import (
    AVAILABLE_FROM,
    ITEM_ID,
    PAD,
    TIMESTAMP,
    USER_ID,
    BoolArray,
    FloatArray,
    IntArray,
)

Columns = dict[str, FloatArray]
"""Name -> ``(N, W)`` values."""


@dataclass(frozen=True)
class Lists:
    """N lists from which something was chosen."""

    users: IntArray  # (N,)
    times: IntArray  # (N,)
    slates: IntArray  # (N, W)
    targets: IntArray  # (N,)
    histories: list[IntArray]  # N arrays of item ids
    text_lengths: FloatArray  # (N, W) characters of the option
    note_lengths: FloatArray  # (N, W) characters of its note
    makers: list[str]  # N names of the samplers the company came from, joined by " + "

    @property
    def mask(self) -> BoolArray:
        """``(N, W)`` where there is an option."""
        return self.slates != PAD

    @property
    def sizes(self) -> IntArray:
        """``(N,)`` K of each list."""
        return self.mask.sum(axis=1)

    @classmethod
    def of(cls, table: pa.Table) -> Lists:
        """The rows of a scenes table whose target is in the list; the others are left out."""
        rows = [
            row
            for row in table.drop_columns(["profile", "history_texts", "behaviours"]).to_pylist()
            if row["target"] < len(row["slate"])
        ]
        return cls(
            users=np.array([row[USER_ID] for row in rows], np.int64),
            times=np.array([row[TIMESTAMP] for row in rows], np.int64),
            slates=_padded([row["slate"] for row in rows]).astype(np.int64),
            targets=np.array([row["target"] for row in rows], np.int64),
            histories=[np.array(row["history"], np.int64) for row in rows],
            text_lengths=_padded([[len(t) for t in row["options"]] for row in rows]),
            note_lengths=_padded([[len(t) for t in row["notes"]] for row in rows]),
            makers=[_makers(row["samplers"], row["target"]) for row in rows],
        )


def position_features(lists: Lists, width: int) -> Columns:
    """Place from the front (one column each, up to ``width``) and from the back."""
    n, w = lists.slates.shape
    place = np.broadcast_to(np.arange(w), (n, w))
    columns = {f"place {p}": (place == p).astype(float) for p in range(width)}
    return columns | {"last": (place == lists.sizes[:, None] - 1).astype(float)}


def popularity_features(lists: Lists, popularity: IntArray) -> Columns:
    """Rank of the popularity within the list."""
    return within_list("popularity", np.log1p(popularity[lists.slates].astype(float)), lists.mask)


def list_features(
    lists: Lists, dataset: RecDataset, popularity: IntArray, vectors: dict[str, np.ndarray]
) -> Columns:
    """Everything about options and lists, nothing about the user.

    Args:
        vectors: name -> ``(n_items + 1, d)`` unit vectors, by which options resemble each other.
    """
    columns = position_features(lists, 12) | popularity_features(lists, popularity)
    plain = {"text length": lists.text_lengths, "note length": lists.note_lengths}
    plain |= _item_columns(lists, dataset)
    for name, embedding in vectors.items():
        plain |= _resemblance(lists, name, embedding)
    for name, values in plain.items():
        columns |= {name: values} | within_list(name, values, lists.mask)
    return columns


def embedding_similarity(lists: Lists, embedding: np.ndarray) -> FloatArray:
    """``(N, W)`` inner product of each option with the mean of the history."""
    means = np.stack([embedding[h].mean(axis=0) if len(h) else embedding[PAD] * 0
                      for h in lists.histories])  # fmt: skip
    return np.einsum("nwe,ne->nw", embedding[lists.slates], means).astype(np.float64)


def co_occurrence(lists: Lists, dataset: RecDataset, before: int, batch: int = 256) -> FloatArray:
    """``(N, W)`` summed cosine of each option with the history over the other users' items.

    Counts interactions before the moment ``before``; the list's own user is left out, whose later
    choices would tell the answer.
    """
    events = dataset.interactions[dataset.interactions[TIMESTAMP] < before]
    shape = (dataset.n_items + 1, dataset.n_users + 1)
    matrix = sparse.csr_matrix(
        (np.ones(len(events)), (events[ITEM_ID].to_numpy(), events[USER_ID].to_numpy())), shape
    )
    matrix.data[:] = 1.0
    norms = np.sqrt(np.asarray(matrix.sum(axis=1)).ravel())
    scale = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
    items = (sparse.diags(scale) @ matrix).tocsr()
    scores = np.zeros(lists.slates.shape)
    for start in range(0, len(lists.users), batch):
        rows = slice(start, start + batch)
        users, options = lists.users[rows], lists.slates[rows]
        past = _indicator(lists.histories[rows], shape[0]) @ items  # (B, n_users + 1)
        own = np.asarray(past[np.arange(len(users)), users]).ravel()
        for column, shown in enumerate(options.T):
            together = np.asarray(items[shown].multiply(past).sum(axis=1)).ravel()
            scores[rows, column] = together - own * np.asarray(items[shown, users]).ravel()
    return scores


def _indicator(histories: list[IntArray], width: int) -> sparse.csr_matrix:
    """``(B, width)`` how often each item is in each history."""
    rows = np.repeat(np.arange(len(histories)), [len(h) for h in histories])
    columns = np.concatenate([*histories, np.zeros(0, np.int64)])
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), (len(histories), width))


def _item_columns(lists: Lists, dataset: RecDataset) -> Columns:
    """Numbers of the items; the publication time becomes an age at the moment of the list."""
    columns = {}
    for name in dataset.items.columns:
        values = dataset.items[name]
        if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
            continue
        by_item = np.r_[np.nan, values.to_numpy(np.float64, na_value=np.nan)]
        shown = by_item[lists.slates]
        columns[name] = lists.times[:, None] - shown if name == AVAILABLE_FROM else shown
    return columns


def _resemblance(lists: Lists, name: str, embedding: np.ndarray, batch: int = 1024) -> Columns:
    """Similarity of each option to the others of its list: the mean, and the nearest."""
    mean, nearest = np.zeros(lists.slates.shape), np.zeros(lists.slates.shape)
    different = ~np.eye(lists.slates.shape[1], dtype=bool)
    for start in range(0, len(lists.users), batch):
        rows = slice(start, start + batch)
        vectors = embedding[lists.slates[rows]].astype(np.float32)
        others = lists.mask[rows, None, :] & different
        similar = np.where(others, np.einsum("nwe,nve->nwv", vectors, vectors), 0)
        mean[rows] = similar.sum(axis=2) / np.maximum(others.sum(axis=2), 1)
        nearest[rows] = np.where(others, similar, -1).max(axis=2, initial=-1)
    return {f"{name}, mean resemblance": mean, f"{name}, nearest resemblance": nearest}


def within_list(name: str, values: FloatArray, mask: BoolArray) -> Columns:
    """A value compared with the rest of its list; ties share their ranks, gaps are a column."""
    known = mask & np.isfinite(values)
    filled = np.where(known, values, 0.0)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    centred = np.where(known, filled - filled.sum(axis=1, keepdims=True) / count, 0.0)
    pairs = known[:, :, None] & known[:, None, :]
    sign = np.sign(filled[:, :, None] - filled[:, None, :])
    rank = np.where(pairs, sign, 0).sum(axis=2) / np.maximum(count - 1, 1)  # -1 lowest, 1 highest
    return {
        f"{name}, from the mean": centred,
        f"{name}, rank": rank,
        f"{name}, rank squared": rank**2,
        f"{name}, highest": (rank == 1).astype(float),
        f"{name}, lowest": (rank == -1).astype(float),
        f"{name}, unknown": (mask & ~known).astype(float),
    }


def _makers(samplers: list[str], target: int) -> str:
    return " + ".join(sorted({s for place, s in enumerate(samplers) if place != target}))


def _padded(rows: list[list[int]]) -> FloatArray:
    padded = np.zeros((len(rows), max(map(len, rows), default=0)))
    for row, values in enumerate(rows):
        padded[row, : len(values)] = values
    return padded
