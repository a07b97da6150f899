"""``usermirror train`` as it is typed."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from usermirror_gym.cli import app
from usermirror_gym.train.config import TrainConfig
from usermirror_gym.train.estimate import StageEstimate


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command asks for; the training itself is tested elsewhere."""
    calls: dict[str, Any] = {}

    def train(config: TrainConfig, folder: Path, **kwargs: Any) -> Path:
        calls.update(what="train", config=config, folder=folder)
        return folder / "checkpoint"

    def estimate(config: TrainConfig, folder: Path, **kwargs: Any) -> list[StageEstimate]:
        calls.update(what="estimate", config=config, folder=folder)
        return [StageEstimate("next_item", 9_000, 80_000, 1_125, 2_000_000, 3_700.2, 61.0)]

    monkeypatch.setattr("usermirror_gym.train.run.train", train)
    monkeypatch.setattr("usermirror_gym.train.estimate.estimate_training", estimate)
    return calls


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["train", *words])


def test_settings_and_folder_reach_the_run(called: dict[str, Any], tmp_path: Path) -> None:
    result = run(
        "--config", "smollm2-ml100k-next-item", "--set", "stages.0.epochs=0.5",
        "--set", "lora=null", "--out", str(tmp_path),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert called["what"] == "train"
    assert called["config"].stages[0].epochs == 0.5
    assert called["config"].lora is None
    assert f"usermirror benchmark --simulator {tmp_path / 'checkpoint'}" in result.output


def test_the_next_command_can_be_pasted_as_it_is(called: dict[str, Any], tmp_path: Path) -> None:
    result = run("--config", "smollm2-ml100k", "--out", str(tmp_path / "my runs"))
    line = next(line for line in result.output.splitlines() if line.startswith("usermirror "))
    words = ["usermirror", "benchmark", "--simulator", str(tmp_path / "my runs" / "checkpoint")]
    assert shlex.split(line) == words


def test_the_folder_is_named_after_the_recipe(called: dict[str, Any]) -> None:
    assert run("--config", "configs/train/smollm2-ml100k.yaml").exit_code == 0
    assert called["folder"] == Path("runs/smollm2-ml100k")


def test_a_dry_run_says_what_it_takes(called: dict[str, Any]) -> None:
    result = run("--config", "smollm2-ml100k", "--dry-run")
    assert called["what"] == "estimate"
    for words in ("9,000 examples", "80,000 labels", "2,000,000 tokens", "1:01:41 of training"):
        assert words in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "smollm-ml100k"], "Did you mean 'smollm2-ml100k'"),
        (
            ["--config", "smollm2-ml100k-next-item", "--set", "stages.0.epoch=1"],
            "'stages.0.epochs'",
        ),
        (["--config", "nowhere.yaml"], "there is no file nowhere.yaml"),
        (["--config", "smollm2-ml100k-next-item", "--set", "seed"], "--set takes name=value"),
    ],
)
def test_mistakes_end_with_one_message(
    called: dict[str, Any], words: list[str], message: str
) -> None:
    result = run(*words)
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
    assert called == {}
