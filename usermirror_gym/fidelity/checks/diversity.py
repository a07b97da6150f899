"""Does it take as many different items as real users, and as evenly?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from usermirror_gym.fidelity.checks.base import Card, Check, Context
from usermirror_gym.fidelity.checks.parts import KINDS, own, sorted_choosers
from usermirror_gym.measures.spread import SPREADS, spread
from usermirror_gym.report.tables import Cell, View
from usermirror_gym.report.text import DIFFERENT, MISSING, interval

_SPECS = {"gini": ".3f", "entropy": ".2f", "coverage": ".1f"}


class Diversity(Check):
    """``spread`` of every chooser (:mod:`usermirror_gym.measures.spread`)."""

    def run(self, context: Context) -> dict[str, Any]:
        choices, seed = context.choices, context.seed
        return {
            "choosers": [{"spread": spread(row.probs, choices, seed)} for row in context.answered]
        }

    def sentences(self, card: Card) -> list[str]:
        found = own(card).get("spread")
        if not found:
            return []
        gini = found["gini"]
        if gini["real"] < gini["low"]:
            said = "It takes fewer items more often than real users do"
        elif gini["real"] > gini["high"]:
            said = "It spreads its choices more evenly than real users do"
        else:
            said = "Its choices spread over the items like the real ones"
        numbers = ", ".join(
            f"{'Gini' if name == 'gini' else name} {_shown(name, found[name])} for "
            f"{_shown(name, {'mean': found[name]['real'], 'low': None, 'high': None})}"
            for name in SPREADS
        )
        return [f"{said} ({numbers})."]

    def tables(self, card: Card) -> list[View | None]:
        rows = [chooser for chooser in sorted_choosers(card) if chooser.get("spread")]
        if not rows:
            return []
        truth = {
            name: {"mean": about["real"], "low": None, "high": None}
            for name, about in rows[0]["spread"].items()
        }
        records: list[Mapping[str, Any]] = [{"name": "real users", "spread": truth}, *rows]

        def cell(name: str) -> Any:
            return lambda row: _cell(name, row["spread"][name])

        columns: dict[str, Any] = {
            "chooser": "name",
            "kind": lambda row: KINDS[row["kind"]] if "kind" in row else MISSING,
            "Gini": cell("gini"),
            "entropy, nats": cell("entropy"),
            "coverage %": cell("coverage"),
        }
        note = (
            "What would be taken from the lists that hold the true item, drawn by the chooser's "
            "probabilities; in brackets 95% of the draws. ◆ what real users took lies outside. "
            "Gini: 0 if all items of the lists are taken equally often, towards 1 if it is a few. "
            "Coverage: items that are taken at all. Who foretells best need not spread like people."
        )
        strong = 1 + next(i for i, row in enumerate(rows) if row["kind"] == "simulator")
        return [View.of("What is taken, over all lists", records, columns, note, strong)]


def _shown(name: str, block: Mapping[str, Any]) -> str:
    scale = 100 if name == "coverage" else 1
    return interval(block, _SPECS[name], scale=scale) + (" %" if name == "coverage" else "")


def _cell(name: str, block: Mapping[str, Any]) -> Cell:
    outside = "real" in block and not block["low"] <= block["real"] <= block["high"]
    shown = _shown(name, block).removesuffix(" %")
    return Cell(shown, DIFFERENT if outside else "")
