"""What each metric of the interactive benchmark is called, means and how it is printed.

One table, used by the terminal table, the report and ``results.json``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Direction = Literal["higher", "lower", "neutral"]
MISSING = "–"  # noqa: RUF001 (an en dash is what a typographer puts in an empty cell)


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

    def better(self, difference: float) -> bool:
        """Whether a positive (or negative) difference is an improvement."""
        return (difference > 0) == (self.direction == "higher") and self.direction != "neutral"


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
