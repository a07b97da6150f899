"""``usermirror train-surrogate`` and ``usermirror train-agent`` as they are typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from usermirror_gym.cli import app
from usermirror_gym.files import read_jsonl
from usermirror_gym.progress import Display
from usermirror_gym.testing.data import tiny_split
from usermirror_gym.train.surrogate.config import SurrogateConfig

QUICK = ("--steps", "80", "--users", "10", "--horizon", "4", "--eval-users", "6", "--eval-every",
         "1", "--agent-set", "d=8")  # fmt: skip


def run(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def test_an_agent_is_trained_in_the_shipped_surrogate(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    result = run("train-agent", "--algo", "LinUCB", "--no-monitor", "--out", str(folder), *QUICK)
    assert result.exit_code == 0, result.output
    assert f"usermirror benchmark --agents Random,Pop,{folder / 'agent'}" in result.output
    rows = read_jsonl(folder / "curve.jsonl")
    assert [row["steps"] for row in rows] == [0, 40, 80]
    assert json.loads((folder / "config.json").read_text())["simulator"] == "surrogate"
    judged = run("benchmark", "--simulator", "popularity", "--agents", f"Pop,{folder}", "--users",
                 "4", "--steps", "2", "--out", str(tmp_path / "bench"))  # fmt: skip
    assert judged.exit_code == 0, judged.output
    assert "LinUCB@mine" in judged.output


def test_the_evaluating_simulator_is_asked(tmp_path: Path) -> None:
    result = run(
        "train-agent", "--algo", "thompson", "--simulator", "uniform", "--eval-simulator",
        "popularity", "--llm-users", "3", "--out", str(tmp_path / "run"), *QUICK,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = read_jsonl(tmp_path / "run" / "curve.jsonl")
    assert "llm" in rows[0]
    assert "llm" in rows[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--algo", "sac"), "algo"),
        (("--algo", "linucb", "--simulator", "surogate"), "Did you mean 'surrogate'"),
        (("--algo", "linucb", "--agent-set", "widht=1"), "Did you mean 'width'"),
        (("--algo", "linucb", "--reward", "clicks"), "Did you mean 'click'"),
        (("--algo", "linucb", "--set", "outside=1"), "no option outside"),
    ],
)
def test_mistakes_are_named(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    result = run("train-agent", *words, "--out", str(tmp_path / "run"), "--no-monitor", *QUICK)
    assert result.exit_code != 0
    assert said in " ".join(result.output.split()), result.output
    assert "Traceback" not in result.output


def test_a_distillation_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: dict[str, Any] = {}

    def train(config: SurrogateConfig, folder: Path, *, display: Display) -> Path:
        called.update(config=config, folder=folder)
        return folder / "checkpoint"

    monkeypatch.setattr("usermirror_gym.train.surrogate.distil.train_surrogate", train)
    result = run("train-surrogate", "--set", "questions.total=500", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert called["config"].questions.total == 500
    assert called["config"].teacher == "smollm2-ml100k"
    assert f"--simulator {tmp_path / 'checkpoint'}" in result.output


def test_a_surrogate_of_a_simple_simulator_trains_an_agent(tmp_path: Path) -> None:
    """From the one command to the other, with the monitor at work."""
    made = run(
        "train-surrogate", "--out", str(tmp_path / "s"), "--set", "teacher=popularity",
        "--set", "questions.total=400", "--set", "questions.agents=[Random, Pop]",
        "--set", "questions.strangers=[]", "--set", "fit.epochs=2",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    surrogate = tmp_path / "s" / "checkpoint"
    result = run("train-agent", "--algo", "linucb", "--simulator", str(surrogate), "--out",
                 str(tmp_path / "a"), *QUICK)  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = read_jsonl(tmp_path / "a" / "curve.jsonl")
    assert all(row["monitor_lists"] > 0 for row in rows[1:])


def test_another_catalogue_is_refused() -> None:
    from usermirror_gym.errors import ConfigError
    from usermirror_gym.simulators import make_simulator

    with pytest.raises(ConfigError, match="1,682 items"):
        make_simulator("surrogate", tiny_split())
