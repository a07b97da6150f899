"""Does it read the history?  The same simulator is asked again with another user's.

That is as long as the user's own (:func:`usermirror_gym.scenes.swap_histories`): that more lines
tell more is no sign of taste.
"""

from __future__ import annotations

from typing import Any

from usermirror_gym.fidelity.checks.base import SHOWN, SWAPPED, Card, Check, Context, Criterion
from usermirror_gym.report.text import BETTER, WORSE, interval, points, standing

LEAST = 0.08
"""Accuracy that the user's own history is worth more than another's."""


class History(Check):
    """``history``: own minus swapped history, paired."""

    def run(self, context: Context) -> dict[str, Any]:
        found = next((p for p in context.paired if p["against"].startswith(SWAPPED)), None)
        return {"history": found and {name: found[name] for name in SHOWN}}

    def criteria(self, card: Card) -> list[Criterion]:
        name = f"own history is worth {100 * LEAST:.0f} points of accuracy more than another's"
        block = (card["history"] or {}).get("accuracy")
        text = lambda b: f"{points(b, sign=True)} points"  # noqa: E731
        return [Criterion.bounded(name, block, text, least=LEAST)]

    def sentences(self, card: Card) -> list[str]:
        gap = card["history"]
        if not gap:
            return []
        numbers = (
            f"own minus another user's history{how_long(card)}: "
            f"{points(gap['accuracy'], sign=True)} points of accuracy, "
            f"{interval(gap['log_loss'], '.3f', sign=True)} nats of log-loss"
        )
        accuracy = standing(gap["accuracy"])
        both = (accuracy, standing(gap["log_loss"], lower_is_better=True))
        first, second = ("accuracy", "log-loss") if accuracy == BETTER else ("log-loss", "accuracy")
        if both == (BETTER, BETTER):
            said = "It reads the history"
        elif BETTER in both and WORSE in both:
            said = (
                f"It reads the history, but its own history gives it the better {first} and the "
                f"worse {second}"
            )
        elif BETTER in both:
            said = f"It reads the history by its {first}, not shown by its {second}"
        elif WORSE in both:
            said = "Another user's history serves it better than the user's own"
        else:
            said = "It is not shown to read the history"
        return [f"{said} ({numbers})."]

    def facts(self, card: Card) -> list[tuple[str, Any]]:
        share = card["scenes"].get("swapped_as_long")
        return [("swapped histories as long as the own", None if share is None else f"{share:.1%}")]


def how_long(card: Card) -> str:
    """Words about the history that is put in; cards of earlier versions did not look at it."""
    share = card["scenes"].get("swapped_as_long")
    if share is None:
        return " of any length"
    return " of the same length" + (f" (for {share:.1%} of the lists)" if share < 1 else "")
