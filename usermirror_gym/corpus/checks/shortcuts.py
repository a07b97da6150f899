"""How far a baseline gets that never looks at the user: position, popularity, the list alone.

What is learned is learned on train scenes; "other users" adds the evaluation lists of the other
users (five folds), and so also finds what only evaluation lists betray.  Baselines that do read
the history stand beside them, to show what there is to know.  Popularity of train choices counts
the choice itself, as every part of a build that is fitted before T0 does.

N lists are padded to the longest, W; every array of options is ``(N, W)`` and means nothing where
``mask`` is False.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from rich import box
from rich.table import Table
from scipy import sparse

from usermirror_gym.data import RecDataset, TimeSplit
from usermirror_gym.errors import RunError
from usermirror_gym.measures.bootstrap import UserBootstrap
from usermirror_gym.measures.choice_models import fit_logit, fit_trees, hits
from usermirror_gym.scenes.draw.rankers import fit_collaborative
from usermirror_gym.scenes.scene import padded
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

SAMPLED, MIXED, REAL = "sampled lists", "mixed lists", "real lists"
FEWEST = 50
"""Mixes of samplers with fewer lists have no row of their own."""
LIMIT = 0.05
"""A shortcut further above chance than this is marked."""
_FOLDS = 5
_STRONGEST = "list, trees, other users"


@dataclass(frozen=True)
class ShortcutRow:
    """Accuracy of one baseline on one kind of lists.

    Attributes:
        name: of the baseline.
        lists: :data:`SAMPLED`, :data:`MIXED` (several samplers), :data:`REAL`, or the names of
            the samplers that the company came from.
        n: number of lists.
        accuracy, low, high: share of hits, with its 95 % interval over users (NaN: no interval).
        chance: mean of 1/K.
        reads_history: whether it is a reference rather than a shortcut.
    """

    name: str
    lists: str
    n: int
    accuracy: float
    low: float
    high: float
    chance: float
    reads_history: bool

    @property
    def marked(self) -> bool:
        """See :func:`is_shortcut`."""
        return is_shortcut(vars(self))


def is_shortcut(row: Mapping[str, Any]) -> bool:
    """Whether a row (as a dict) is a shortcut that is clearly there, and further above chance than
    :data:`LIMIT`."""
    if row.get("reads_history") or row.get("accuracy") is None or row.get("chance") is None:
        return False
    clear = row.get("low") is None or not row["low"] <= row["chance"]
    return bool(row["accuracy"] - row["chance"] > LIMIT and clear)


@dataclass(frozen=True)
class ShortcutReport:
    """All rows of one source, and how many lists they are about."""

    source: str
    rows: list[ShortcutRow]
    n_train: int
    left_out: int
    """Evaluation scenes without a right item (removed, or nothing was chosen)."""


def shortcut_audit(
    train: pa.Table,
    evaluation: pa.Table,
    dataset: RecDataset,
    popularity: np.ndarray,
    embedding: np.ndarray | None,
    seed: int = 0,
) -> ShortcutReport:
    """Accuracy of every shortcut, and of the references, on the evaluation scenes of a source.

    Args:
        train, evaluation: tables in the form of :data:`usermirror_gym.scenes.table.SCHEMA`.
        popularity: ``(n_items + 1,)`` interactions before T0.
        embedding: ``(n_items + 1, e)`` L2-normalised, or None.
        seed: of the trees, the folds and the intervals.

    Raises:
        RunError: no scene of one of the tables has its right item in the list.
    """
    lists = Lists.of(pa.concat_tables([train, evaluation]))
    n_train = len(Lists.of(train).users)
    test = np.arange(len(lists.users)) >= n_train
    if not n_train or not test.any():
        raise RunError(
            f"the shortcuts of {dataset.name!r} cannot be measured: {n_train} train and "
            f"{int(test.sum())} evaluation lists hold a chosen item, both must be above 0"
        )
    hit = {
        name: hits(scores[test], lists.mask[test], lists.targets[test])
        for name, scores in _scores(lists, test, dataset, popularity, embedding, seed).items()
    }
    rows = _rows(lists, test, hit, seed)
    return ShortcutReport(dataset.name, rows, n_train, evaluation.num_rows - int(test.sum()))


def shortcut_table(report: ShortcutReport) -> Table:
    """Baselines as rows, kinds of lists as columns; percent, with intervals.

    Below, the strongest list-only baseline on each mix of samplers.
    """
    kinds = list(dict.fromkeys(row.lists for row in report.rows))
    wide = [kind for kind in kinds if kind in (SAMPLED, MIXED, REAL)]
    table = Table(
        title=f"Shortcuts in {report.source}: accuracy %, 95 % intervals over users",
        caption=f"Learned on {report.n_train} train lists. {report.left_out} evaluation scenes "
        f"without a right item left out. ! more than {100 * LIMIT:g} points above chance. Last "
        f"section: '{_STRONGEST}' by the samplers of the company.",
        caption_justify="left", box=box.SIMPLE_HEAD, title_style="bold",
    )  # fmt: skip
    table.add_column("Baseline")
    for kind in wide:
        table.add_column(kind, justify="right", no_wrap=True)
    cells = {(row.name, row.lists): row for row in report.rows}
    first = [cells[report.rows[0].name, kind] for kind in wide]
    table.add_row("lists", *(f"{row.n}" for row in first))
    table.add_row("chance", *(f"{100 * row.chance:.1f}" for row in first), end_section=True)
    for name in dict.fromkeys(row.name for row in report.rows):
        table.add_row(name, *(_cell(cells[name, kind]) for kind in wide))
    table.add_section()
    for kind in kinds:
        if kind not in wide:
            row = cells[_STRONGEST, kind]
            table.add_row(f"{kind} ({row.n}, chance {100 * row.chance:.1f})", _cell(row))
    return table


def _cell(row: ShortcutRow) -> str:
    interval = f" ({100 * row.low:.1f}-{100 * row.high:.1f})" if np.isfinite(row.low) else ""
    return f"{100 * row.accuracy:.1f}{interval}" + ("!" if row.marked else " ")


def _scores(
    lists: Lists,
    test: BoolArray,
    dataset: RecDataset,
    popularity: IntArray,
    embedding: np.ndarray | None,
    seed: int,
) -> dict[str, FloatArray]:
    """``(N, W)`` scores of each baseline for train and evaluation lists."""
    position = position_features(lists, lists.slates.shape[1])
    before = int(lists.times[test].min())
    vectors = {"audience": _audience(TimeSplit(dataset, before))}
    if embedding is not None:
        vectors["text"] = embedding
    everything = list_features(lists, dataset, popularity, vectors)
    past = {"items of other users": co_occurrence(lists, dataset, before)}
    if embedding is not None:
        past["resemblance"] = embedding_similarity(lists, embedding)
    counts = popularity[lists.slates].astype(np.float64)

    def logit(columns: Columns) -> FloatArray:
        return _fitted(lists, ~test, columns, fit_logit)

    def trees(columns: Columns, fitting: BoolArray = ~test) -> FloatArray:
        return _fitted(lists, fitting, columns, lambda x, m, t: fit_trees(x, m, t, seed))

    return {
        "position, best place": _best_column(lists, ~test, position),
        "position, learned": logit(position),
        "popularity, highest": counts,
        "popularity, lowest": -counts,
        "popularity, learned": logit(popularity_features(lists, popularity)),
        "list, logit": logit(everything),
        "list, trees": trees(everything),
        _STRONGEST: _cross_fitted(lists, test, everything, trees, seed),
        **{f"history, {name}": values for name, values in past.items()},
        "history and list, logit": logit(everything | past),
    }


def _audience(split: TimeSplit) -> FloatArray:
    """``(n_items + 1, d)`` unit vectors: items with the same users lie close to each other."""
    factors = fit_collaborative(split).factors
    norms = np.linalg.norm(factors, axis=1, keepdims=True)
    return np.divide(factors, norms, out=np.zeros_like(factors), where=norms > 0)


def _fitted(
    lists: Lists, fitting: BoolArray, columns: Columns, fit: Callable[..., Callable]
) -> FloatArray:
    features = np.stack(list(columns.values()), axis=2)
    baseline = fit(features[fitting], lists.mask[fitting], lists.targets[fitting])
    return baseline(features, lists.mask)


def _cross_fitted(
    lists: Lists, test: BoolArray, columns: Columns, fit: Callable[..., FloatArray], seed: int
) -> FloatArray:
    """Each evaluation list is scored by a model that has seen all lists but those of its users."""
    users, number = np.unique(lists.users, return_inverse=True)
    fold = (np.random.default_rng(seed).permutation(len(users)) % _FOLDS)[number]
    scores = np.zeros(lists.slates.shape)
    for held_out in np.unique(fold[test]):
        if (fitting := fold != held_out).any():
            scores[~fitting] = fit(columns, fitting)[~fitting]
    return scores


def _best_column(lists: Lists, fitting: BoolArray, columns: Columns) -> FloatArray:
    """The place that is most often right in train lists."""
    right = [hits(c, lists.mask, lists.targets)[fitting].mean() for c in columns.values()]
    return list(columns.values())[int(np.argmax(right))]


def _rows(
    lists: Lists, test: BoolArray, hit: dict[str, FloatArray], seed: int
) -> list[ShortcutRow]:
    makers = np.array(lists.makers)[test]
    users, chance = lists.users[test], 1 / lists.sizes[test]
    values = np.stack(list(hit.values()), axis=1)
    rows = []
    for kind, member in _kinds(makers).items():
        bootstrap = UserBootstrap(users[member], n_resamples=1000, seed=seed)
        for name, (mean, low, high) in zip(hit, bootstrap.intervals(values[member]), strict=True):
            rows.append(
                ShortcutRow(name, kind, int(member.sum()), mean, low, high,
                            float(chance[member].mean()), name.startswith("history"))
            )  # fmt: skip
    return rows


def _kinds(makers: np.ndarray) -> dict[str, BoolArray]:
    """Which lists are of which kind; kinds without lists are left out."""
    real = makers == "log"
    mixed = np.char.find(makers, "+") >= 0
    kinds = {SAMPLED: ~real, MIXED: mixed & ~real, REAL: real}
    names, counts = np.unique(makers[~real], return_counts=True)
    kinds |= {str(name): makers == name for name in names[counts >= FEWEST]}
    return {kind: member for kind, member in kinds.items() if member.any()}


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
            slates=padded([row["slate"] for row in rows], np.int64),
            targets=np.array([row["target"] for row in rows], np.int64),
            histories=[np.array(row["history"], np.int64) for row in rows],
            text_lengths=padded([[len(t) for t in row["options"]] for row in rows], np.float64),
            note_lengths=padded([[len(t) for t in row["notes"]] for row in rows], np.float64),
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
