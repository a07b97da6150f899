"""What the card says of how choices spread over the items."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.fidelity.fidelity_example import example_card
from tests.fidelity.test_scores import CHOICES, answers, context
from usermirror_gym.fidelity.checks.base import Answered
from usermirror_gym.fidelity.checks.diversity import Diversity
from usermirror_gym.fidelity.pages import render_markdown
from usermirror_gym.measures.spread import spread


def about(real: float) -> dict[str, dict[str, float]]:
    blocks = {"gini": 0.5, "entropy": 3.0, "coverage": 0.4}
    return {
        n: {"mean": v, "low": v - 0.1, "high": v + 0.1, "real": real} for n, v in blocks.items()
    }


def test_everybody_is_set_beside_what_was_really_taken() -> None:
    rows = [
        Answered("good", "simulator", answers(2.0)),
        Answered("forced", "classic", np.eye(5)[np.zeros(len(CHOICES), np.int64)]),
    ]
    found = Diversity().run(context(rows))["choosers"]
    assert [entry["spread"] for entry in found] == [spread(row.probs, CHOICES) for row in rows]


@pytest.mark.parametrize(
    ("real", "words"),
    [
        (0.3, "It takes fewer items more often than real users do (Gini 0.500 [0.400, 0.600] for "
         "0.300, entropy 3.00 [2.90, 3.10] for 0.30, coverage 40.0 [30.0, 50.0] % for 30.0 %)."),
        (0.55, "Its choices spread over the items like the real ones ("),
        (0.7, "It spreads its choices more evenly than real users do ("),
    ],
)  # fmt: skip
def test_what_is_said_of_the_spread(real: float, words: str) -> None:
    card = example_card()
    card["choosers"][0]["spread"] = about(real)
    assert Diversity().sentences(card)[0].startswith(words)
    (table,) = Diversity().tables(card)
    assert table is not None
    assert table.strong == 1
    truth, mine = ([cell.marked for cell in row] for row in table.rows)
    assert truth[0] == "real users"
    assert truth[2:] == [f"{real:.3f}", f"{real:.2f}", f"{100 * real:.1f}"]
    # What chance does not explain is marked.
    assert mine[:2] == ["smollm2-ml100k", "this simulator"]
    assert mine[2] == "0.500 [0.400, 0.600]" + (" ◆" if real != 0.55 else "")
    assert "## What is taken, over all lists" in render_markdown(card)


def test_cards_of_earlier_versions_have_no_spread() -> None:
    card: dict[str, Any] = example_card()
    assert Diversity().sentences(card) == []
    assert Diversity().tables(card) == []
