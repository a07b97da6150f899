"""Do its probabilities mean what they say?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from usermirror_gym.fidelity.checks.base import Card, Check, Context, Criterion
from usermirror_gym.fidelity.checks.parts import own, percent
from usermirror_gym.measures.calibration import calibration, entropy
from usermirror_gym.report.plots import ACCENT, MUTED, Plot, draw_svg
from usermirror_gym.report.text import interval

MOST = 0.03


class Calibration(Check):
    """``calibration`` and ``entropy`` of every chooser (:mod:`usermirror_gym.measures`)."""

    def run(self, context: Context) -> dict[str, Any]:
        choices, bootstrap, seed = context.choices, context.bootstrap, context.seed
        return {
            "choosers": [
                {
                    "calibration": calibration(row.probs, choices, bootstrap, seed),
                    "entropy": entropy(row.probs, choices),
                }
                for row in context.answered
            ]
        }

    def criteria(self, card: Card) -> list[Criterion]:
        found = own(card)["calibration"] or {}
        noise = found.get("if_calibrated")
        chance = f"; chance alone gives up to {noise['high']:.3f} on so few lists" if noise else ""
        return [
            Criterion.bounded(
                f"calibration error is at most {MOST}", found.get("ece"),
                lambda block: interval(block, ".3f") + chance, most=MOST,
            )
        ]  # fmt: skip

    def sentences(self, card: Card) -> list[str]:
        found = own(card)["calibration"]
        if not found or found["ece"]["mean"] is None:
            return []
        total = sum(row["n"] for row in found["bins"])
        said = sum(row["confidence"] * row["n"] for row in found["bins"]) / total
        right = sum(row["accuracy"] * row["n"] for row in found["bins"]) / total
        return [
            f"Its likeliest item is given {said:.1%} on average and is right {right:.1%} of the "
            f"time; expected calibration error {interval(found['ece'], '.3f')}{_chance(found)}."
        ]

    def plot(self, card: Card) -> Plot | None:
        """How often the likeliest item is right, by the probability it was given."""
        found = own(card)["calibration"] or {}
        bins = [row for row in found.get("bins", []) if row["n"]]
        if not bins:
            return None

        def draw(figure: Figure) -> None:
            axes = figure.subplots()
            axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls="--")
            x, y = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
            axes.plot(x, y, color=ACCENT, lw=1.4)
            axes.scatter(x, y, color=ACCENT, s=26, zorder=3)
            span = (max(0.0, min(x + y) - 0.08), min(1.0, max(x + y) + 0.08))
            axes.set(xlabel="Probability of the likeliest item", ylabel="How often it is right",
                     xlim=span, ylim=span)  # fmt: skip
            percent(axes.xaxis, 5)
            percent(axes.yaxis, 5)
            axes.grid(lw=0.6)

        sizes = sorted({row["n"] for row in bins})
        each = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        shown = [f"{b['confidence']:.0%} given, {b['accuracy']:.0%} right" for b in bins]
        return Plot(
            "Do its probabilities mean what they say?",
            f"Each point is {each} lists; on the dashed line, an item given 40% is right in 40%. "
            f"Expected calibration error {interval(found['ece'], '.3f')}.",
            "Reliability: " + ", ".join(shown),
            draw_svg(draw, 3.6, "reliability"),
        )

    def facts(self, card: Card) -> list[tuple[str, Any]]:
        me = own(card)
        entropies, found = me["entropy"] or {}, me["calibration"] or {}
        return [
            ("mean entropy of its probabilities", entropies.get("mean")),
            ("mean surprise at the real choices", entropies.get("real")),
            ("calibration error of all options", found.get("options_ece")),
        ]


def _chance(found: Mapping[str, Any]) -> str:
    """What of the error finitely many lists explain."""
    noise = found.get("if_calibrated")
    if not noise:
        return ""
    more = found["ece"]["mean"] > noise["high"]
    verb = "more than chance explains" if more else "no more than chance explains"
    return f", {verb} (up to {noise['high']:.3f} if it were calibrated)"
