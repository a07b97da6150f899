"""The affinity head, in closed form: least squares from the LLM's line states to real choices.

The LLM stays as it is; what is learned is where in its space lies what is chosen after what, and
what of the choices among items of training cannot be told from their words.
Gradient descent on next choices, with hard or soft targets, came out worse and took longer; see
docs/notes/training-log.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.linalg import svds

from usermirror_gym.engines.base import Engine
from usermirror_gym.errors import ConfigError
from usermirror_gym.files import kept_array
from usermirror_gym.progress import Display
from usermirror_gym.simulators.affinity.affinity_head import AffinityHead, LineMemory
from usermirror_gym.train.config import Affinity, Session
from usermirror_gym.types import (
    ITEM_ID,
    TIMESTAMP,
    USER_ID,
    Float32Array,
    FloatArray,
    IntArray,
    Prompt,
)

_NOTHING = 1e-7
"""Directions of the states this much smaller than the largest are rounding."""
_BLOCK = 1024
"""Lines between two saves."""


def read_states(
    engine: Engine, asked: Prompt, settings: Affinity | Session, folder: Path, *, display: Display
) -> Float32Array:
    """``(n_items + 1, F)`` states of the items' lines; row 0, of padding, is zeros.

    Args:
        engine: reads the lines.
        asked: for all items, see ``PromptBuilder.item_lines``.
        folder: keeps what was read, block by block, for a run that is killed and started again.
        display: shows how far it is.
    """
    n_items = len(asked.options)
    blocks = []
    with display.phase("reading items", n_items, "item") as advance:
        for start in range(0, n_items, _BLOCK):
            lines = asked.options[start : start + _BLOCK]
            read = partial(
                engine.item_hidden_states, lines, head=asked.answer_prefix, parts=settings.parts
            )
            blocks.append(kept_array(folder / f"states-{start}.npy", read))
            advance(len(lines))
    states = np.concatenate(blocks)
    return np.concatenate([np.zeros((1, states.shape[1]), np.float32), states])


def fit_head(
    states: Float32Array,
    events: pd.DataFrame,
    settings: Affinity,
    history_lines: int,
    lines: Sequence[str],
) -> AffinityHead:
    """The head whose ``h(i) . o(j)`` is nearest to how often j was chosen after i.

    With X = U diag(s) V' the states of the chosen items, centred and of equal mean square per part,
    and S of :func:`follow_matrix`, S is projected on the states from
    both sides by ridge regression, ``M = F U' S U F`` with ``F = diag(s^2 / (s^2 + ridge s_1^2))``,
    and cut to its largest ``rank`` singular values, M ~ A diag(g) B' (as Cremonesi et al.,
    Performance of recommender algorithms on top-N recommendation tasks, RecSys 2010, cut a rating
    matrix).  Then ``history = V diag(1/s) A diag(sqrt g)`` and ``option`` likewise with B.
    ``bias`` is the ridge regression of the logarithm of one plus the count.  With ``memory`` e > 0,
    what this leaves of S and of the logarithms is remembered by item: of S, both means taken off,
    the e largest singular values.

    Args:
        states: ``(n_items + 1, F)``; row 0 is not read.
        events: the choices to learn from, all before the cut.
        settings: of the recipe.
        history_lines: lines of the memory that shall count.
        lines: ``n_items`` texts that the states are of.

    Raises:
        ConfigError: see ``follow_matrix``; or all items read alike.
    """
    n_items = len(states) - 1
    follows = follow_matrix(events, n_items, settings)
    counts = choice_counts(events, n_items)
    known = np.flatnonzero(counts)
    space = _Space.of(states[known].astype(np.float64), len(settings.parts), settings.ridge)
    kept = space.shrink[:, None] * (space.left.T @ follows @ space.left) * space.shrink
    ahead, size, behind = np.linalg.svd(kept)
    root = np.sqrt(size[: settings.rank])
    lags = -settings.lag_decay * np.log(np.arange(1, history_lines + 1))
    popularity = np.log1p(counts[known])
    popularity = popularity - popularity.mean()
    head = AffinityHead(
        parts=settings.parts,
        mean=space.mean.astype(np.float32),
        history=(space.back @ (ahead[:, : settings.rank] * root)).astype(np.float32),
        option=(space.back @ (behind[: settings.rank].T * root)).astype(np.float32),
        bias=(space.back @ (space.shrink * (space.left.T @ popularity))).astype(np.float32),
        lags=lags.astype(np.float32),
        floor=settings.floor,
    )
    if not settings.memory:
        return head
    own = [lines[item - 1] for item in known]
    told = head.vectors(states[known], own)
    follows -= follows.mean(axis=0)
    follows -= follows.mean(axis=1, keepdims=True)
    ahead, size, behind = _largest(follows - told.history @ told.option.T, settings.memory)
    root = np.sqrt(size)
    memory = LineMemory.of(own, ahead * root, behind.T * root, popularity - told.item_bias)
    return replace(head, memory=memory)


def _largest(matrix: FloatArray, count: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The largest ``count`` singular values, descending, with their vectors; at most all of them.

    ARPACK finds a few of a large matrix, and cannot find all.
    """
    if count >= len(matrix) // 2:
        left, size, right = np.linalg.svd(matrix)
        return left[:, :count], size[:count], right[:count]
    start = np.random.default_rng(0).normal(size=len(matrix))
    left, size, right = svds(matrix, k=count, v0=start)
    order = np.argsort(-size)
    return left[:, order], size[order], right[order]


class _Space(NamedTuple):
    """States of n lines as orthogonal directions."""

    mean: FloatArray  # (F,)
    left: FloatArray  # (n, r) orthonormal columns
    back: FloatArray  # (F, r) from centred states to the columns of left
    shrink: FloatArray  # (r,) what ridge regression leaves of each

    @classmethod
    def of(cls, states: FloatArray, parts: int, ridge: float) -> _Space:
        mean = states.mean(axis=0)
        centred = states - mean
        blocks = centred.reshape(len(states), parts, -1)
        scale = np.sqrt((blocks**2).sum(axis=2).mean(axis=0))  # (parts,)
        if not scale.all():
            raise ConfigError("all items read alike: the affinity head has nothing to tell them by")
        per_number = np.repeat(scale, blocks.shape[2])
        left, size, right = np.linalg.svd(centred / per_number, full_matrices=False)
        real = size > _NOTHING * size[0]
        left, size, right = left[:, real], size[real], right[real]
        shrink = size**2 / (size**2 + ridge * size[0] ** 2)
        return cls(mean, left, right.T / size / per_number[:, None], shrink)


MOST_ITEMS = 20_000
"""A dense matrix of this side takes 3 GB."""


def choice_counts(events: pd.DataFrame, n_items: int) -> IntArray:
    """``(n_items + 1,)`` how often each item was chosen; 0 for padding."""
    return np.bincount(events[ITEM_ID].to_numpy(np.int64), minlength=n_items + 1)


def follow_matrix(events: pd.DataFrame, n_items: int, settings: Affinity) -> FloatArray:
    """``(n, n)`` how much more often j was chosen after i than their counts explain.

    n are the items that were chosen at all, ascending.  ``S[i, j]`` is the sum of
    ``distance ** -decay`` over all pairs in which the same user chose i and then, ``distance`` <=
    ``window`` choices later, j; plus ``backwards`` times the same with i and j in each other's
    place; over ``(n_i n_j) ** norm_power`` with n the number of choices.  The diagonal is 0 and
    the mean 1.  Item-item counts in the manner of Deshpande & Karypis (Item-based top-N
    recommendation algorithms, TOIS 2004) with the order in which items were chosen.

    Args:
        events: with user, item and time.
        n_items: of the catalogue.
        settings: their ``decay`` 0 counts all distances alike; ``backwards`` 0 looks only ahead, 1
            is symmetric; ``norm_power`` 0.5 is the cosine's.

    Raises:
        ConfigError: more items than a dense matrix can hold, or nobody chose twice.
    """
    counts = choice_counts(events, n_items)
    known = np.flatnonzero(counts)
    if len(known) > MOST_ITEMS:
        raise ConfigError(
            f"an affinity head is fitted on a matrix between all chosen items, here {len(known):,} "
            f"and at most {MOST_ITEMS:,}: leave out rare items with min_item_interactions of the "
            "data source, or take another readout"
        )
    ordered = events.sort_values([USER_ID, TIMESTAMP, ITEM_ID], kind="stable")
    users, items = (ordered[c].to_numpy(np.int64) for c in (USER_ID, ITEM_ID))
    place = np.full(n_items + 1, -1, np.int64)
    place[known] = np.arange(len(known))
    after = _pairs(users, place[items], len(known), settings).toarray()
    matrix: FloatArray = after + settings.backwards * after.T
    np.fill_diagonal(matrix, 0.0)
    if not matrix.any():
        raise ConfigError(
            "no user chose two different items before the cut: there is nothing to fit"
        )
    size = counts[known].astype(np.float64) ** settings.norm_power
    matrix /= size[:, None]
    matrix /= size
    matrix /= matrix.mean()
    return matrix


def _pairs(users: IntArray, items: IntArray, n: int, settings: Affinity) -> sparse.csr_matrix:
    """Weighted counts of ordered pairs, ``(n, n)``; events are ordered by user and time."""
    total = sparse.csr_matrix((n, n))
    for distance in range(1, min(settings.window, len(users) - 1) + 1):
        same = users[distance:] == users[:-distance]
        first, second = items[:-distance][same], items[distance:][same]
        weights = np.full(len(first), float(distance) ** -settings.decay)
        total = total + sparse.csr_matrix((weights, (first, second)), shape=(n, n))
    return total
