"""*None of these*: does the user leave a list that has nothing for them?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from matplotlib.figure import Figure

from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import ConfigError, SceneError
from usermirror_gym.fidelity.checks.base import Card, Check, Context, Criterion
from usermirror_gym.fidelity.checks.parts import percent
from usermirror_gym.measures.bootstrap import UserBootstrap
from usermirror_gym.measures.choice_scores import ObservedChoices, likeliest
from usermirror_gym.report.plots import ACCENT, Plot, draw_svg, interval_line
from usermirror_gym.report.tables import View
from usermirror_gym.report.text import (
    BETTER,
    OPEN,
    WORSE,
    interval,
    listing,
    points,
    shorten,
    standing,
)
from usermirror_gym.scenes import Rankers, Scene, ScenePlan, domain_text, draw_scenes
from usermirror_gym.scenes.draw.columns import SceneColumns
from usermirror_gym.scenes.table import scenes_of
from usermirror_gym.scenes.words.render import scene_table
from usermirror_gym.types import BoolArray, FloatArray, IntArray

LEAST_AUC = 0.75
LADDER = (
    ("random items", {"uniform": 1.0}, False),
    ("popular items", {"popularity": 1.0}, False),
    ("collaborative items", {"collaborative": 1.0}, False),
    ("collaborative items and the true one", {"collaborative": 1.0}, True),
)
"""Lists from bad to good: name, samplers, whether the true item takes the place of one of them."""
Step = Mapping[str, Any]


class OutsideOption(Check):
    """``outside``: what :func:`detection` finds, and the ``ladder``."""

    def run(self, context: Context) -> dict[str, Any]:
        own = context.answered[0]
        if not own.offers_outside:
            return {"outside": None}
        found = detection(own.probs, context.choices, context.bootstrap)
        return {"outside": found | {"ladder": ladder(context)}}

    def criteria(self, card: Card) -> list[Criterion]:
        auc = Criterion.bounded(
            f"none of these tells lists without the true item: AUC at least {LEAST_AUC}",
            (card["outside"] or {}).get("auc"), lambda b: interval(b, ".3f"), least=LEAST_AUC,
        )  # fmt: skip
        name = "none of these falls at every step from random lists to those with the true item"
        steps = _steps(card)
        if len(steps) < 2:
            return [auc, Criterion(name)]
        shown = ", ".join(f"{100 * step['p_none']['mean']:.1f}" for step in steps)
        left = _steps_that(steps, OPEN, WORSE)
        also = f"; not shown {listing(left)}" if left else ""
        return [auc, Criterion(name, f"{shown} %{also}", not left)]

    def sentences(self, card: Card) -> list[str]:
        return [_auc_sentence((card["outside"] or {}).get("auc")), _ladder_sentence(_steps(card))]

    def tables(self, card: Card) -> list[View | None]:
        columns: dict[str, Any] = {
            "lists": "lists",
            "p(none) %": lambda step: points(step["p_none"]),
        }
        return [View.of("None of these, by the quality of lists", _steps(card), columns)]

    def plot(self, card: Card) -> Plot | None:
        """Mean probability of *none of these*, from worse lists to better ones."""
        steps = _steps(card)
        if not steps:
            return None

        def draw(figure: Figure) -> None:
            axes = figure.subplots()
            at = range(len(steps))
            axes.plot(at, [s["p_none"]["mean"] for s in steps], color=ACCENT, lw=1.2)
            for x, step in enumerate(steps):
                interval_line(axes, step["p_none"], x, upright=True, color=ACCENT, lw=2)
                axes.plot(x, step["p_none"]["mean"], "o", color=ACCENT, ms=6)
            axes.set_xticks(at, [fill(shorten(s["lists"], 44), 15) for s in steps])
            axes.set_xlim(-0.4, len(steps) - 0.6)
            axes.set_ylim(bottom=0)
            percent(axes.yaxis, 5)
            axes.set_ylabel("Probability of none of these")
            axes.grid(axis="y", lw=0.6)

        return Plot(
            "Does it leave worse lists?",
            "Mean probability of none of these for the same users and moments, from worse lists "
            "(left) to better ones. It should fall.",
            "Probability of none of these: "
            + ", ".join(f"{s['lists']} {points(s['p_none'])} %" for s in steps),
            draw_svg(draw, 3.0, "ladder"),
        )

    def facts(self, card: Card) -> list[tuple[str, Any]]:
        found = card["outside"] or {}
        return [(f"none of these, {name}", found.get(name)) for name in ("precision", "recall")]


def detection(
    probs: FloatArray, choices: ObservedChoices, bootstrap: UserBootstrap
) -> dict[str, Any]:
    """How well P(none of these) tells the lists without the true item from those with it.

    ``auc`` is the probability that a list without it has the higher one, ties half (Hanley &
    McNeil, The meaning and use of the area under a ROC curve, 1982), with an interval over users.
    ``precision`` and ``recall`` are of *none of these* as the likeliest option.  Each is ``None``
    where it is not defined.
    """
    removed, none = ~choices.contains_choice, probs[:, -1]
    told = likeliest(probs, choices.offered)[:, -1]
    found: dict[str, Any] = {"auc": None, "precision": None, "recall": None}
    if not removed.any():
        return found
    found["recall"] = float(told[removed].mean())
    if told.sum() > 0:
        found["precision"] = float(told[removed].sum() / told.sum())
    if not removed.all():
        value = float(weighted_auc(none, removed, np.ones((1, len(none))))[0])
        resampled = weighted_auc(none, removed, bootstrap.weights)
        several = len(np.unique(choices.users)) > 1
        interval = bootstrap.interval(value, resampled if several else None)
        found["auc"] = interval._asdict()
    return found


def weighted_auc(scores: FloatArray, positive: BoolArray, weights: FloatArray) -> FloatArray:
    """Area under the ROC curve under each row of weights.

    Args:
        scores, positive: ``(N,)``.
        weights: ``(R, N)``, how often each of the N counts.

    Returns:
        ``(R,)``; NaN where one of the two classes has no weight.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])
    # Weight of both classes at each distinct score, ascending: (R, groups).
    of = [np.add.reduceat(weights[:, order] * side[order], starts, axis=1)
          for side in (positive, ~positive)]  # fmt: skip
    above, below = of
    beaten = np.cumsum(below, axis=1) - below / 2
    pairs = above.sum(axis=1) * below.sum(axis=1)
    total = (above * beaten).sum(axis=1)
    return np.divide(total, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def ladder(context: Context) -> list[dict[str, Any]]:
    """Mean P(none of these) of lists from bad to good, for the same users at the same moments.

    Lists are drawn around choices at or after T0, as long as the commonest of the evaluation
    scenes and with histories of their lengths; moments for which a rung cannot be filled are left
    out.

    Returns:
        one entry per rung: ``lists``, ``n``, ``p_none`` and ``fall`` (rung before minus this one,
        ``None`` for the first), both as intervals.  Empty where lists cannot be drawn.
    """
    count = len(context.first(context.sizes.ladder))
    if context.split is None or context.table is None or not count:
        return []
    rungs = ladder_scenes(context.split, context.table, count, context.seed)
    if not rungs:
        return []
    names = [name for name, *_ in LADDER]
    values = np.column_stack([
        context.ask(scenes, f"lists: {name}")[:, -1]
        for name, scenes in zip(names, rungs, strict=True)
    ])  # fmt: skip
    bootstrap = context.resampled(np.array([scene.user_id for scene in rungs[0]]))
    means = bootstrap.intervals(values)
    falls = [None, *bootstrap.intervals(values[:, :-1] - values[:, 1:])]
    return [
        {"lists": name, "n": len(values), "p_none": mean._asdict(), "fall": fall and fall._asdict()}
        for name, mean, fall in zip(names, means, falls, strict=True)
    ]


def ladder_scenes(
    split: TimeSplit, evaluation: pa.Table, count: int, seed: int
) -> list[list[Scene]]:
    """The scenes of each rung; the n-th of every rung is the same user at the same moment."""
    rankers, text = Rankers(split, seed=seed), domain_text(split.dataset)
    sizes = [len(slate) for slate in evaluation["slate"].to_pylist()]
    lines = [len(history) for history in evaluation["history"].to_pylist()]
    columns = []
    for _, samplers, with_choice in LADDER:
        plan = ScenePlan(
            count=count, slate_size=int(np.bincount(sizes).argmax()), samplers=samplers,
            history=(max(min(lines), 1), max(max(lines), 1)), min_history=min(lines),
            removed=0.0 if with_choice else 1.0, seed=seed,
        )  # fmt: skip
        try:
            columns.append(draw_scenes(rankers, plan, (split.t0, None)))
        except (ConfigError, SceneError):
            return []  # too few events or items: this data set has no ladder
    rows = _common(columns)
    if not len(rows[0]):
        return []
    return [
        scenes_of(scene_table(drawn.select(own, dropped={}), rankers, text, "eval"))
        for drawn, own in zip(columns, rows, strict=True)
    ]


def _common(columns: Sequence[SceneColumns]) -> list[IntArray]:
    """Rows of each that are about the same events, in one order."""
    events = [pd.MultiIndex.from_arrays([c.user_ids, c.items, c.timestamps]) for c in columns]
    shared = events[0]
    for own in events[1:]:
        shared = shared[shared.isin(own)]
    return [own.get_indexer(shared) for own in events]


def _steps(card: Card) -> Sequence[Step]:
    return (card["outside"] or {}).get("ladder") or []


def _fall(before: Step, after: Step) -> str:
    """Whether the second of two steps of the ladder is shown to have the smaller probability: by
    the paired interval if there is one, else only where the two intervals lie apart."""
    if after.get("fall"):
        return standing(after["fall"])
    a, b = before["p_none"], after["p_none"]
    if None in (a["low"], a["high"], b["low"], b["high"]):
        return OPEN
    return BETTER if a["low"] > b["high"] else WORSE if a["high"] < b["low"] else OPEN


def _steps_that(steps: Sequence[Step], *standings: str) -> list[str]:
    """Names of the steps whose fall stands so."""
    return [
        f"from {before['lists']} to {after['lists']}"
        for before, after in pairwise(steps)
        if _fall(before, after) in standings
    ]


def _auc_sentence(auc: Mapping[str, Any] | None) -> str:
    if not auc or auc["mean"] is None:
        return ""
    above = auc["low"] is not None and auc["low"] > 0.5
    below = auc["high"] is not None and auc["high"] < 0.5
    words = "tells" if above else "is wrong about" if below else "is not shown to tell"
    return (
        f"By its probability of none of these it {words} lists without the true item from lists "
        f"with it: AUC {interval(auc, '.3f')}."
    )


def _ladder_sentence(steps: Sequence[Step]) -> str:
    if len(steps) < 2:
        return ""
    shown = ", ".join(f"{s['lists']} {points(s['p_none'])} %" for s in steps)
    said = "falls at every step to better lists"
    if _steps_that(steps, OPEN, WORSE):
        verbs = ((BETTER, "falls"), (OPEN, "is not shown to fall"), (WORSE, "rises"))
        found = ((verb, _steps_that(steps, kind)) for kind, verb in verbs)
        said = ", ".join(f"{verb} {listing(names)}" for verb, names in found if names)
    return f"Mean probability of none of these: {shown}. It {said}."
