"""The checks of the fidelity card, one file each (:class:`~.base.Check` says what it holds)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from usermirror_gym.fidelity.checks.base import Card, Check, Context
from usermirror_gym.fidelity.checks.calibration import Calibration
from usermirror_gym.fidelity.checks.diversity import Diversity
from usermirror_gym.fidelity.checks.history import History
from usermirror_gym.fidelity.checks.inputs import Inputs
from usermirror_gym.fidelity.checks.order import Order
from usermirror_gym.fidelity.checks.outside_option import OutsideOption
from usermirror_gym.fidelity.checks.populations import Populations
from usermirror_gym.fidelity.checks.scores import Scores
from usermirror_gym.fidelity.checks.slices import Slices
from usermirror_gym.fidelity.checks.text_attacks import TextAttacks

CHECKS: list[Check] = [
    Populations(), Scores(), History(), Inputs(), Calibration(), Diversity(), Slices(),
    OutsideOption(), Order(), TextAttacks(),
]  # fmt: skip
"""In the order in which they are run and shown; one's own are appended."""


def run_checks(context: Context, checks: Sequence[Check] = CHECKS) -> dict[str, Any]:
    """What the checks say of everybody who answered (``choosers``), and what else they find."""
    card: dict[str, Any] = {
        "choosers": [
            {"name": row.name, "kind": row.kind, "seconds": row.seconds} for row in context.answered
        ]
    }
    for check in checks:
        found = check.run(context)
        for entry, more in zip(card["choosers"], found.pop("choosers", ())):  # noqa: B905 (or none)
            entry |= more
        card |= found
    return card


def criteria(card: Card) -> list[dict[str, Any]]:
    """What must hold, as dictionaries (see :class:`~.base.Criterion`)."""
    # What is asked of *none of these* comes last.
    checks = sorted(CHECKS, key=lambda check: isinstance(check, OutsideOption))
    return [asdict(criterion) for check in checks for criterion in check.criteria(card)]


def sentences(card: Card) -> list[str]:
    """What the numbers of a card say, the most important first."""
    return [said for check in CHECKS for said in check.sentences(card) if said]
