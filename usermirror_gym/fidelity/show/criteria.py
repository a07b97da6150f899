"""What must hold before a simulated user is believed, and which of it holds for this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from usermirror_gym.fidelity.show.sentences import fall, own, pair_standing, pairs_of, with_numbers
from usermirror_gym.report.text import BETTER, Block, interval, listing, points

HISTORY = 0.08
"""Accuracy that the user's own history is worth more than another's."""
CALIBRATION = 0.03
ORDER = 0.05
"""Mean change of a probability under a permutation."""
PLACE = 0.02
"""Distance of a place's share from an even one."""
AUC = 0.75
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Bar:
    """One thing that must hold.

    Attributes:
        name: what.
        measured: the numbers, in words.
        met: whether it holds; ``None`` where it was not measured.
        sure: whether another draw of users would say the same: the 95 % interval lies on one side
            of the bar.
    """

    name: str
    measured: str
    met: bool | None
    sure: bool = True

    @property
    def answer(self) -> str:
        """``yes``, ``no``, ``yes, not certain`` ..."""
        if self.met is None:
            return "not measured"
        return ("yes" if self.met else "no") + ("" if self.sure else ", not certain")


def bars(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The bars for the content of ``card.json``, as dictionaries (see :class:`Bar`)."""
    found = [
        _beats(card, "control", "beats every control in accuracy and in log-loss"),
        _beats(card, "classic", "beats every classic chooser in accuracy and in log-loss"),
        _history(card), _calibration(card), _order(card), _places(card), _auc(card), _ladder(card),
    ]  # fmt: skip
    return [asdict(bar) for bar in found]


def read_bars(card: Mapping[str, Any]) -> list[Bar]:
    """The bars as a card holds them."""
    return [Bar(**bar) for bar in card["bars"]]


def count(card: Mapping[str, Any]) -> str:
    """``5 of 8``: how many hold, of all that must."""
    found = read_bars(card)
    return f"{sum(bar.met is True for bar in found)} of {len(found)}"


def _beats(card: Mapping[str, Any], kind: str, name: str) -> Bar:
    """All of a kind, each by paired intervals that exclude zero."""
    pairs = pairs_of(card, kind)
    if not pairs:
        return Bar(name, "nobody was asked", None)
    left = [pair for pair in pairs if pair_standing(pair) != (BETTER, BETTER)]
    shown = left or [max(pairs, key=lambda pair: pair["log_loss"]["mean"])]
    lead = f"{len(pairs) - len(left)} of {len(pairs)}"
    return Bar(name, f"{lead}; {'not' if left else 'nearest'}: {with_numbers(shown)}", not left)


def _history(card: Mapping[str, Any]) -> Bar:
    name = f"own history is worth {100 * HISTORY:.0f} points of accuracy more than another's"
    block = (card["history"] or {}).get("accuracy")
    return _reaches(name, block, HISTORY, lambda b: f"{points(b, sign=True)} points")


def _calibration(card: Mapping[str, Any]) -> Bar:
    name = f"calibration error is at most {CALIBRATION}"
    found = own(card)["calibration"] or {}
    noise = found.get("if_calibrated")
    chance = f"; chance alone gives up to {noise['high']:.3f} on so few lists" if noise else ""
    return _stays(name, found.get("ece"), CALIBRATION, lambda b: interval(b, ".3f") + chance)


def _order(card: Mapping[str, Any]) -> Bar:
    name = f"permuting the list changes a probability by at most {ORDER}"
    block = (card["order"] or {}).get("mean_change")
    return _stays(name, block, ORDER, lambda b: interval(b, ".3f"))


def _places(card: Mapping[str, Any]) -> Bar:
    name = f"every place of the list is within {100 * PLACE:.0f} points of an even share"
    shares = own(card)["positions"]
    if not shares:
        return Bar(name, "", None)
    even = 1 / len(shares)
    number, far = max(enumerate(shares, start=1), key=lambda share: abs(share[1]["mean"] - even))
    met = abs(far["mean"] - even) <= PLACE
    measured = f"farthest from {100 * even:.1f} %: number {number}, {points(far)} %"
    if met:
        return Bar(name, measured, met, all(_within(share, even) for share in shares))
    return Bar(name, measured, met, any(_beyond(share, even) for share in shares))


def _within(share: Block, even: float) -> bool:
    """Whether all of the interval is near an even share."""
    if share["low"] is None or share["high"] is None:
        return abs(share["mean"] - even) < _ROUNDING
    return bool(share["low"] >= even - PLACE and share["high"] <= even + PLACE)


def _beyond(share: Block, even: float) -> bool:
    """Whether all of the interval is too high, or too low."""
    if share["low"] is None or share["high"] is None:
        return False
    return bool(share["low"] > even + PLACE or share["high"] < even - PLACE)


def _auc(card: Mapping[str, Any]) -> Bar:
    name = f"none of these tells lists without the true item: AUC at least {AUC}"
    block = (card["outside"] or {}).get("auc")
    return _reaches(name, block, AUC, lambda b: interval(b, ".3f"))


def _ladder(card: Mapping[str, Any]) -> Bar:
    name = "none of these falls at every step from random lists to those with the true item"
    steps = (card["outside"] or {}).get("ladder") or []
    if len(steps) < 2:
        return Bar(name, "", None)
    shown = ", ".join(f"{100 * step['p_none']['mean']:.1f}" for step in steps)
    left = [
        f"from {before['lists']} to {after['lists']}"
        for before, after in pairwise(steps)
        if fall(before, after) != BETTER
    ]
    also = f"; not shown {listing(left)}" if left else ""
    return Bar(name, f"{shown} %{also}", not left)


def _reaches(name: str, block: Block | None, bound: float, text: Callable[[Block], str]) -> Bar:
    if not block or block["mean"] is None:
        return Bar(name, "", None)
    return Bar(name, text(block), block["mean"] >= bound, _one_sided(block, bound))


def _stays(name: str, block: Block | None, bound: float, text: Callable[[Block], str]) -> Bar:
    if not block or block["mean"] is None:
        return Bar(name, "", None)
    return Bar(name, text(block), block["mean"] <= bound, _one_sided(block, bound))


def _one_sided(block: Block, bound: float) -> bool:
    """Whether the interval does not hold the bound.  What never changes has none, and is sure."""
    if block["low"] is None or block["high"] is None:
        return abs(block["mean"]) < _ROUNDING
    return not block["low"] < bound < block["high"]
