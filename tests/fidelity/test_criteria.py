"""What must hold of a simulated user: each criterion met, missed, uncertain, not measured."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from usermirror_gym.fidelity.checks import criteria
from usermirror_gym.fidelity.checks.base import Criterion
from usermirror_gym.fidelity.pages import (
    count,
    criteria_lines,
    criteria_table,
    figures,
    render_html,
    render_markdown,
)

spec = importlib.util.spec_from_file_location(
    "fidelity_example_bars", Path(__file__).with_name("fidelity_example.py")
)
assert spec is not None
assert spec.loader is not None
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)
block = example.block
Card = dict[str, Any]


@pytest.fixture
def card() -> Card:
    return example.example_card()


def criterion(card: Card, start: str) -> Criterion:
    (found,) = [Criterion(**b) for b in criteria(card) if b["name"].startswith(start)]
    return found


def answer(card: Card, start: str) -> str:
    return criterion(card, start).answer


def test_there_are_eight_and_the_card_counts_them(card: Card) -> None:
    assert [b.answer for b in (Criterion(**b) for b in card["bars"])] == [
        "yes", "no", "yes", "yes", "yes", "yes, not certain", "yes", "yes",
    ]  # fmt: skip
    assert count(card) == "7 of 8"
    assert ("of what must hold", "7 of 8") in figures(card)


def test_controls_and_classic_choosers_are_beaten_in_both_scores_or_named(card: Card) -> None:
    controls = criterion(card, "beats every control")
    assert controls.measured.startswith("4 of 4; nearest: list only (+11.0 [+9.5, +12.5] points")
    classic = criterion(card, "beats every classic")
    assert classic.measured.startswith("5 of 7; not: ItemKNN (+0.7")
    assert "EASE (-0.9" in classic.measured
    assert "stack" not in classic.measured  # it is no rival
    for pair in card["paired"]:
        if pair["against"] in ("ItemKNN", "EASE"):
            pair |= {"accuracy": block(0.02, 0.01), "log_loss": block(-0.02, 0.01)}
    assert answer(card, "beats every classic") == "yes"
    pair["accuracy"] = block(-0.5)  # the stack, the last one
    assert answer(card, "beats every classic") == "yes"


def test_without_classic_choosers_nobody_is_beaten(card: Card) -> None:
    card["choosers"] = [c for c in card["choosers"] if c["kind"] != "classic"]
    assert answer(card, "beats every classic") == "not measured"


def shown(card: Card, place: str, value: Any) -> None:
    card["choosers"][0][place] = value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (block(0.13, 0.02), "yes"), (block(0.09, 0.02), "yes, not certain"),
        (block(0.07, 0.02), "no, not certain"), (block(0.03, 0.02), "no"),
        (block(0.0, None), "no"),  # it never looks at the history
        (block(0.1, None), "yes, not certain"), (None, "not measured"),
    ],
)  # fmt: skip
def test_the_worth_of_a_history(card: Card, value: Any, expected: str) -> None:
    card["history"] = value and {"accuracy": value, "log_loss": block(-0.1)}
    assert answer(card, "own history") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (block(0.01, 0.01), "yes"), (block(0.03, 0.01), "yes, not certain"),
        (block(0.04, 0.02), "no, not certain"), (block(0.06, 0.02), "no"),
        (block(0.0, None), "yes"),
    ],
)  # fmt: skip
def test_the_calibration_error(card: Card, value: Any, expected: str) -> None:
    shown(card, "calibration", {"ece": value})
    assert answer(card, "calibration error") == expected
    shown(card, "calibration", {"ece": value, "if_calibrated": {"mean": 0.02, "high": 0.033}})
    assert "chance alone gives up to 0.033" in criterion(card, "calibration error").measured
    shown(card, "calibration", None)
    assert answer(card, "calibration error") == "not measured"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(block(0.02, 0.01), "yes"), (block(0.055, 0.01), "no, not certain"), (block(0.2), "no"),
     (block(0.0, None), "yes")],
)  # fmt: skip
def test_the_order_of_the_list(card: Card, value: Any, expected: str) -> None:
    card["order"]["mean_change"] = value
    assert answer(card, "permuting") == expected
    card["order"] = None
    assert answer(card, "permuting") == "not measured"


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ([block(0.25, 0.005), block(0.245, 0.005), block(0.255, 0.005), block(0.25, 0.005)], "yes"),
        # The farthest place is sure, another one is not.
        ([block(0.268, 0.001), block(0.235, 0.01), block(0.25), block(0.247, 0.001)],
         "yes, not certain"),
        ([block(0.28, 0.02), block(0.24, 0.005), block(0.24, 0.005), block(0.24, 0.005)],
         "no, not certain"),
        ([block(0.34, 0.02), block(0.22, 0.02), block(0.22, 0.02), block(0.22, 0.02)], "no"),
        ([block(0.25, None)] * 4, "yes"),
        ([block(0.26, None), block(0.24, None), block(0.25, None), block(0.25, None)],
         "yes, not certain"),
        ([], "not measured"),
    ],
)  # fmt: skip
def test_places_of_the_list(card: Card, shares: list, expected: str) -> None:
    shown(card, "positions", shares)
    assert answer(card, "every place") == expected


def test_the_farthest_place_is_named(card: Card) -> None:
    measured = criterion(card, "every place").measured
    assert measured == "farthest from 20.0 %: number 4, 18.9 [17.7, 20.1] %"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(block(0.8), "yes"), (block(0.76), "yes, not certain"), (block(0.7), "no"),
     (None, "not measured")],
)  # fmt: skip
def test_telling_lists_without_the_true_item(card: Card, value: Any, expected: str) -> None:
    card["outside"]["auc"] = value
    assert answer(card, "none of these tells") == expected


def test_a_user_that_never_leaves_has_no_answer_to_lists_of_nothing(card: Card) -> None:
    card["outside"] = None
    assert answer(card, "none of these tells") == "not measured"
    assert answer(card, "none of these falls") == "not measured"


def test_every_step_of_the_ladder_must_be_shown(card: Card) -> None:
    assert criterion(card, "none of these falls").measured == "31.0, 24.0, 17.0, 8.0 %"
    steps = card["outside"]["ladder"]
    steps[2]["fall"] = block(0.01, 0.02)
    found = criterion(card, "none of these falls")
    assert found.met is False
    assert found.measured.endswith("; not shown from popular to collaborative")


def test_all_three_forms_show_them(card: Card) -> None:
    markdown, page = render_markdown(card), render_html(card)
    lines = [line.plain for line in criteria_lines(card)]
    assert lines[0] == "What must hold: 7 of 8 do"
    for text in (markdown, page):
        assert "What must hold: 7 of 8 do" in text
    for b in card["bars"]:
        assert any(b["name"] in line and b["measured"] in line for line in lines)
        assert b["measured"] in markdown
    assert [row[1].marked for row in criteria_table(card).rows][:2] == ["yes ✓", "no ✗"]
    assert page.count('class="mark missed"') == 1
