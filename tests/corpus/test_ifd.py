"""Instruction-following difficulty by hand, resumed, and of answers that do not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from usermirror_gym.corpus.selection.ifd import ifd, score_answers
from usermirror_gym.errors import DataError, RunError
from usermirror_gym.progress import Display

QUIET = Display(quiet=True)


def test_by_hand() -> None:
    # Perplexities with the question 2 and 4, without it 8 and 2.
    given, alone = np.log([0.5**2, 0.25]), np.log([0.125**2, 0.5])
    assert ifd(given, alone, np.array([2, 1])) == pytest.approx([0.25, 2.0])


@pytest.mark.parametrize(
    ("given", "alone", "tokens", "message"),
    [
        (0.5, -1.0, 1, "at most 0, got -1.0 .. 0.5"),
        (-np.inf, -1.0, 1, "finite"),
        (-1.0, np.nan, 1, "finite"),
        (-1.0, -1.0, 0, "has 0 tokens"),
    ],
)
def test_what_is_no_log_probability_is_refused(
    given: float, alone: float, tokens: int, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        ifd(np.array([given]), np.array([alone]), np.array([tokens]))


def test_goes_on_where_it_was_and_answers_that_do_not_fit_have_no_value(
    scripted, tmp_path: Path
) -> None:
    scenes, builder, engine = (
        scripted.make_scenes(20),
        scripted.make_builder(),
        scripted.ScriptedEngine(),
    )
    answers = {s.name: f"I like number {i}." for i, s in enumerate(scenes) if i != 4}
    answers["s007"] = "word " * 100_000
    engine.count_tokens = lambda prompt: sum(len(option) for option in prompt.options)
    path = tmp_path / "ifd.jsonl"
    found = score_answers(scenes, builder, engine, answers, path, display=QUIET)
    assert found.keys() == answers.keys() - {"s007"}
    assert all(0 < value <= 1 for value in found.values())
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    assert json.loads(lines[1 + 6])["error"].startswith("scene: s007: the list and the session")
    path.write_bytes(b"".join(lines[:12]) + lines[12][:9])  # killed in the middle of a batch
    assert score_answers(scenes, builder, engine, answers, path, display=QUIET) == found
    assert path.read_bytes() == whole
    other = replace(scenes[0], name="s099")
    with pytest.raises(RunError, match="was begun differently"):
        score_answers([other, *scenes], builder, engine, {**answers, "s099": "x"}, path,
                      display=QUIET)  # fmt: skip
