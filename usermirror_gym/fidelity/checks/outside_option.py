"""*None of these*: does the user leave a list that has nothing for them?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import ConfigError, SceneError
from usermirror_gym.measures.bootstrap import UserBootstrap
from usermirror_gym.measures.choice_scores import Truth, likeliest
from usermirror_gym.scenes import Rankers, Scene, ScenePlan, domain_text, draw_scenes
from usermirror_gym.scenes.draw.columns import SceneColumns
from usermirror_gym.scenes.table import scenes_of
from usermirror_gym.scenes.words.render import scene_table
from usermirror_gym.types import BoolArray, FloatArray, IntArray

Ask = Callable[[Sequence[Scene], str], FloatArray]
"""Scenes and what they are asked for -> probabilities ``(S, K + 1)``."""
LADDER = (
    ("random items", {"uniform": 1.0}, False),
    ("popular items", {"popularity": 1.0}, False),
    ("collaborative items", {"collaborative": 1.0}, False),
    ("collaborative items and the true one", {"collaborative": 1.0}, True),
)
"""Lists from bad to good: name, samplers, whether the true item takes the place of one of them."""


def detection(probs: FloatArray, truth: Truth, bootstrap: UserBootstrap) -> dict[str, Any]:
    """How well P(none of these) tells the lists without the true item from those with it.

    ``auc`` is the probability that a list without it has the higher one, ties half (Hanley &
    McNeil, The meaning and use of the area under a ROC curve, 1982), with an interval over users.
    ``precision`` and ``recall`` are of *none of these* as the likeliest option.  Each is ``None``
    where it is not defined.
    """
    removed, none = ~truth.held, probs[:, -1]
    told = likeliest(probs, truth.offered)[:, -1]
    found: dict[str, Any] = {"auc": None, "precision": None, "recall": None}
    if not removed.any():
        return found
    found["recall"] = float(told[removed].mean())
    if told.sum() > 0:
        found["precision"] = float(told[removed].sum() / told.sum())
    if not removed.all():
        value = float(weighted_auc(none, removed, np.ones((1, len(none))))[0])
        resampled = weighted_auc(none, removed, bootstrap.weights)
        several = len(np.unique(truth.users)) > 1
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


def ladder(
    ask: Ask, split: TimeSplit, evaluation: pa.Table, *, count: int, seed: int, n_resamples: int
) -> list[dict[str, Any]]:
    """Mean P(none of these) of lists from bad to good, for the same users at the same moments.

    Args:
        ask: the simulator.
        split: lists are drawn from its catalogue, around choices at or after its T0.
        evaluation: scenes whose list length (the commonest) and history lengths are used.
        count: most moments; those for which a rung cannot be filled are left out.

    Returns:
        one entry per rung: ``lists``, ``n``, ``p_none`` and ``fall`` (rung before minus this one,
        ``None`` for the first), both as intervals.  Empty where lists cannot be drawn.
    """
    rungs = ladder_scenes(split, evaluation, count, seed)
    if not rungs:
        return []
    names = [name for name, *_ in LADDER]
    values = np.column_stack([
        ask(scenes, f"lists: {name}")[:, -1] for name, scenes in zip(names, rungs, strict=True)
    ])  # fmt: skip
    users = np.array([scene.user_id for scene in rungs[0]])
    bootstrap = UserBootstrap(users, n_resamples=n_resamples, seed=seed)
    means = bootstrap.intervals(values)
    falls = [None, *bootstrap.intervals(values[:, :-1] - values[:, 1:])]
    return [
        {"lists": name, "n": len(users), "p_none": mean._asdict(), "fall": fall and fall._asdict()}
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
    events = [
        list(zip(c.user_ids.tolist(), c.items.tolist(), c.timestamps.tolist(), strict=True))
        for c in columns
    ]
    shared = set(events[0]).intersection(*events[1:])
    order = [event for event in events[0] if event in shared]
    places = [{event: row for row, event in enumerate(own)} for own in events]
    return [np.array([place[event] for event in order], np.int64) for place in places]
