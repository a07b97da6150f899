"""Does the order of the list matter, or the batch it is asked in?  It should not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from usermirror_gym.fidelity.answers import scene_digest
from usermirror_gym.fidelity.checks.outside_option import Ask
from usermirror_gym.measures.bootstrap import UserBootstrap
from usermirror_gym.measures.calibration import positions
from usermirror_gym.measures.choice_scores import METRICS, Truth, forced_scores
from usermirror_gym.scenes import Scene
from usermirror_gym.scenes.randomness import keys, uniforms
from usermirror_gym.types import FloatArray

Order = tuple[int, ...]
"""``order[j]`` is where option j of the new list stood in the old one."""
_ORDER_STREAM = 0
_LONGEST = 10_000
"""No list is longer: what is drawn for one order does not reach into the next."""
_ARGMAX_TIE = 1e-6
"""Options that differ by less are equally likely: batches differ by rounding."""


def order_sensitivity(
    ask: Ask,
    scenes: Sequence[Scene],
    probs: FloatArray,
    *,
    permutations: int,
    seed: int,
    n_resamples: int = 2000,
) -> dict[str, Any]:
    """The same lists in random orders.

    Args:
        ask: the simulator.
        scenes: S lists whose choice is known.
        probs: ``(S, K + 1)`` its answers to the lists as they are.
        permutations: n random orders of each list; at least 1.
        seed: of the orders and of the resamples.
        n_resamples: of the intervals over users.

    Returns:
        ``mean_change``: mean absolute difference of an option's probability (*none of these* is
        one) between the list as it is and permuted, over options, orders and then lists.
        ``argmax_flips``: share of permuted lists whose likeliest option is not a likeliest one of
        the list as it is.  ``positions``: mean probability of each place over all permuted lists
        of the commonest length, items only.  All of these are intervals.
        ``averaged``: what averaging the answers over r of the orders gives (:func:`averaged`).
    """
    truth = Truth.of(scenes)
    plan = random_orders(scenes, permutations, seed)
    shown = [
        ask([permuted(s, o) for s, o in zip(scenes, orders, strict=True)], f"order {n}")
        for n, orders in enumerate(plan, start=1)
    ]
    answers = np.stack([restored(rows, orders) for rows, orders in zip(shown, plan, strict=True)])
    again = np.take_along_axis(probs[None], answers.argmax(axis=2)[:, :, None], axis=2)[:, :, 0]
    flips = again < probs.max(axis=1) - _ARGMAX_TIE
    change = np.abs(answers - probs).mean(axis=0)
    change = np.where(truth.offered, change, 0).sum(axis=1) / truth.offered.sum(axis=1)
    bootstrap = UserBootstrap(truth.users, n_resamples, seed)
    of_change, of_flips = bootstrap.intervals(np.column_stack([change, flips.mean(axis=0)]))
    repeated = Truth(*(np.concatenate([column] * permutations) for column in
                       (truth.users, truth.shown, truth.targets)))  # fmt: skip
    return {
        "scenes": len(scenes),
        "permutations": permutations,
        "mean_change": of_change._asdict(),
        "argmax_flips": of_flips._asdict(),
        "positions": positions(
            np.concatenate(shown), repeated, UserBootstrap(repeated.users, n_resamples, seed)
        ),
        "averaged": averaged(answers, truth),
    }


def repeat_difference(ask: Ask, scenes: Sequence[Scene], probs: FloatArray) -> float:
    """The largest change of a probability when the same scenes are asked again, last first.

    Args:
        ask: must really ask, not look up the first answers, and should use another batch size.
        probs: ``(S, K + 1)`` the first answers.
    """
    again = ask(list(scenes)[::-1], "the same again")[::-1]
    return float(np.abs(again - probs).max())


def averaged(answers: FloatArray, truth: Truth) -> list[dict[str, Any]]:
    """What averaging over r = 1, 2, 4 ... orders of the list does.

    The n orders are dealt into groups of r, and each group's mean is one answer.

    Args:
        answers: ``(n, S, K + 1)``, options in one order.
        truth: of the S scenes.

    Returns:
        by r: ``accuracy`` and ``log_loss`` among the items (``None`` where no list holds its true
        item), and ``mean_change``, the mean absolute difference of an option's probability
        between two groups (``None`` if there is one only).
    """
    rows, r = [], 1
    while r <= len(answers):
        groups = answers[: len(answers) // r * r].reshape(-1, r, *answers.shape[1:]).mean(axis=1)
        row: dict[str, Any] = {"r": r, "accuracy": None, "log_loss": None, "mean_change": None}
        if truth.held.any():
            scores = np.mean([np.nanmean(forced_scores(g, truth), axis=0) for g in groups], axis=0)
            row |= {name: float(scores[METRICS.index(name)]) for name in ("accuracy", "log_loss")}
        if len(groups) > 1:
            change = np.abs(np.diff(groups, axis=0))
            row["mean_change"] = float(change[np.broadcast_to(truth.offered, change.shape)].mean())
        rows.append(row)
        r *= 2
    return rows


def random_orders(scenes: Sequence[Scene], n: int, seed: int) -> list[list[Order]]:
    """``n`` times one order of every list, a function of the seed and the scene alone."""
    digests = np.array([int(scene_digest(scene)[:15], 16) for scene in scenes], np.int64)
    longest = max((len(scene.slate) for scene in scenes), default=0)
    own = keys(seed, digests)
    orders = []
    for number in range(n):
        u = uniforms(own, _ORDER_STREAM, n=longest, first=number * _LONGEST)
        rows = zip(scenes, u, strict=True)
        orders.append([tuple(np.argsort(row[: len(s.slate)]).tolist()) for s, row in rows])
    return orders


def permuted(scene: Scene, order: Order) -> Scene:
    """The scene with its list in another order; its target follows."""
    target = scene.target
    if target is not None and target < len(scene.slate):
        target = order.index(target)
    return replace(
        scene,
        slate=tuple(scene.slate[place] for place in order),
        notes=tuple(scene.notes[place] for place in order) if scene.notes else (),
        target=target,
    )


def restored(probs: FloatArray, orders: Sequence[Order]) -> FloatArray:
    """``(S, K + 1)`` answers to permuted lists, with the options back in their old places."""
    out = probs.copy()
    for row, order in enumerate(orders):
        out[row, list(order)] = probs[row, : len(order)]
    return out
