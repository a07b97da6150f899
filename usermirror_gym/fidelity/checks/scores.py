"""Who predicts the real choice: accuracy and log-loss of everybody, and the paired differences.

*Beats* and *loses to* are used only where a 95 % interval of the paired difference excludes zero;
everything else is *not told apart*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from usermirror_gym.fidelity.checks.base import Card, Check, Context, Criterion, by_name
from usermirror_gym.fidelity.checks.parts import (
    KINDS,
    bar,
    handle,
    named_rows,
    own,
    pair_cells,
    pair_standing,
    percent,
    sorted_choosers,
)
from usermirror_gym.measures.bootstrap import UserBootstrap
from usermirror_gym.measures.choice_scores import METRICS, outside_scores
from usermirror_gym.report.plots import MUTED, Plot, draw_svg
from usermirror_gym.report.tables import View
from usermirror_gym.report.text import BETTER, OPEN, WORSE, interval, listing, points, shorten
from usermirror_gym.types import FloatArray

_RANK = {BETTER: 0, OPEN: 1, WORSE: 2}
_GROUPS = (
    ("base", "the untrained model"), ("control", "the controls"),
    ("classic", "the classic choosers"), ("reference", "the upper reference"),
)  # fmt: skip
_MUST_BE_BEATEN = {"control": "every control", "classic": "every classic chooser"}


class Scores(Check):
    """``overall`` of every chooser, among the items and with *none of these*; ``paired``."""

    def run(self, context: Context) -> dict[str, Any]:
        outside = [outside_scores(row.probs, context.choices) for row in context.answered]
        return {
            "choosers": [
                # Who never leaves has no probability to be judged by.
                {"overall": {"forced": forced, "outside": beside if row.offers_outside else None}}
                for row, forced, beside in zip(
                    context.answered, _blocks(context.scores, context.bootstrap),
                    _blocks(outside, context.bootstrap), strict=True,
                )
            ],
            "paired": context.paired,
        }  # fmt: skip

    def criteria(self, card: Card) -> list[Criterion]:
        return [_beats(card, kind, words) for kind, words in _MUST_BE_BEATEN.items()]

    def sentences(self, card: Card) -> list[str]:
        forced, scenes = own(card)["overall"]["forced"], card["scenes"]
        accuracy, loss = points(forced["accuracy"]), interval(forced["log_loss"], ".3f")
        level = (
            f"On {scenes['with_target']:,} real choices it names the right item with accuracy "
            f"{accuracy} % and has log-loss {loss}."
        )
        return [level, *(_against(card, kind, words) for kind, words in _GROUPS)]

    def tables(self, card: Card) -> list[View | None]:
        return [_chooser_table(card), _outside_table(card)]

    def plot(self, card: Card) -> Plot:
        """Accuracy and log-loss of every chooser with intervals, best log-loss first."""
        choosers = sorted_choosers(card)[::-1]
        forced = [chooser["overall"]["forced"] for chooser in choosers]
        names = [chooser["name"] for chooser in choosers]
        metrics = {"accuracy": "Accuracy", "log_loss": "Log-loss (less is better)"}

        def draw(figure: Figure) -> None:
            panels = figure.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.08})
            for axes, (metric, label) in zip(panels, metrics.items(), strict=True):
                for y, chooser in enumerate(choosers):
                    bar(axes, forced[y][metric], y, chooser["kind"])
                if "uniform" in names:
                    guessing = forced[names.index("uniform")][metric]["mean"]
                    axes.axvline(guessing, color=MUTED, lw=1, ls="--", zorder=0)
                axes.set_xlabel(label)
                named_rows(axes)
                axes.xaxis.set_major_locator(MaxNLocator(4))
            percent(panels[0].xaxis)
            panels[0].set_yticks(range(len(choosers)), [shorten(name, 24) for name in names])
            handles = [handle(kind) for kind in KINDS if any(c["kind"] == kind for c in choosers)]
            figure.legend(
                handles=handles, loc="outside upper left", ncols=3, frameon=False, handletextpad=0.2
            )

        best = ", ".join(
            f"{name} {points(block['accuracy'])} % and {interval(block['log_loss'], '.3f')}"
            for name, block in zip(names[::-1], forced[::-1], strict=True)
        )
        return Plot(
            "Who predicts the real choice",
            "Lists that hold the true item, none of these left out. Bars are 95% intervals over "
            "users; whether two choosers differ is said by the paired differences in the table, "
            "not by whether their bars overlap.",
            f"Accuracy and log-loss, best log-loss first: {best}.",
            draw_svg(draw, 0.27 * len(choosers) + 1.5, "choosers"),
        )


def _blocks(scores: Sequence[FloatArray], bootstrap: UserBootstrap) -> list[dict[str, Any]]:
    """Intervals of all :data:`METRICS` of each ``(S, 4)`` array."""
    return by_name(METRICS, bootstrap.intervals(np.column_stack(scores)))


def _pairs_of(card: Card, kind: str) -> list[Mapping[str, Any]]:
    """The simulator against every chooser of a kind, in the order of the card."""
    kinds = {chooser["name"]: chooser["kind"] for chooser in card["choosers"]}
    return [pair for pair in card["paired"] or () if kinds.get(pair["against"]) == kind]


def _beats(card: Card, kind: str, words: str) -> Criterion:
    """All of a kind, each by paired intervals that exclude zero."""
    name, pairs = f"beats {words} in accuracy and in log-loss", _pairs_of(card, kind)
    if not pairs:
        return Criterion(name, "nobody was asked")
    left = [pair for pair in pairs if pair_standing(pair) != (BETTER, BETTER)]
    shown = left or [max(pairs, key=lambda pair: pair["log_loss"]["mean"])]
    lead = f"{len(pairs) - len(left)} of {len(pairs)}"
    words = f"{lead}; {'not' if left else 'nearest'}: {_with_numbers(shown)}"
    return Criterion(name, words, not left)


def _against(card: Card, kind: str, words: str) -> str:
    """One sentence about all choosers of a kind: who is beaten, and in full who is not."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for pair in _pairs_of(card, kind):
        groups.setdefault(pair_standing(pair), []).append(pair)
    parts = [
        _outcome(standings, groups[standings])
        for standings in sorted(groups, key=lambda s: (_RANK[s[1]], _RANK[s[0]]))
    ]
    return f"Against {words}: it {'; it '.join(parts)}." if parts else ""


def _outcome(standings: tuple[str, str], pairs: Sequence[Mapping[str, Any]]) -> str:
    accuracy, loss = standings
    named = _with_numbers(pairs)
    if accuracy == loss == BETTER:
        nearest = _difference(max(pairs, key=lambda pair: pair["log_loss"]["mean"]))
        if len(pairs) == 1:
            return f"beats {nearest} in accuracy and log-loss"
        names = listing([pair["against"] for pair in pairs])
        return f"beats {names} in accuracy and log-loss; nearest comes {nearest}"
    if accuracy == loss == WORSE:
        return f"loses to {named} in accuracy and log-loss"
    if accuracy == loss:
        return f"is not told apart from {named}"
    if OPEN not in standings:
        better, worse = ("accuracy", "log-loss") if accuracy == BETTER else ("log-loss", "accuracy")
        return f"has the better {better} but the worse {worse} than {named}"
    which, other = ("log-loss", "accuracy") if loss else ("accuracy", "log-loss")
    verb = "beats" if BETTER in standings else "loses to"
    return f"{verb} {named} in {which} only ({other} is not told apart)"


def _with_numbers(pairs: Sequence[Mapping[str, Any]]) -> str:
    """One or two with their differences; of more, their names and the farthest in log-loss."""
    if len(pairs) <= 2:
        return listing([_difference(pair) for pair in pairs])
    far = max(pairs, key=lambda pair: abs(pair["log_loss"]["mean"]))
    return f"{listing([pair['against'] for pair in pairs])} (farthest: {_difference(far)})"


def _difference(pair: Mapping[str, Any]) -> str:
    """The chooser's name with both differences to it."""
    return (
        f"{pair['against']} ({points(pair['accuracy'], sign=True)} points, "
        f"{interval(pair['log_loss'], '.3f', sign=True)} nats)"
    )


def _chooser_table(card: Card) -> View | None:
    """Every chooser on lists with the true item, with paired differences to the simulator."""
    paired = {pair["against"]: pair for pair in card["paired"] or ()}
    rows = [
        {**chooser["overall"]["forced"], **chooser, "pair": pair_cells(paired.get(chooser["name"]))}
        for chooser in sorted_choosers(card)
    ]
    columns: dict[str, Any] = {
        "chooser": "name",
        "kind": lambda row: KINDS[row["kind"]],
        "accuracy %": lambda row: points(row["accuracy"]),
        "log-loss": "log_loss",
        "difference in accuracy": lambda row: row["pair"][0],
        "difference in log-loss": lambda row: row["pair"][1],
        "p(true) %": lambda row: points({**row["expected_accuracy"], "low": None}),
        "Brier": lambda row: interval({**row["brier"], "low": None}, ".3f"),
        "ECE": lambda row: interval((row["calibration"] or {}).get("ece"), ".3f"),
    }
    strong = next(i for i, row in enumerate(rows) if row["kind"] == "simulator")
    note = (
        "Lists that hold the true item; none of these is left out and the rest renormalised. "
        "Differences are this simulator minus the chooser, list by list, in points and nats: ▲ the "
        "simulator is better, ▼ worse, where the 95% interval excludes zero. p(true) is the mean "
        "probability of the true item (expected accuracy). Ranges are 95% intervals by a bootstrap "
        "over users."
    )
    return View.of("Who predicts the real choice", rows, columns, note, strong, spec=".3f")


def _outside_table(card: Card) -> View | None:
    """The same choosers with *none of these* among the options, on all lists."""
    found = [(who["name"], who["overall"].get("outside")) for who in sorted_choosers(card)]
    columns: dict[str, Any] = {
        "chooser": "name",
        "accuracy %": lambda row: points(row["accuracy"]),
        "log-loss": "log_loss",
        "p(true) %": lambda row: points(row["expected_accuracy"]),
        "Brier": "brier",
    }
    note = (
        f"All lists: {card['scenes']['with_target']:,} with the true item and "
        f"{card['scenes']['removed']:,} without it, where none of these is right."
    )
    rows = [{"name": name, **block} for name, block in found if block]
    return View.of("With none of these as an option", rows, columns, note, spec=".3f")
