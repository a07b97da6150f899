"""Metrics of simulated sessions, computed from the step log.

A step log is a table with one row per step of one user with one agent; the columns read here are
``agent, episode, user_id, step, slate, probabilities, choice, rating, reward, terminated``.
Episode ``e`` has the same user, seed and start state for every agent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import DataError
from usermirror_gym.report.text import MISSING
from usermirror_gym.types import PAD, FloatArray, IntArray

STEP_COLUMNS = (
    "agent", "episode", "user_id", "step", "slate", "probabilities", "choice", "rating", "reward",
    "terminated",
)  # fmt: skip
_CHUNK = 4096  # slates compared at once; bounds the memory of the pairwise distances


def episode_metrics(steps: pd.DataFrame, split: TimeSplit) -> pd.DataFrame:
    """One row per (agent, episode): ``agent, episode, user_id`` and every episode metric.

    With T steps, slates ``L_t``, choice probabilities ``p_t`` and *none of these* ``o``:

    - ``ctr`` = share of steps with a choice; ``no_choice_rate`` = 1 - ``ctr``;
    - ``expected_click`` = mean of ``1 - p_t(o)``, free of the noise of the draw;
    - ``return`` = sum of rewards; ``session_length`` = T; ``left`` = 1 if the user left;
    - ``satisfaction`` = mean simulated rating of the chosen items, NaN without any;
    - ``novelty`` = mean over shown items of ``-log2((n_i + 1) / (n + n_items))``, where ``n_i``
      counts the item's interactions before T0 (mean self-information: Zhou et al., PNAS 107(10),
      2010; Vargas & Castells, RecSys 2011);
    - ``popularity`` = mean over shown items of the percentile of ``n_i`` in the catalogue;
    - ``intra_list_diversity`` = mean over slates of the mean Jaccard distance between the genre
      sets of its pairs (Ziegler et al., WWW 2005); pairs with an item without genres are left out;
    - ``repeat_rate`` = share of shown items that an earlier step of the episode had shown.

    Rows are ordered by first appearance of the agent, then by episode.

    Raises:
        DataError: a column is missing, there is no step, or a step has an empty slate.
    """
    log = _StepLog.of(steps)
    frame = log.keys.copy()
    n = len(frame)
    clicked = log.clicked
    count = np.bincount(log.group, minlength=n)
    shown = np.bincount(log.group[log.shown_step], minlength=n)
    values = {
        "ctr": _sum(log.group, clicked, n) / count,
        "expected_click": _sum(log.group, log.expected_click, n) / count,
        "return": _sum(log.group, log.rewards, n),
        "session_length": count.astype(float),
        "left": (_sum(log.group, log.terminated, n) > 0).astype(float),
        "no_choice_rate": _sum(log.group, ~clicked, n) / count,
        "satisfaction": _mean(log.group, np.where(clicked, log.ratings, np.nan), n),
        "intra_list_diversity": _mean(log.group, slate_diversity(log.slates, split), n),
    }
    per_item = {
        "novelty": self_information(split)[log.shown_item],
        "popularity": popularity_percentile(split)[log.shown_item],
        "repeat_rate": log.shown_before(),
    }
    shown_group = log.group[log.shown_step]
    values |= {k: _sum(shown_group, v, n) / shown for k, v in per_item.items()}
    return frame.assign(**{key: values[key] for key in EPISODE_METRICS})


def agent_metrics(steps: pd.DataFrame, split: TimeSplit) -> pd.DataFrame:
    """Catalogue metrics, indexed by agent: ``coverage`` and ``gini`` of exposure.

    ``coverage`` is the share of the catalogue shown at least once.  ``gini`` is
    ``sum_i (2i - n - 1) x_i / (n sum x)`` over the exposure counts ``x`` of all n items in
    ascending order (Shani & Gunawardana, *Recommender Systems Handbook*, 2011): 0 is equal
    exposure, ``(n - 1) / n`` a single item.

    Raises:
        DataError: as :func:`episode_metrics`.
    """
    log = _StepLog.of(steps)
    names = list(dict.fromkeys(log.keys["agent"]))
    of_group = pd.Index(names).get_indexer(log.keys["agent"])
    agent, width = of_group[log.group[log.shown_step]], split.dataset.n_items + 1
    flat = np.bincount(agent * width + log.shown_item, minlength=len(names) * width)
    exposure = flat.reshape(len(names), width)[:, 1:]
    columns = {"coverage": (exposure > 0).mean(axis=1), "gini": gini(exposure)}
    return pd.DataFrame(columns, index=pd.Index(names, name="agent"))


def gini(counts: np.ndarray) -> FloatArray:
    """Gini coefficient of each row of ``counts`` ``(..., n)``; NaN for a row of zeros."""
    ordered = np.sort(np.asarray(counts, np.float64), axis=-1)
    n = ordered.shape[-1]
    total = ordered.sum(axis=-1)
    weighted = ordered @ (2 * np.arange(1, n + 1) - n - 1)
    return np.divide(weighted, n * total, out=np.full(total.shape, np.nan), where=total > 0)


def self_information(split: TimeSplit) -> FloatArray:
    """Bits of surprise by item id, ``(n_items + 1,)``, add-one smoothed; entry 0 is NaN."""
    counts = split.popularity.astype(np.float64)
    bits = -np.log2((counts + 1) / (counts.sum() + split.dataset.n_items))
    bits[PAD] = np.nan
    return bits


def popularity_percentile(split: TimeSplit) -> FloatArray:
    """Share of the catalogue less popular than each item (ties count half), by item id.

    Shape ``(n_items + 1,)``; entry 0 is NaN; the mean over the catalogue is one half.
    """
    ranks = rankdata(split.popularity[1:], method="average")
    return np.concatenate([[np.nan], (ranks - 0.5) / len(ranks)])


def slate_diversity(slates: IntArray, split: TimeSplit) -> FloatArray:
    """Mean pairwise Jaccard distance of genre sets for each row of ``slates`` ``(S, K)``, padded
    with 0.  NaN where no pair has genres, or the data set has none."""
    genres = _genre_matrix(split)
    out = np.full(len(slates), np.nan)
    left, right = np.triu_indices(slates.shape[1], k=1)
    for start in range(0, len(slates), _CHUNK):
        sets = genres[slates[start : start + _CHUNK]]
        sizes = sets.sum(axis=2)
        overlap = np.einsum("skg,sjg->skj", sets, sets)[:, left, right]
        known = (sizes[:, left] > 0) & (sizes[:, right] > 0)
        union = sizes[:, left] + sizes[:, right] - overlap
        distance = np.where(known, 1 - overlap / np.maximum(union, 1), 0.0)
        pairs = known.sum(axis=1)
        total = distance.sum(axis=1)
        np.divide(total, pairs, out=out[start : start + _CHUNK], where=pairs > 0)
    return out


def _genre_matrix(split: TimeSplit) -> np.ndarray:
    """Which genres each item has, ``(n_items + 1, n_genres)`` float32; row 0 is empty."""
    items = split.dataset.items
    if "genres" not in items:
        return np.zeros((len(items) + 1, 1), np.float32)
    # Whole genres are compared, so "Sci-Fi" and "Fi" stay different; white space is trimmed.
    lists = items["genres"].fillna("").astype(str).str.split(",").explode().str.strip()
    lists = lists[lists != ""]
    codes, names = pd.factorize(lists)
    matrix = np.zeros((len(items) + 1, max(len(names), 1)), np.float32)
    matrix[lists.index.to_numpy(), codes] = 1
    return matrix


@dataclass(frozen=True)
class _StepLog:
    """The step log in arrays: S steps in G (agent, episode) groups, N items shown."""

    keys: pd.DataFrame  # G rows: agent, episode, user_id
    group: IntArray  # (S,)
    step: IntArray  # (S,)
    slates: IntArray  # (S, K), padded with 0
    clicked: np.ndarray  # (S,) bool
    expected_click: FloatArray  # (S,)
    ratings: FloatArray  # (S,)
    rewards: FloatArray  # (S,)
    terminated: np.ndarray  # (S,) bool
    shown_step: IntArray  # (N,) row of each shown item
    shown_item: IntArray  # (N,)

    @classmethod
    def of(cls, steps: pd.DataFrame) -> _StepLog:
        check_steps(steps)
        keys = steps[["agent", "episode", "user_id"]].drop_duplicates(["agent", "episode"])
        order = keys["agent"].map({a: i for i, a in enumerate(keys["agent"].unique())})
        keys = keys.iloc[np.lexsort((keys["episode"], order))].reset_index(drop=True)
        index = pd.MultiIndex.from_frame(keys[["agent", "episode"]])
        group = index.get_indexer(pd.MultiIndex.from_frame(steps[["agent", "episode"]]))
        sizes = steps["slate"].map(len).to_numpy()
        rows = np.repeat(np.arange(len(steps)), sizes)
        items = np.concatenate(steps["slate"].to_list()).astype(np.int64)
        slates = np.zeros((len(steps), sizes.max()), np.int64)
        slates[rows, np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)] = items
        real = items != PAD
        return cls(
            keys, group, steps["step"].to_numpy(np.int64), slates,
            clicked=steps["choice"].to_numpy() < sizes,
            expected_click=1 - np.array([p[-1] for p in steps["probabilities"]], np.float64),
            ratings=pd.to_numeric(steps["rating"]).to_numpy(np.float64),
            rewards=steps["reward"].to_numpy(np.float64),
            terminated=steps["terminated"].to_numpy(bool),
            shown_step=rows[real], shown_item=items[real],
        )  # fmt: skip

    def shown_before(self) -> FloatArray:
        """1 for each shown item that an earlier step of its episode had shown, else 0."""
        step = self.step[self.shown_step]
        shown = pd.DataFrame(
            {"group": self.group[self.shown_step], "item": self.shown_item, "step": step}
        )
        first = shown.groupby(["group", "item"], sort=False)["step"].transform("min")
        return (first.to_numpy() < step).astype(np.float64)


def check_steps(steps: pd.DataFrame) -> None:
    """Raise a DataError that says what is wrong with a step log, if anything is."""
    missing = [c for c in STEP_COLUMNS if c not in steps.columns]
    if missing:
        raise DataError(f"the step log lacks the column(s) {missing}; it has {list(steps.columns)}")
    if steps.empty:
        raise DataError("the step log has no steps; run at least one episode")
    if (steps["slate"].map(len) == 0).any():
        raise DataError("a step of the log has an empty slate; every step must show an item")
    users = steps.groupby("episode")["user_id"].nunique()
    if (users > 1).any():
        episode = users.index[users > 1][0]
        found = sorted(steps.loc[steps["episode"] == episode, "user_id"].unique().tolist())
        raise DataError(
            f"episode {episode} belongs to several users {found}; an episode number must mean the "
            "same user for every agent"
        )


def _sum(group: IntArray, values: np.ndarray, n: int) -> FloatArray:
    weights = np.asarray(values, np.float64)
    return np.bincount(group, weights=weights, minlength=n).astype(np.float64)


def _mean(group: IntArray, values: FloatArray, n: int) -> FloatArray:
    """Mean by group over the values that are not NaN; NaN for a group without any."""
    known = ~np.isnan(values)
    count = np.bincount(group[known], minlength=n)
    total = _sum(group[known], values[known], n)
    return np.divide(total, count, out=np.full(n, np.nan), where=count > 0)


Direction = Literal["higher", "lower", "neutral"]


@dataclass(frozen=True)
class Metric:
    """How one metric is shown.

    Attributes:
        key: its name in tables and in ``results.json``.
        label: column header.
        direction: which way is better; ``"neutral"`` is a trade-off and is never called best.
        format: Python format specification of a value.
        meaning: one sentence for the reader of the report.
        per: ``"episode"`` metrics are means over episodes and have intervals; ``"catalogue"``
            metrics are one number for all episodes of an agent.
    """

    key: str
    label: str
    direction: Direction
    format: str
    meaning: str
    per: Literal["episode", "catalogue"] = "episode"

    def text(self, value: float | None, *, sign: bool = False) -> str:
        """The value as printed; ``sign=True`` shows a plus (for differences)."""
        if value is None or math.isnan(value):
            return MISSING
        return format(value, ("+" if sign else "") + self.format)

    def range(self, low: float, high: float) -> str:
        """``0.39–0.45``, the unit named once."""  # noqa: RUF002
        if low < 0:
            return f"{self.text(low)} to {self.text(high)}"
        return f"{self.text(low).removesuffix('%')}{MISSING}{self.text(high)}"


_ALL = (
    Metric("ctr", "Click rate", "higher", ".1%",
           "Share of steps in which the user chose an item of the slate. Where users may leave, "
           "unlucky sessions are short ones, so its mean over episodes lies below expected click."),
    Metric("expected_click", "Expected click", "higher", ".1%",
           "Mean probability that the user chooses any item of the slate (1 minus none of these); "
           "it does not depend on the luck of the draw."),
    Metric("return", "Return", "higher", ".2f", "Sum of rewards over an episode."),
    Metric("session_length", "Length", "higher", ".1f",
           "Steps until the user left or the horizon."),
    Metric("left", "Left", "lower", ".0%", "Share of episodes that ended because the user left."),
    Metric("no_choice_rate", "No choice", "lower", ".1%",
           "Share of steps in which the user chose none of these."),
    Metric("satisfaction", "Satisfaction", "higher", ".2f",
           "Mean simulated rating of the chosen items."),
    Metric("intra_list_diversity", "Diversity", "higher", ".3f",
           "Mean pairwise Jaccard distance of the genres inside a slate."),
    Metric("novelty", "Novelty", "neutral", ".2f",
           "Mean self-information, in bits, of the items shown: -log2 of their share of the "
           "interactions before the cut."),
    Metric("popularity", "Popularity", "neutral", ".1%",
           "Mean popularity percentile, in the catalogue before the cut, of the items shown."),
    Metric("repeat_rate", "Repeats", "lower", ".1%",
           "Share of the items shown that an earlier step of the episode had already shown."),
    Metric("coverage", "Coverage", "higher", ".1%",
           "Share of the catalogue shown at least once over all episodes.", "catalogue"),
    Metric("gini", "Gini", "lower", ".3f",
           "Inequality of exposure over the catalogue: 0 shows every item equally often, "
           "1 shows a single item.", "catalogue"),
)  # fmt: skip

METRICS: dict[str, Metric] = {m.key: m for m in _ALL}
"""Every metric by key, in the order in which tables show them."""

EPISODE_METRICS: tuple[str, ...] = tuple(m.key for m in _ALL if m.per == "episode")
CATALOGUE_METRICS: tuple[str, ...] = tuple(m.key for m in _ALL if m.per == "catalogue")
