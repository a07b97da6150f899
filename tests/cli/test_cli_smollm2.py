"""The main job with the real model, at the smallest size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from usermirror_gym.cli import app
from usermirror_gym.files import read_json, read_jsonl

pytestmark = pytest.mark.slow


SMALL = ["--agents", "Random,Pop,EASE", "--users", "3", "--steps", "3", "--fidelity-scenes", "12"]


def benchmark(out: Path, *options: str) -> list[dict]:
    result = CliRunner().invoke(app, ["benchmark", *SMALL, "--out", str(out), *options])
    assert result.exit_code == 0, result.output
    assert "EASE" in result.output
    assert "Fidelity (12 real choices)" in " ".join(result.output.split())
    assert "smollm2" in (out / "report.html").read_text().lower()
    return read_jsonl(out / "episodes.jsonl")


def test_benchmark_with_the_default_user(tmp_path: Path) -> None:
    steps = benchmark(tmp_path / "run")
    assert all(step["simulator"].startswith("affinity(smollm2") for step in steps)
    # Every film is read once, whoever shows it and however often: 50 tokens are a long line.
    shown = {item for step in steps for item in step["slate"]}
    remembered = 10 * len({step["user_id"] for step in steps})
    assert sum(step["prompt_tokens"] for step in steps) < 50 * (len(shown) + remembered)
    assert np.std([step["probabilities"][0] for step in steps]) > 0.01


def test_benchmark_by_likelihood_reuses_what_was_computed(tmp_path: Path) -> None:
    steps = benchmark(tmp_path / "run", "--simulator", "smollm2-likelihood")
    later = [step for step in steps if step["step"] > 0]
    assert all(step["cached_tokens"] > 0 for step in later)
    timing = read_json(tmp_path / "run" / "results.json")["timing"]
    assert timing["engine_seconds"] > 0.5 * timing["env_step_seconds"]
