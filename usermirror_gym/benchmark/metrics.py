"""Metrics of simulated sessions, computed from the step log; each is one class.

A step log is a table with one row per step of one user with one agent; the columns read here are
``agent, episode, user_id, step, slate, probabilities, choice, rating, reward, terminated``.
Episode ``e`` has the same user, seed and start state for every agent.

A metric of your own is a subclass of :class:`SessionMetric`, made known by :func:`register` before
a report is written; it then stands in ``results.json`` and in the report like the others.
"""

from __future__ import annotations

import math
import pkgutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import ConfigError, DataError
from usermirror_gym.report.text import MISSING
from usermirror_gym.types import PAD, FloatArray, IntArray

STEP_COLUMNS = (
    "agent", "episode", "user_id", "step", "slate", "probabilities", "choice", "rating", "reward",
    "terminated",
)  # fmt: skip
Direction = Literal["higher", "lower", "neutral"]
_CHUNK = 4096  # slates compared at once; bounds the memory of the pairwise distances


class Metric(ABC):
    """What a metric is called and how it is shown; the first paragraph of a subclass's docstring is
    what the report says of it.

    Attributes:
        key: its name in tables and in ``results.json``.
        label: column header.
        format: Python format specification of a value.
        direction: which way is better; ``"neutral"`` is a trade-off and is never called best.
    """

    key: ClassVar[str]
    label: ClassVar[str]
    format: ClassVar[str] = ".4f"
    direction: ClassVar[Direction] = "higher"

    def __init_subclass__(cls, **attributes: Any) -> None:
        for name, value in attributes.items():
            setattr(cls, name, value)

    @property
    def meaning(self) -> str:
        """For the reader of the report."""
        return " ".join((self.__doc__ or "").split("\n\n")[0].split())

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


class SessionMetric(Metric):
    """A metric of simulated sessions.

    Attributes:
        per: ``"episode"`` metrics are means over episodes and have intervals; ``"catalogue"``
            metrics are one number for all episodes of an agent.
        column: header and digits in the terminal's table, percentages without their sign; ``None``:
            it does not stand there.
    """

    per: ClassVar[Literal["episode", "catalogue"]] = "episode"
    column: ClassVar[tuple[str, int] | None] = None

    @abstractmethod
    def values(self, log: StepLog) -> FloatArray:
        """``(G,)`` of all episodes, NaN where there is none; of the A agents, if ``per`` says."""


METRICS: dict[str, SessionMetric] = {}
"""Every metric by key, in the order in which tables show them."""
EPISODE_METRICS: dict[str, SessionMetric] = {}
CATALOGUE_METRICS: dict[str, SessionMetric] = {}


def register(*metrics: type[SessionMetric] | str) -> None:
    """Make metrics known: classes, or import paths of some (``"mypkg.metrics:Dwell"``).

    Raises:
        ConfigError: the path leads nowhere, or there is another metric of this key.
    """
    for metric in metrics:
        try:
            found = (pkgutil.resolve_name(metric) if isinstance(metric, str) else metric)()
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(f"metric {metric!r}: {error}; write module:Class") from error
        if type(METRICS.get(found.key, found)) is not type(found):
            raise ConfigError(f"there is a metric {found.key!r}; give {metric!r} another key")
        own = EPISODE_METRICS if found.per == "episode" else CATALOGUE_METRICS
        METRICS[found.key] = own[found.key] = found


def episode_metrics(steps: pd.DataFrame, split: TimeSplit) -> pd.DataFrame:
    """One row per (agent, episode): ``agent, episode, user_id`` and every episode metric.

    Rows are ordered by first appearance of the agent, then by episode.

    Raises:
        DataError: a column is missing, there is no step, or a step has an empty slate.
    """
    log = StepLog.of(steps, split)
    return log.keys.assign(**{key: m.values(log) for key, m in EPISODE_METRICS.items()})


def agent_metrics(steps: pd.DataFrame, split: TimeSplit) -> pd.DataFrame:
    """Metrics of the whole catalogue, indexed by agent.

    Raises:
        DataError: as :func:`episode_metrics`.
    """
    log = StepLog.of(steps, split)
    columns = {key: metric.values(log) for key, metric in CATALOGUE_METRICS.items()}
    return pd.DataFrame(columns, index=pd.Index(log.agents, name="agent"))


@dataclass(frozen=True)
class StepLog:
    """The step log in arrays: S steps in G (agent, episode) groups, N items shown."""

    split: TimeSplit
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
    def of(cls, steps: pd.DataFrame, split: TimeSplit) -> StepLog:
        """Raise DataError if the log cannot be used."""
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
            split, keys, group, steps["step"].to_numpy(np.int64), slates,
            clicked=steps["choice"].to_numpy() < sizes,
            expected_click=1 - np.array([p[-1] for p in steps["probabilities"]], np.float64),
            ratings=pd.to_numeric(steps["rating"]).to_numpy(np.float64),
            rewards=steps["reward"].to_numpy(np.float64),
            terminated=steps["terminated"].to_numpy(bool),
            shown_step=rows[real], shown_item=items[real],
        )  # fmt: skip

    def total(self, values: np.ndarray) -> FloatArray:
        """``(G,)`` sums of values of the steps, ``(S,)``."""
        weights = np.asarray(values, np.float64)
        return np.bincount(self.group, weights, len(self.keys)).astype(np.float64)

    def mean(self, values: np.ndarray, *, items: bool = False) -> FloatArray:
        """``(G,)`` means of values of the steps ``(S,)``, or of the ``items`` shown ``(N,)``; those
        that are NaN are left out, and an episode without any has NaN."""
        n, values = len(self.keys), np.asarray(values, np.float64)
        group = self.group[self.shown_step] if items else self.group
        known = ~np.isnan(values)
        count = np.bincount(group[known], minlength=n)
        total = np.bincount(group[known], weights=values[known], minlength=n)
        return np.divide(total, count, out=np.full(n, np.nan), where=count > 0)

    @property
    def agents(self) -> list[str]:
        """A names, in order of appearance."""
        return list(dict.fromkeys(self.keys["agent"]))

    @cached_property
    def exposure(self) -> IntArray:
        """``(A, n_items)`` how often each agent showed each item."""
        of_group = pd.Index(self.agents).get_indexer(pd.Index(self.keys["agent"]))
        agent, width = of_group[self.group[self.shown_step]], self.split.dataset.n_items + 1
        size = len(self.agents) * width
        flat = np.bincount(agent * width + self.shown_item, minlength=size)
        return flat.reshape(len(self.agents), width)[:, 1:]


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


class ClickRate(SessionMetric, key="ctr", label="Click rate", format=".1%", column=("CTR %", 1)):
    """Share of steps in which the user chose an item of the slate. Where users may leave, unlucky
    sessions are short ones, so its mean over episodes lies below expected click."""

    def values(self, log: StepLog) -> FloatArray:
        return log.mean(log.clicked)


class ExpectedClick(
    SessionMetric, key="expected_click", label="Expected click", format=".1%", column=("Exp. %", 1)
):
    """Mean probability that the user chooses any item of the slate (1 minus none of these); it does
    not depend on the luck of the draw."""

    def values(self, log: StepLog) -> FloatArray:
        return log.mean(log.expected_click)


class Return(SessionMetric, key="return", label="Return", format=".2f", column=("Return", 1)):
    """Sum of rewards over an episode."""

    def values(self, log: StepLog) -> FloatArray:
        return log.total(log.rewards)


class SessionLength(
    SessionMetric, key="session_length", label="Length", format=".1f", column=("Length", 1)
):
    """Steps until the user left or the horizon."""

    def values(self, log: StepLog) -> FloatArray:
        return log.total(np.ones(len(log.group)))


class Left(
    SessionMetric, key="left", label="Left", format=".0%", direction="lower", column=("Left %", 0)
):
    """Share of episodes that ended because the user left."""

    def values(self, log: StepLog) -> FloatArray:
        return (log.total(log.terminated) > 0).astype(float)


class NoChoiceRate(
    SessionMetric, key="no_choice_rate", label="No choice", format=".1%", direction="lower"
):
    """Share of steps in which the user chose none of these."""

    def values(self, log: StepLog) -> FloatArray:
        return log.mean(~log.clicked)


class Satisfaction(
    SessionMetric, key="satisfaction", label="Satisfaction", format=".2f", column=("Rating", 2)
):
    """Mean simulated rating of the chosen items."""

    def values(self, log: StepLog) -> FloatArray:
        return log.mean(np.where(log.clicked, log.ratings, np.nan))


class IntraListDiversity(
    SessionMetric, key="intra_list_diversity", label="Diversity", format=".3f"
):
    """Mean pairwise Jaccard distance of the genres inside a slate.

    Ziegler et al., Improving recommendation lists through topic diversification, WWW 2005; pairs
    with an item without genres are left out.
    """

    def values(self, log: StepLog) -> FloatArray:
        return log.mean(slate_diversity(log.slates, log.split))


class Novelty(SessionMetric, key="novelty", label="Novelty", format=".2f", direction="neutral"):
    """Mean self-information, in bits, of the items shown: -log2 of their share of the interactions
    before the cut.

    Add-one smoothed.  Zhou et al., PNAS 107(10), 2010; Vargas & Castells, RecSys 2011.
    """

    def values(self, log: StepLog) -> FloatArray:
        counts = log.split.popularity.astype(np.float64)
        bits = -np.log2((counts + 1) / (counts.sum() + log.split.dataset.n_items))
        return log.mean(bits[log.shown_item], items=True)


class Popularity(
    SessionMetric, key="popularity", label="Popularity", format=".1%", direction="neutral"
):
    """Mean popularity percentile, in the catalogue before the cut, of the items shown."""

    def values(self, log: StepLog) -> FloatArray:
        return log.mean(popularity_percentile(log.split)[log.shown_item], items=True)


class RepeatRate(
    SessionMetric, key="repeat_rate", label="Repeats", format=".1%", direction="lower"
):
    """Share of the items shown that an earlier step of the episode had already shown."""

    def values(self, log: StepLog) -> FloatArray:
        step = log.step[log.shown_step]
        shown = pd.DataFrame(
            {"group": log.group[log.shown_step], "item": log.shown_item, "step": step}
        )
        first = shown.groupby(["group", "item"], sort=False)["step"].transform("min")
        return log.mean(first.to_numpy() < step, items=True)


class Coverage(
    SessionMetric, key="coverage", label="Coverage", format=".1%", per="catalogue",
    column=("Cov. %", 1),
):  # fmt: skip
    """Share of the catalogue shown at least once over all episodes."""

    def values(self, log: StepLog) -> FloatArray:
        return (log.exposure > 0).mean(axis=1)


class Gini(
    SessionMetric, key="gini", label="Gini", format=".3f", direction="lower", per="catalogue"
):
    """Inequality of exposure over the catalogue: 0 shows every item equally often, 1 shows a single
    item.

    ``sum_i (2i - n - 1) x_i / (n sum x)`` over the exposure counts ``x`` of all n items in
    ascending order (Shani & Gunawardana, *Recommender Systems Handbook*, 2011).
    """

    def values(self, log: StepLog) -> FloatArray:
        return gini(log.exposure)


register(
    ClickRate, ExpectedClick, Return, SessionLength, Left, NoChoiceRate, Satisfaction,
    IntraListDiversity, Novelty, Popularity, RepeatRate, Coverage, Gini,
)  # fmt: skip


def gini(counts: np.ndarray) -> FloatArray:
    """Gini coefficient of each row of ``counts`` ``(..., n)``; NaN for a row of zeros."""
    ordered = np.sort(np.asarray(counts, np.float64), axis=-1)
    n = ordered.shape[-1]
    total = ordered.sum(axis=-1)
    weighted = ordered @ (2 * np.arange(1, n + 1) - n - 1)
    return np.divide(weighted, n * total, out=np.full(total.shape, np.nan), where=total > 0)


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
