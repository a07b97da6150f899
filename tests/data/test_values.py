"""Raw values: what is no plausible number, text or id is nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usermirror_gym.data.raw.raw_files import ReadLog
from usermirror_gym.data.raw.values import Numbers, csv_text, identifier, joined, number, text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("$1,299.00", 1299.0),
        ("12,345,678", 12345678.0),
        (" 4.5 ", 4.5),
        ("-3", -3.0),
        ("1e3", 1000.0),
        ("5.", 5.0),
        (7, 7.0),
        (0.0, 0.0),
        ("None", None),
        ("", None),
        ("Free To Play", None),
        ("from 12.99", None),
        ("1,2", None),
        ("12,34,567", None),
        ("1.299,00", None),
        ("1_000", None),
        ("٣", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("9" * 400, None),
        (10**400, None),
        (float("nan"), None),
        (float("-inf"), None),
        (True, None),
        ([1], None),
        (None, None),
    ],
)
def test_number(value: object, expected: float | None) -> None:
    assert number(value) == expected


def test_numbers_outside_their_bounds_are_nothing() -> None:
    assert [number(str(n), 1, 5) for n in (0, 1, 5, 6)] == [None, 1.0, 5.0, None]


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e200, max_value=1e200))
def test_a_number_survives_as_text(value: float) -> None:
    assert number(str(value)) == value


def test_only_values_that_were_given_are_counted() -> None:
    log = ReadLog()
    numbers = Numbers(Path("books.json"), log)
    for value in (None, "", "None", "nan", float("nan"), "12"):
        numbers.whole(1, "year", value, 0, 99)
    assert log.repairs == ()
    assert numbers.whole(2, "year", "0000", 1450, 2025) is None
    assert numbers.whole(3, "year", "1999.5") is None
    assert numbers.real(4, "price", "Third-party") is None
    assert [(r.kind, r.examples) for r in log.repairs] == [
        ("year that cannot be used, left empty", ("books.json:2 0000", "books.json:3 1999.5")),
        ("price that cannot be used, left empty", ("books.json:4 Third-party",)),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(" a\n", "a"), ("  ", None), (None, None), (3, None), ("x" * 9000, "x" * 2000)],
)
def test_text(value: object, expected: str | None) -> None:
    assert text(value) == expected


def test_text_can_always_be_stored() -> None:
    assert text("a\ud800b \ud83d\ude00") == "a?b 😀"


def test_csv_text_knows_the_words_for_nothing() -> None:
    assert [csv_text(v) for v in ("None", " nan", "", "Nano")] == [None, None, None, "Nano"]


def test_joined() -> None:
    assert joined(["a", " b ", "", None, 3]) == "a, b"
    assert joined([]) is None
    assert joined("Valve") == "Valve"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(7, "7"), (7.0, "7"), (" 7", "7"), ("007", "007"), (7.5, None), (True, None), ("", None),
     (float("nan"), None), (float("inf"), None)],
)  # fmt: skip
def test_identifier(value: object, expected: str | None) -> None:
    assert identifier(value) == expected
