"""Does the order of the list matter, or the batch it is asked in?  It should not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from usermirror_gym.fidelity.answers import scene_keys
from usermirror_gym.fidelity.checks.base import (
    SHOWN,
    SHOWN_COLUMNS,
    Card,
    Check,
    Context,
    Criterion,
)
from usermirror_gym.fidelity.checks.parts import (
    NO_CHANGE,
    number,
    own,
    percent,
    share,
)
from usermirror_gym.measures.calibration import positions
from usermirror_gym.measures.choice_scores import ObservedChoices, scores_given_click
from usermirror_gym.report.plots import ACCENT, FG, MUTED, Plot, draw_svg, interval_line
from usermirror_gym.report.tables import View
from usermirror_gym.report.text import Block, interval, points
from usermirror_gym.scenes import Scene
from usermirror_gym.scenes.randomness import uniforms
from usermirror_gym.types import FloatArray

MOST = 0.05
"""Mean change of a probability under a permutation."""
PLACE = 0.02
"""Distance of a place's share from an even one."""
Permutation = tuple[int, ...]
"""``order[j]`` is where option j of the new list stood in the old one."""
_ORDER_STREAM = 0
_LONGEST = 10_000
"""No list is longer: what is drawn for one order does not reach into the next."""
_ARGMAX_TIE = 1e-6
"""Options that differ by less are equally likely: batches differ by rounding."""
_ROUNDING = 1e-5
"""A mean change of a probability that batches and single precision explain."""
_EVEN = 1e-9


class Order(Check):
    """``order``: the lists in random orders; ``positions`` of every chooser."""

    def run(self, context: Context) -> dict[str, Any]:
        places = [
            {"positions": positions(row.probs, context.choices, context.bootstrap)}
            for row in context.answered
        ]
        return {"choosers": places, "order": order_sensitivity(context)}

    def criteria(self, card: Card) -> list[Criterion]:
        changes = Criterion.bounded(
            f"permuting the list changes a probability by at most {MOST}",
            (card["order"] or {}).get("mean_change"), lambda b: interval(b, ".3f"), most=MOST,
        )  # fmt: skip
        name = f"every place of the list is within {100 * PLACE:.0f} points of an even share"
        shares = own(card)["positions"]
        if not shares:
            return [changes, Criterion(name)]
        place, even, gap = _farthest(shares)
        off, low, high = (
            np.array([share[key] for share in shares], float) - even
            for key in ("mean", "low", "high")
        )
        within = np.where(np.isnan(low), np.abs(off) < _EVEN, (low >= -PLACE) & (high <= PLACE))
        beyond = (low > PLACE) | (high < -PLACE)
        met = gap <= PLACE
        measured = f"farthest from {100 * even:.1f} %: {place} %"
        sure = bool(within.all() if met else beyond.any())
        return [changes, Criterion(name, measured, met, sure)]

    def sentences(self, card: Card) -> list[str]:
        order, shares = card["order"], own(card)["positions"]
        said = []
        if order and order["mean_change"]["mean"] is not None:
            change, flips = order["mean_change"], order["argmax_flips"]
            small = change["mean"] < NO_CHANGE
            shown = f"{change['mean']:.0e}" if small else interval(change, ".3f")
            said.append(
                f"Permuting the list changes the probability of an option by {shown} on average, "
                f"and its likeliest option in {points(flips)} % of the lists."
                if change["mean"] >= _ROUNDING or flips["mean"]
                else "The order of the list changes nothing."
            )
        if shares:
            place, even, gap = _farthest(shares)
            said.append(
                f"The mean probability of each place of the list stays within {100 * gap:.1f} "
                f"points of an even share, {100 * even:.1f} % (farthest: {place} %)."
                if gap >= NO_CHANGE
                else "It gives all places of the list the same."
            )
        return said

    def tables(self, card: Card) -> list[View | None]:
        order = card["order"] or {}
        # Nothing where the order has no effect.
        matters = order and (order["mean_change"]["mean"] or 0.0) >= NO_CHANGE
        columns: dict[str, Any] = {
            "r": "r",
            "accuracy %": lambda row: share(row["accuracy"]),
            "log-loss": lambda row: number(row["log_loss"]),
            "mean change under a permutation": lambda row: number(row["mean_change"]),
        }
        rows = (matters and order["averaged"]) or ()
        note = "r orders cost r times as much."
        return [View.of("Averaged over r orders of the list", rows, columns, note)]

    def plot(self, card: Card) -> Plot | None:
        """The mean probability of each place of the list."""
        blocks = own(card)["positions"]
        if not blocks:
            return None
        shares = [block["mean"] for block in blocks]

        def draw(figure: Figure) -> None:
            axes = figure.subplots()
            axes.bar(range(1, len(shares) + 1), shares, color=ACCENT, alpha=0.55, width=0.72)
            for place, block in enumerate(blocks, start=1):
                interval_line(axes, block, place, upright=True, color=FG, lw=1.4)
            axes.axhline(1 / len(shares), color=MUTED, lw=1, ls="--")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            percent(axes.yaxis, 4)
            axes.set(xlabel="Place in the list", ylabel="Mean probability")
            axes.grid(axis="y", lw=0.6)

        return Plot(
            "Does it like certain places?",
            "Mean probability of the item at each place. Dashed: even shares. True items stand at "
            "every place alike, so all places should get the same.",
            "Mean probability by place: "
            + ", ".join(f"{i} {share:.1%}" for i, share in enumerate(shares, start=1)),
            draw_svg(draw, 2.5, "positions"),
        )

    def facts(self, card: Card) -> list[tuple[str, Any]]:
        order = card["order"] or {}
        same = order.get("duplicates_max_difference")
        return [
            ("permutations of each list", order.get("permutations")),
            ("mean change of a probability under them", order.get("mean_change")),
            ("lists whose likeliest option changes", order.get("argmax_flips")),
            ("largest difference of the same list asked twice", same),
        ]


def order_sensitivity(context: Context) -> dict[str, Any] | None:
    """The same lists, those that contain the choice, in random orders.

    Returns:
        ``mean_change``: mean absolute difference of an option's probability (*none of these* is
        one) between the list as it is and permuted, over options, orders and then lists.
        ``argmax_flips``: share of permuted lists whose likeliest option is not a likeliest one of
        the list as it is.  ``positions``: mean probability of each place over all permuted lists
        of the commonest length, items only.  All of these are intervals.
        ``averaged``: what averaging the answers over r of the orders gives (:func:`averaged`).
        ``duplicates_max_difference``: see :func:`repeat_difference`.
    """
    n, rows = context.sizes.permutations, context.first(context.sizes.order)
    if not len(rows):
        return None
    scenes = [context.choices.scenes[row] for row in rows]
    choices = ObservedChoices.of(scenes)
    probs = context.answered[0].probs[rows]
    # Without the columns that only longer lists have.
    probs = np.column_stack([probs[:, : choices.shown.shape[1]], probs[:, -1]])
    plan = random_orders(scenes, n, context.seed)
    shown = [
        context.ask([permuted(s, o) for s, o in zip(scenes, orders, strict=True)], f"order {turn}")
        for turn, orders in enumerate(plan, start=1)
    ]
    answers = np.stack([restored(rows, orders) for rows, orders in zip(shown, plan, strict=True)])
    again = np.take_along_axis(probs[None], answers.argmax(axis=2)[:, :, None], axis=2)[:, :, 0]
    flips = again < probs.max(axis=1) - _ARGMAX_TIE
    change = np.abs(answers - probs).mean(axis=0)
    change = np.where(choices.offered, change, 0).sum(axis=1) / choices.offered.sum(axis=1)
    bootstrap = context.resampled(choices.users)
    of_change, of_flips = bootstrap.intervals(np.column_stack([change, flips.mean(axis=0)]))
    repeated = choices.select(np.tile(np.arange(len(scenes)), n))
    few = scenes[: context.sizes.repeats]
    return {
        "scenes": len(scenes),
        "permutations": n,
        "mean_change": of_change._asdict(),
        "argmax_flips": of_flips._asdict(),
        "positions": positions(np.concatenate(shown), repeated, context.resampled(repeated.users)),
        "averaged": averaged(answers, choices),
        "duplicates_max_difference": repeat_difference(context, few, probs) if few else None,
    }


def repeat_difference(context: Context, scenes: Sequence[Scene], probs: FloatArray) -> float:
    """The largest change of a probability when the same scenes are asked again, last first.

    Args:
        probs: ``(S, K + 1)`` the first answers; there may be more of them than scenes.
    """
    # Never from the store, and in other batches: the question is whether the answer is the same.
    again = context.asker(
        context.simulator, list(scenes)[::-1], "the same again", keep=False, chunk=7
    ).probs[::-1]
    width = again.shape[1] - 1
    first = np.column_stack([probs[: len(again), :width], probs[: len(again), -1]])
    return float(np.abs(again - first).max())


def averaged(answers: FloatArray, choices: ObservedChoices) -> list[dict[str, Any]]:
    """What averaging over r = 1, 2, 4 ... orders of the list does.

    The n orders are dealt into groups of r, and each group's mean is one answer.

    Args:
        answers: ``(n, S, K + 1)``, options in one order.
        choices: of the S scenes.

    Returns:
        by r: ``accuracy`` and ``log_loss`` among the items (``None`` where no list holds its true
        item), and ``mean_change``, the mean absolute difference of an option's probability
        between two groups (``None`` if there is one only).
    """
    rows, r = [], 1
    while r <= len(answers):
        groups = answers[: len(answers) // r * r].reshape(-1, r, *answers.shape[1:]).mean(axis=1)
        row: dict[str, Any] = {"r": r, "accuracy": None, "log_loss": None, "mean_change": None}
        if choices.contains_choice.any():
            means = [np.nanmean(scores_given_click(group, choices), axis=0) for group in groups]
            scores = np.mean(means, axis=0)[SHOWN_COLUMNS]
            row |= dict(zip(SHOWN, scores.tolist(), strict=True))
        if len(groups) > 1:
            change = np.abs(np.diff(groups, axis=0))
            row["mean_change"] = float(
                change[np.broadcast_to(choices.offered, change.shape)].mean()
            )
        rows.append(row)
        r *= 2
    return rows


def random_orders(scenes: Sequence[Scene], n: int, seed: int) -> list[list[Permutation]]:
    """``n`` times one order of every list, a function of the seed and the scene alone."""
    longest = max((len(scene.slate) for scene in scenes), default=0)
    own = scene_keys(scenes, seed)
    orders = []
    for turn in range(n):
        u = uniforms(own, _ORDER_STREAM, n=longest, first=turn * _LONGEST)
        rows = zip(scenes, u, strict=True)
        orders.append([tuple(np.argsort(row[: len(s.slate)]).tolist()) for s, row in rows])
    return orders


def permuted(scene: Scene, order: Permutation) -> Scene:
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


def restored(probs: FloatArray, orders: Sequence[Permutation]) -> FloatArray:
    """``(S, K + 1)`` answers to permuted lists, with the options back in their old places."""
    out = probs.copy()
    for row, order in enumerate(orders):
        out[row, list(order)] = probs[row, : len(order)]
    return out


def _farthest(shares: Sequence[Block]) -> tuple[str, float, float]:
    """The place that is farthest from an even share, in words; that share and the distance."""
    even = 1 / len(shares)
    place, far = max(enumerate(shares, start=1), key=lambda share: abs(share[1]["mean"] - even))
    return f"number {place}, {points(far)}", even, abs(far["mean"] - even)
