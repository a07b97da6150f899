"""How well it does by kind of scene: what the true item stood among, and who chose it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from matplotlib.figure import Figure

from usermirror_gym.data import TimeSplit
from usermirror_gym.fidelity.checks.base import (
    SHOWN,
    SHOWN_COLUMNS,
    Card,
    Check,
    Context,
    by_name,
)
from usermirror_gym.fidelity.checks.parts import (
    bar,
    handle,
    named_rows,
    own,
    percent,
    sorted_choosers,
)
from usermirror_gym.report.plots import Plot, draw_svg, legend_above
from usermirror_gym.report.tables import View
from usermirror_gym.report.text import MISSING, interval, points, shorten
from usermirror_gym.types import USER_ID, BoolArray, IntArray

FEW = 30
"""Slices with fewer scenes are marked."""
MIXED = "mixed"
"""Distractors of which no sampler drew more than half."""
Members = dict[str, dict[str, BoolArray]]
"""Dimension -> value -> ``(S,)`` which scenes; a dimension parts the scenes with a true item."""
NAMES = {
    "sampler": "Company drawn by", "domain": "Domain", "k": "Options in the list", "user": "User",
    "activity": "Activity of the user", "popularity": "Popularity of the true item",
}  # fmt: skip


class Slices(Check):
    """``slices`` of every chooser: :data:`SHOWN` by kind of scene."""

    def run(self, context: Context) -> dict[str, Any]:
        groups = {} if context.table is None else slices(context.table, context.split)
        return {"choosers": [{"slices": block} for block in slice_blocks(context, groups)]}

    def tables(self, card: Card) -> list[View | None]:
        """The simulator and its strongest rival by slice."""
        other = rival(card)
        known = _by_slice(other)
        rows = [
            {"slice": ": ".join(key), "own": row, "other": known.get(key)}
            for key, row in _by_slice(own(card)).items()
        ]
        columns: dict[str, Any] = {
            "slice": "slice",
            "lists": lambda row: f"{row['own']['n']:,}{' (few)' if row['own']['few'] else ''}",
        }
        for whose, lead in (("own", ""), ("other", f"{other['name']}: " if other else None)):
            if lead is not None:
                columns |= {
                    f"{lead}accuracy %": lambda row, w=whose: _shown(row[w], "accuracy"),
                    f"{lead}log-loss": lambda row, w=whose: _shown(row[w], "log_loss"),
                }
        note = "few: less than 30 lists."
        return [View.of("By kind of list and user", rows, columns, note)]

    def plot(self, card: Card) -> Plot | None:
        """Accuracy of the simulator and of its strongest rival, slice by slice."""
        other = rival(card)
        known = _by_slice(other)
        labels: list[tuple[float, str, bool]] = []
        rows: list[tuple[float, str, Mapping[str, Any]]] = []
        at = 0.0
        for group, every in _groups(own(card)):
            # A few lists have intervals as wide as the axis: they are in the table.
            if members := [row for row in every if not row["few"]]:
                labels.append((at, group, True))
                for row in members:
                    at -= 1
                    labels.append((at, f"{row['value']} ({row['n']:,})", False))
                    rows.append((at, group, row))
                at -= 1.4
        if not rows:
            return None

        def draw(figure: Figure) -> None:
            axes = figure.subplots()
            for y, group, row in rows:
                bar(axes, row["accuracy"], y + 0.12, "simulator")
                if other is not None and (beside := known.get((group, row["value"]))) is not None:
                    bar(axes, beside["accuracy"], y - 0.2, other["kind"])
            axes.set_yticks([y for y, _, _ in labels], [shorten(t, 30) for _, t, _ in labels])
            for tick, (_, _, head) in zip(axes.get_yticklabels(), labels, strict=True):
                tick.set_fontweight("bold" if head else "normal")
            named_rows(axes)
            axes.set_ylim(at + 0.8, 0.7)
            percent(axes.xaxis, 6)
            handles = [handle("simulator", "this simulator")]
            if other is not None:
                handles.append(handle(other["kind"], shorten(other["name"], 30)))
            legend_above(axes, handles=handles, handletextpad=0.2)

        against = f", beside {other['name']}, the rival with the least log-loss" if other else ""
        shown = [f"{group} {row['value']} {points(row['accuracy'])} %" for _, group, row in rows]
        return Plot(
            "Accuracy by kind of list and user",
            f"This simulator{against}. In brackets the number of lists; slices of less than 30 "
            "are in the table alone. Bars are 95% intervals over users.",
            "Accuracy by slice: " + "; ".join(shown),
            draw_svg(draw, -0.215 * at + 0.9, "slices"),
        )


def slices(scenes: pa.Table, split: TimeSplit | None) -> Members:
    """The slices of S scenes; scenes without their true item are in none.

    ``sampler``: of more than half of the distractors, or :data:`MIXED`.  ``domain``.  ``k``:
    length of the list.  ``user``: seen or unseen before T0.  ``activity``: interactions of the user
    before T0, and ``popularity``: those of the true item, both in thirds of the scenes.

    Args:
        scenes: rows of :data:`usermirror_gym.scenes.table.SCHEMA`.
        split: the data behind them; without it there is no activity and no popularity.
    """
    sizes = np.array([len(slate) for slate in scenes["slate"].to_pylist()], np.int64)
    targets = scenes["target"].to_numpy()
    kept = targets < sizes
    seen = np.where(scenes["seen_user"].to_numpy(zero_copy_only=False), "seen", "unseen")
    found = {
        "sampler": _by_name(_distractors(scenes["samplers"].to_pylist(), targets), kept),
        "domain": _by_name(np.array(scenes["domain"].to_pylist()), kept),
        "k": {str(size): kept & (sizes == size) for size in np.unique(sizes[kept])},
        "user": _by_name(seen, kept),
        "activity": {},
        "popularity": {},
    }
    if split is not None:
        users = split.before[USER_ID].to_numpy()
        activity = np.bincount(users, minlength=split.dataset.n_users + 1)
        found["activity"] = _thirds(activity[scenes["user_id"].to_numpy()], kept)
        found["popularity"] = _thirds(split.popularity[scenes["item_id"].to_numpy()], kept)
    return found


def slice_blocks(context: Context, groups: Members) -> list[dict[str, Any]]:
    """Of each chooser: dimension -> rows with ``value``, ``n``, ``few`` and :data:`SHOWN`."""
    values = np.hstack([scores[:, SHOWN_COLUMNS] for scores in context.scores])
    blocks: list[dict[str, Any]] = [{name: [] for name in groups} for _ in context.answered]
    for dimension, members in groups.items():
        for value, member in members.items():
            row = {"value": value, "n": int(member.sum()), "few": bool(member.sum() < FEW)}
            intervals = context.bootstrap.intervals(np.where(member[:, None], values, np.nan))
            for block, pair in zip(blocks, by_name(SHOWN, intervals), strict=True):
                block[dimension].append(row | pair)
    return blocks


def exposure(scenes: pa.Table, split: TimeSplit | None) -> dict[str, Any]:
    """What the true items stood among.

    Returns:
        ``company``: share of the other items that each sampler drew, largest first.
        ``most_popular``: how often the true item is the most popular of its list, ties shared; an
        even share says that popularity gives nothing away.  ``None`` without a split.
    """
    lists = scenes.select(["slate", "samplers", "target"]).to_pandas()
    options = lists.explode(["slate", "samplers"])
    chosen = options.groupby(level=0).cumcount() == options["target"]
    shares = options.loc[~chosen, "samplers"].value_counts(normalize=True).sort_index()
    shares = shares.sort_values(ascending=False, kind="stable")
    found: dict[str, Any] = {"company": shares.to_dict(), "most_popular": None}
    if split is None or not chosen.any():
        return found
    count = pd.Series(split.popularity[options["slate"].to_numpy(np.int64)], options.index)
    top = count == count.groupby(level=0).transform("max")
    hits = (top / top.groupby(level=0).transform("sum"))[chosen]
    return found | {"most_popular": float(hits.to_numpy().mean())}


def _by_name(names: np.ndarray, kept: BoolArray) -> dict[str, BoolArray]:
    return {str(name): kept & (names == name) for name in np.unique(names[kept])}


def _distractors(samplers: list[list[str]], targets: IntArray) -> np.ndarray:
    """``(S,)`` the sampler of more than half of the items but the chosen one, or :data:`MIXED`."""
    names = []
    for row, target in zip(samplers, targets.tolist(), strict=True):
        makers = Counter(name for place, name in enumerate(row) if place != target)
        name, count = makers.most_common(1)[0] if makers else (MIXED, 0)
        names.append(name if 2 * count > makers.total() else MIXED)
    return np.array(names, object)


def _thirds(values: IntArray, kept: BoolArray) -> dict[str, BoolArray]:
    """Low, middle, high with their ranges; equal values stay together, no third is empty."""
    if not kept.any():
        return {}
    edges = np.quantile(values[kept], [1 / 3, 2 / 3])
    third = np.searchsorted(edges, values, side="left")
    found = {}
    for place, name in enumerate(("low", "middle", "high")):
        if (member := kept & (third == place)).any():
            ends = dict.fromkeys((int(values[member].min()), int(values[member].max())))
            found[f"{name} ({' to '.join(f'{end:,}' for end in ends)})"] = member
    return found


def rival(card: Card) -> dict[str, Any] | None:
    """The chooser with the least log-loss that is no form of the simulator and no reference."""
    wanted = [c for c in sorted_choosers(card) if c["kind"] in ("classic", "control")]
    return wanted[0] if wanted else None


def _groups(chooser: Mapping[str, Any] | None) -> list[tuple[str, list[dict[str, Any]]]]:
    """Slices that divide the lists, under their names as shown."""
    found = (chooser or {}).get("slices") or {}
    return [(NAMES.get(name, name), rows) for name, rows in found.items() if len(rows) > 1]


def _by_slice(chooser: Mapping[str, Any] | None) -> dict[tuple[str, str], dict[str, Any]]:
    return {(group, row["value"]): row for group, rows in _groups(chooser) for row in rows}


def _shown(row: Mapping[str, Any] | None, metric: str) -> str:
    if row is None:
        return MISSING
    return points(row[metric]) if metric == "accuracy" else interval(row[metric], ".3f")
