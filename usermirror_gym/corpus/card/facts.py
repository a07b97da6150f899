"""What a data card says, as plain numbers: counted from the tables, or handed in by the build."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike
from scipy.stats import chi2, rankdata

from usermirror_gym.corpus.checks.leaks import uniform_positions
from usermirror_gym.errors import DataError
from usermirror_gym.report.histogram import Histogram
from usermirror_gym.report.tables import Rows
from usermirror_gym.scenes.table import KINDS, SCHEMA, SPLITS
from usermirror_gym.types import USER_ID, IntArray

_TEXTS = ("history_texts", "options")


@dataclass(frozen=True)
class CardFacts:
    """Everything on a card; a part that a build does not have is empty or ``None``."""

    title: str
    scenes: Rows = field(default_factory=list)
    """Counts by domain, data set and split, by kind and user."""
    list_sizes: Histogram | None = None
    histories: Histogram | None = None
    characters: Histogram | None = None
    """Length of profile, history and list together."""
    positions: Histogram | None = None
    """Of the true option in sampled lists, against what uniform positions would give."""
    position_test: dict[str, float] | None = None
    """``lists``, ``chi_square``, ``df`` and ``p``, over all list lengths together."""
    logged_positions: Histogram | None = None
    """The same in lists that were really shown."""
    samplers: Rows = field(default_factory=list)
    popularity: Histogram | None = None
    """Popularity percentiles before T0 of true items and of their company."""
    selection: Rows = field(default_factory=list)
    """By data set: scenes, scenes with a pair, kept; then kept by list length."""
    uncertainty: tuple[Histogram, ...] = ()
    dropped: Rows = field(default_factory=list)
    """Stage, reason and count of whatever was mended or left out."""
    usage: Rows = field(default_factory=list)
    """Per model any of role, model, written, failed, tokens, cost ... (the fields of a
    :class:`~usermirror_gym.corpus.rationales.write.RationaleSummary`, say)."""
    shortcuts: Rows = field(default_factory=list)
    """The fields of a :class:`~usermirror_gym.corpus.checks.shortcuts.ShortcutRow`, and source if
    need be."""
    leaks: Rows = field(default_factory=list)
    """The fields of a :class:`~usermirror_gym.corpus.checks.leaks.Finding`."""
    sources: Rows = field(default_factory=list)
    """name, title, homepage, terms and citation."""
    manifest: dict[str, Any] = field(default_factory=dict)
    """Configuration, seeds, versions, checksums: nested plain values."""


def card_facts(
    scenes: Mapping[str, pa.Table],
    *,
    title: str,
    selection: pa.Table | None = None,
    popularity: Mapping[str, IntArray] | None = None,
    dropped: Mapping[str, Mapping[str, int]] | None = None,
    **known: Any,
) -> CardFacts:
    """Count what the tables hold and put it beside what the caller knows.

    Args:
        scenes: split -> rows of :data:`usermirror_gym.scenes.table.SCHEMA`.
        title: name of the build.
        selection: rows of :data:`usermirror_gym.corpus.selection.select.SCHEMA`.
        popularity: data set -> interactions before T0 by item id, ``(n_items + 1,)``.
        dropped: stage -> reason -> count; scenes that were not selected are added by themselves.
        known: further fields of :class:`CardFacts`, as they are.

    Raises:
        DataError: a table lacks columns, or holds items that ``popularity`` does not know.
    """
    frame = _frame(scenes)
    sampled = frame[frame["kind"] == "choice"]
    logged = frame[frame["kind"] == "impression"]
    return CardFacts(
        title=title,
        scenes=_counts(frame),
        list_sizes=_by_split(frame, "List length", "items", "size"),
        histories=_by_split(frame, "History length", "lines", "lines"),
        characters=_by_split(frame, "Text of a scene", "characters", "characters"),
        positions=_positions(sampled, "Position of the true option, sampled lists"),
        position_test=position_test(sampled["size"], sampled["target"]),
        logged_positions=_positions(logged, "Position of the choice, real lists"),
        samplers=_samplers(frame),
        popularity=_popularity(frame, popularity or {}),
        selection=[] if selection is None else _strata(selection),
        uncertainty=() if selection is None else _uncertainty(selection),
        dropped=_dropped(dropped or {}, selection),
        **known,
    )


def position_test(sizes: ArrayLike, targets: ArrayLike) -> dict[str, float] | None:
    """Pearson's chi-square of the true option's position against uniform ones.

    Summed over list lengths K, each with K - 1 degrees of freedom; ``None`` if no list has two
    options.  Positions behind the list (*none of these*) do not count.
    """
    statistic, df, counts = uniform_positions(np.asarray(sizes), np.asarray(targets))
    if not df:
        return None
    p = float(chi2.sf(statistic, df))
    return {"lists": sum(counts.values()), "chi_square": statistic, "df": df, "p": p}


def _frame(scenes: Mapping[str, pa.Table]) -> pd.DataFrame:
    """All scenes without their words, whose lengths are kept."""
    tables = []
    for split, table in scenes.items():
        if missing := [name for name in SCHEMA.names if name not in table.column_names]:
            raise DataError(f"the {split} scenes lack the column(s) {missing}")
        tables.append(table.select(SCHEMA.names).cast(SCHEMA))
    frame = pa.concat_tables(tables or [SCHEMA.empty_table()]).to_pandas()
    words = sum(frame[column].map(lambda t: sum(map(len, t))) for column in _TEXTS)
    frame = frame.assign(
        size=frame["slate"].map(len).astype(np.int64),
        lines=frame["history"].map(len).astype(np.int64),
        characters=(frame["profile"].str.len() + words).astype(np.int64),
    )
    return frame.drop(columns=[*_TEXTS, "profile"])


def _splits(frame: pd.DataFrame) -> list[str]:
    found = frame["split"].unique().tolist()
    return [s for s in SPLITS if s in found] + sorted(s for s in found if s not in SPLITS)


def _counts(frame: pd.DataFrame) -> Rows:
    rows: Rows = []
    for (domain, dataset), group in frame.groupby(["domain", "dataset"]):
        for split in _splits(group):
            part = group[group["split"] == split]
            seen = part[part["seen_user"]]
            kinds = part["kind"].value_counts()
            rows.append(
                {
                    "domain": domain, "data set": dataset, "split": split, "scenes": len(part),
                    **{kind: int(kinds.get(kind, 0)) for kind in KINDS},
                    "users": part[USER_ID].nunique(), "seen users": seen[USER_ID].nunique(),
                    "scenes of seen users": len(seen) / len(part),
                }
            )  # fmt: skip
    return rows


def _by_split(frame: pd.DataFrame, title: str, unit: str, column: str) -> Histogram | None:
    values = {s: frame.loc[frame["split"] == s, column].to_numpy() for s in _splits(frame)}
    return Histogram.of(title, unit, values)


def _positions(frame: pd.DataFrame, title: str) -> Histogram | None:
    inside = frame[frame["target"] < frame["size"]]
    if inside.empty:
        return None
    places = range(int(inside["size"].max()))
    # A list of K items expects 1/K of a true option in each of its places.
    expected = [float((1 / inside["size"][inside["size"] > at]).sum()) for at in places]
    observed = np.bincount(inside["target"], minlength=len(places))
    return Histogram(
        title=title,
        unit="option",
        bins=tuple(ascii_uppercase[at] if at < 26 else str(at + 1) for at in places),
        edges=tuple(at - 0.5 for at in range(len(places) + 1)),
        single=True,
        series={"true option": tuple(observed.tolist()), "if uniform": tuple(expected)},
    )


def _options(frame: pd.DataFrame) -> pd.DataFrame:
    """One row an option: dataset, item, sampler, whether it is the true one."""
    flat = frame[["dataset", "slate", "samplers", "target", "size"]].explode(["slate", "samplers"])
    flat = flat[flat["size"] > 0]
    place = flat.groupby(level=0).cumcount()
    return flat.assign(true=place == flat["target"])


def _samplers(frame: pd.DataFrame) -> Rows:
    options = _options(frame.reset_index(drop=True))
    company = options[~options["true"].astype(bool)]
    return [
        {"data set": name, "sampler": sampler, "options": int(count), "share": count / len(group)}
        for name, group in company.groupby("dataset")
        for sampler, count in group["samplers"].value_counts().items()
    ]


def _popularity(frame: pd.DataFrame, popularity: Mapping[str, IntArray]) -> Histogram | None:
    known = frame[frame["dataset"].isin(list(popularity)) & (frame["target"] < frame["size"])]
    options = _options(known.reset_index(drop=True))
    values: dict[str, list[np.ndarray]] = {"true items": [], "company": []}
    for dataset, group in options.groupby("dataset"):
        items = group["slate"].to_numpy(np.int64)
        counts = np.asarray(popularity[str(dataset)])[1:]
        if len(items) and not 1 <= items.min() <= items.max() <= len(counts):
            raise DataError(
                f"scenes of {dataset!r} show items up to number {items.max()}, but its popularity "
                f"is that of {len(counts)} items; give the counts of the same build"
            )
        # Items of equal popularity share the middle of their ranks.
        percentile = 100 * (rankdata(counts) - 0.5) / len(counts)
        true = group["true"].to_numpy(bool)
        values["true items"].append(percentile[items[true] - 1])
        values["company"].append(percentile[items[~true] - 1])
    pooled = {name: np.concatenate(parts) for name, parts in values.items() if parts}
    return Histogram.of("Popularity of what is shown", "percentile", pooled)


def _strata(selection: pa.Table) -> Rows:
    """Per data set: all scenes, those with a pair, and how many were kept of each length."""
    frame = selection.select(["dataset", "list_size", "chosen", "rejected", "kept"]).to_pandas()
    frame["pair"] = (frame["chosen"] >= 0) & (frame["rejected"] >= 0)
    lengths = sorted(frame["list_size"].unique())
    rows: Rows = []
    for dataset, group in frame.groupby("dataset"):
        kept = group.loc[group["kept"], "list_size"].value_counts()
        rows.append(
            {"data set": dataset, "scenes": len(group), "with a pair": int(group["pair"].sum()),
             "kept": int(group["kept"].sum()),
             **{f"K={k}": int(kept.get(k, 0)) for k in lengths}}
        )  # fmt: skip
    return rows


def _uncertainty(selection: pa.Table) -> tuple[Histogram, ...]:
    column = {n: selection[n].to_numpy() for n in selection.column_names}
    kept = column["kept"].astype(bool)
    found = [
        Histogram.of(
            f"{part.capitalize()} uncertainty", "bits",
            {role: column[f"{role}_{part}"] for role in ("weak", "strong")},
        )
        for part in ("total", "epistemic", "aleatoric")
    ]  # fmt: skip
    difficulty = {"kept": column["difficulty"][kept], "not kept": column["difficulty"][~kept]}
    found.append(Histogram.of("Difficulty of scenes", "bits", difficulty))
    return tuple(h for h in found if h is not None)


def _dropped(given: Mapping[str, Mapping[str, int]], selection: pa.Table | None) -> Rows:
    stages = {stage: dict(reasons) for stage, reasons in given.items()}
    if selection is not None:
        reasons = Counter(r for r in selection.column("reason").to_pylist() if r)
        stages["selection"] = stages.get("selection", {}) | dict(reasons)
    return [
        {"stage": stage, "reason": reason, "count": count}
        for stage, reasons in stages.items()
        for reason, count in sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
