"""The main job with the real model, at the smallest size."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from usermirror_gym.cli import app
from usermirror_gym.files import read_json, read_jsonl

pytestmark = pytest.mark.slow


def test_benchmark_with_the_default_user(tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = CliRunner().invoke(
        app,
        ["benchmark", "--agents", "Random,Pop,EASE", "--users", "3", "--steps", "3",
         "--fidelity-scenes", "12", "--out", str(out)],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "EASE" in result.output
    assert "Fidelity (12 real choices)" in " ".join(result.output.split())
    steps = read_jsonl(out / "episodes.jsonl")
    assert all("smollm2" in step["simulator"] for step in steps)
    later = [step for step in steps if step["step"] > 0]
    assert all(step["cached_tokens"] > 0 for step in later)
    timing = read_json(out / "results.json")["timing"]
    assert timing["engine_seconds"] > 0.5 * timing["env_step_seconds"]
    assert (
        "SmolLM2" in (out / "report.html").read_text()
        or "smollm2" in (out / "report.html").read_text()
    )
