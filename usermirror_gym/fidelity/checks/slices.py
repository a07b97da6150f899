"""Kinds of scenes: whose company the true item had, and who chose it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from usermirror_gym.data import TimeSplit
from usermirror_gym.types import USER_ID, BoolArray, IntArray

FEW = 30
"""Slices with fewer scenes are marked."""
MIXED = "mixed"
"""Company of which no sampler made more than half."""
Slices = dict[str, dict[str, BoolArray]]
"""Dimension -> value -> ``(S,)`` which scenes; a dimension parts the scenes with a true item."""

_THIRDS = ("low", "middle", "high")


def slices(table: pa.Table, split: TimeSplit | None) -> Slices:
    """The slices of S scenes; scenes without their true item are in none.

    ``sampler``: of more than half of the company, or :data:`MIXED`.  ``domain``.  ``k``: length of
    the list.  ``user``: seen or unseen before T0.  ``activity``: interactions of the user
    before T0, and ``popularity``: those of the true item, both in thirds of the scenes.

    Args:
        table: rows of :data:`usermirror_gym.scenes.table.SCHEMA`.
        split: the data behind them; without it there is no activity and no popularity.
    """
    sizes = np.array([len(slate) for slate in table["slate"].to_pylist()], np.int64)
    targets = table["target"].to_numpy()
    held = targets < sizes
    seen = np.where(table["seen_user"].to_numpy(zero_copy_only=False), "seen", "unseen")
    found = {
        "sampler": _by_name(_company(table["samplers"].to_pylist(), targets), held),
        "domain": _by_name(np.array(table["domain"].to_pylist()), held),
        "k": {str(size): held & (sizes == size) for size in np.unique(sizes[held])},
        "user": _by_name(seen, held),
        "activity": {},
        "popularity": {},
    }
    if split is not None:
        users = split.before[USER_ID].to_numpy()
        activity = np.bincount(users, minlength=split.dataset.n_users + 1)
        found["activity"] = _thirds(activity[table["user_id"].to_numpy()], held)
        found["popularity"] = _thirds(split.popularity[table["item_id"].to_numpy()], held)
    return found


def exposure(table: pa.Table, split: TimeSplit | None) -> dict[str, Any]:
    """Whose company the true items had.

    Returns:
        ``company``: share of the other items that each sampler drew, largest first.
        ``most_popular``: how often the true item is the most popular of its list, ties shared; an
        even share says that popularity gives nothing away.  ``None`` without a split.
    """
    sizes = np.array([len(slate) for slate in table["slate"].to_pylist()], np.int64)
    targets = table["target"].to_numpy()
    row, place = np.repeat(np.arange(len(sizes)), sizes), _places(sizes)
    other = place != targets[row]
    names, counts = np.unique(_flat(table, "samplers")[other], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shares = {str(names[i]): float(counts[i] / counts.sum()) for i in order}
    found: dict[str, Any] = {"company": shares, "most_popular": None}
    held = targets < sizes
    if split is None or not held.any():
        return found
    popular = np.full((len(sizes), int(sizes.max())), -1)
    popular[row, place] = split.popularity[_flat(table, "slate")]
    top = popular[held] == popular[held].max(axis=1, keepdims=True)
    hits = top[np.arange(len(top)), targets[held]] / top.sum(axis=1)
    return found | {"most_popular": float(hits.mean())}


def _flat(table: pa.Table, column: str) -> np.ndarray:
    """All values of a column of lists, one after the other."""
    return table[column].combine_chunks().flatten().to_numpy(zero_copy_only=False)


def _places(sizes: IntArray) -> IntArray:
    """``0 .. n - 1`` for every n of the sizes, one after the other."""
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _by_name(names: np.ndarray, held: BoolArray) -> dict[str, BoolArray]:
    return {str(name): held & (names == name) for name in np.unique(names[held])}


def _company(samplers: list[list[str]], targets: IntArray) -> np.ndarray:
    """``(S,)`` the sampler of more than half of the items but the chosen one, or :data:`MIXED`."""
    names = []
    for row, target in zip(samplers, targets.tolist(), strict=True):
        makers = Counter(name for place, name in enumerate(row) if place != target)
        name, count = makers.most_common(1)[0] if makers else (MIXED, 0)
        names.append(name if 2 * count > makers.total() else MIXED)
    return np.array(names, object)


def _thirds(values: IntArray, held: BoolArray) -> dict[str, BoolArray]:
    """Low, middle, high with their ranges; equal values stay together, no third is empty."""
    if not held.any():
        return {}
    edges = np.quantile(values[held], [1 / 3, 2 / 3])
    third = np.searchsorted(edges, values, side="left")
    members = {name: held & (third == number) for number, name in enumerate(_THIRDS)}
    return {f"{name} ({_range(values[m])})": m for name, m in members.items() if m.any()}


def _range(values: IntArray) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
