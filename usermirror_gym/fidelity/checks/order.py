"""Does the order of the list matter, or the batch it is asked in?  It should not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from usermirror_gym.fidelity.answers import scene_keys
from usermirror_gym.fidelity.checks.base import (
    SHOWN,
    SHOWN_COLUMNS,
    Ask,
    Card,
    Check,
    Context,
    Criterion,
)
from usermirror_gym.fidelity.checks.parts import NO_CHANGE, number, own, percent, share, upright
from usermirror_gym.measures.bootstrap import UserBootstrap
from usermirror_gym.measures.calibration import positions
from usermirror_gym.measures.choice_scores import ObservedChoices, forced_scores
from usermirror_gym.report.plots import ACCENT, FG, MUTED, Plot, draw_svg
from usermirror_gym.report.tables import Cell, View
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
        return {"choosers": places, "order": self._order(context)}

    def _order(self, context: Context) -> dict[str, Any] | None:
        sizes, rows = context.sizes, context.first(context.sizes.order)
        if not len(rows):
            return None
        scenes, probs = [context.choices.scenes[row] for row in rows], context.answered[0].probs
        found = order_sensitivity(
            context.ask, scenes, _narrowed(probs[rows], scenes),
            permutations=sizes.permutations, seed=context.seed, n_resamples=sizes.n_resamples,
        )  # fmt: skip
        few = scenes[: sizes.repeats]

        def again(scenes: Sequence[Scene], what: str) -> FloatArray:
            # Never from the store: the question is whether the answer is the same.
            return context.asker(context.simulator, scenes, what, keep=False, chunk=7).probs

        differ = None
        if few:
            differ = repeat_difference(again, few, _narrowed(probs[rows[: len(few)]], few))
        return found | {"duplicates_max_difference": differ}

    def criteria(self, card: Card) -> list[Criterion]:
        name = f"permuting the list changes a probability by at most {MOST}"
        block = (card["order"] or {}).get("mean_change")
        changes = Criterion.bounded(name, block, lambda b: interval(b, ".3f"), most=MOST)
        return [changes, _places(own(card)["positions"])]

    def sentences(self, card: Card) -> list[str]:
        return [_order_sentence(card["order"]), _places_sentence(own(card)["positions"])]

    def tables(self, card: Card) -> dict[str, View | None]:
        order = card["order"] or {}
        # Nothing where the order has no effect.
        matters = order and (order["mean_change"]["mean"] or 0.0) >= NO_CHANGE
        rows = [
            [Cell(str(a["r"])), Cell(share(a["accuracy"])), Cell(number(a["log_loss"])),
             Cell(number(a["mean_change"]))]
            for a in (matters and order["averaged"]) or ()
        ]  # fmt: skip
        columns = ["r", "accuracy %", "log-loss", "mean change under a permutation"]
        title, note = "Averaged over r orders of the list", "r orders cost r times as much."
        return {"averaged": View(title, columns, rows, note) if rows else None}

    def plots(self, card: Card) -> dict[str, Plot | None]:
        return {"positions": _plot(own(card)["positions"])}

    def facts(self, card: Card) -> list[tuple[str, Any]]:
        order = card["order"] or {}
        same = order.get("duplicates_max_difference")
        return [
            ("permutations of each list", order.get("permutations")),
            ("mean change of a probability under them", order.get("mean_change")),
            ("lists whose likeliest option changes", order.get("argmax_flips")),
            ("largest difference of the same list asked twice", same),
        ]


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
    choices = ObservedChoices.of(scenes)
    plan = random_orders(scenes, permutations, seed)
    shown = [
        ask([permuted(s, o) for s, o in zip(scenes, orders, strict=True)], f"order {n}")
        for n, orders in enumerate(plan, start=1)
    ]
    answers = np.stack([restored(rows, orders) for rows, orders in zip(shown, plan, strict=True)])
    again = np.take_along_axis(probs[None], answers.argmax(axis=2)[:, :, None], axis=2)[:, :, 0]
    flips = again < probs.max(axis=1) - _ARGMAX_TIE
    change = np.abs(answers - probs).mean(axis=0)
    change = np.where(choices.offered, change, 0).sum(axis=1) / choices.offered.sum(axis=1)
    bootstrap = UserBootstrap(choices.users, n_resamples, seed)
    of_change, of_flips = bootstrap.intervals(np.column_stack([change, flips.mean(axis=0)]))
    repeated = choices.select(np.tile(np.arange(len(choices)), permutations))
    return {
        "scenes": len(scenes),
        "permutations": permutations,
        "mean_change": of_change._asdict(),
        "argmax_flips": of_flips._asdict(),
        "positions": positions(
            np.concatenate(shown), repeated, UserBootstrap(repeated.users, n_resamples, seed)
        ),
        "averaged": averaged(answers, choices),
    }


def repeat_difference(ask: Ask, scenes: Sequence[Scene], probs: FloatArray) -> float:
    """The largest change of a probability when the same scenes are asked again, last first.

    Args:
        ask: must really ask, not look up the first answers, and should use another batch size.
        probs: ``(S, K + 1)`` the first answers.
    """
    again = ask(list(scenes)[::-1], "the same again")[::-1]
    return float(np.abs(again - probs).max())


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
            means = [np.nanmean(forced_scores(group, choices), axis=0) for group in groups]
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


def _narrowed(probs: FloatArray, scenes: Sequence[Scene]) -> FloatArray:
    """Without the columns that only longer lists have."""
    width = max(len(scene.slate) for scene in scenes)
    return np.column_stack([probs[:, :width], probs[:, -1]])


def _farthest(shares: Sequence[Block]) -> tuple[int, Block, float]:
    """Number and share of the place that is farthest from an even share, and that share."""
    even = 1 / len(shares)
    place, far = max(enumerate(shares, start=1), key=lambda share: abs(share[1]["mean"] - even))
    return place, far, even


def _places(shares: Sequence[Block]) -> Criterion:
    name = f"every place of the list is within {100 * PLACE:.0f} points of an even share"
    if not shares:
        return Criterion(name)
    place, far, even = _farthest(shares)
    met = abs(far["mean"] - even) <= PLACE
    measured = f"farthest from {100 * even:.1f} %: number {place}, {points(far)} %"
    if met:
        return Criterion(name, measured, met, all(_within(share, even) for share in shares))
    return Criterion(name, measured, met, any(_beyond(share, even) for share in shares))


def _within(share: Block, even: float) -> bool:
    """Whether all of the interval is near an even share."""
    if share["low"] is None or share["high"] is None:
        return abs(share["mean"] - even) < _EVEN
    return bool(share["low"] >= even - PLACE and share["high"] <= even + PLACE)


def _beyond(share: Block, even: float) -> bool:
    """Whether all of the interval is too high, or too low."""
    if share["low"] is None or share["high"] is None:
        return False
    return bool(share["low"] > even + PLACE or share["high"] < even - PLACE)


def _order_sentence(order: Mapping[str, Any] | None) -> str:
    if not order or order["mean_change"]["mean"] is None:
        return ""
    change, flips = order["mean_change"], order["argmax_flips"]
    if change["mean"] < _ROUNDING and not flips["mean"]:
        return "The order of the list changes nothing."
    small = change["mean"] < NO_CHANGE
    shown = f"{change['mean']:.0e}" if small else interval(change, ".3f")
    return (
        f"Permuting the list changes the probability of an option by {shown} on average, and its "
        f"likeliest option in {points(flips)} % of the lists."
    )


def _places_sentence(shares: Sequence[Block]) -> str:
    if not shares:
        return ""
    place, far, even = _farthest(shares)
    gap = abs(far["mean"] - even)
    if gap < NO_CHANGE:
        return "It gives all places of the list the same."
    return (
        f"The mean probability of each place of the list stays within {100 * gap:.1f} points of an "
        f"even share, {100 * even:.1f} % (farthest: number {place}, {points(far)} %)."
    )


def _plot(blocks: Sequence[Block]) -> Plot | None:
    """The mean probability of each place of the list."""
    if not blocks:
        return None
    shares = [block["mean"] for block in blocks]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.bar(range(1, len(shares) + 1), shares, color=ACCENT, alpha=0.55, width=0.72)
        for place, block in enumerate(blocks, start=1):
            upright(axes, place, block, color=FG, lw=1.4)
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
