"""``usermirror transfer`` as it is typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from usermirror_gym.cli import app
from usermirror_gym.experiments.transfer.run import TransferConfig


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command asks for; the experiment itself is tested elsewhere."""
    calls: dict[str, Any] = {}

    def run(config: TransferConfig, folder: Path, **kwargs: Any) -> dict[str, Any]:
        calls.update(config=config, folder=folder)
        return {}

    monkeypatch.setattr("usermirror_gym.experiments.transfer.run.run_transfer", run)
    monkeypatch.setattr(
        "usermirror_gym.experiments.transfer.report.sentences",
        lambda results: ["It does [so far]."],
    )
    return calls


def test_settings_and_folder_reach_the_run(called: dict[str, Any], tmp_path: Path) -> None:
    words = [
        "--learners", "climber, climber-items", "--models", "EASE, ItemKNN(k=20, shrink=0)",
        "--worlds", "neighbours:0,factors:1", "--truth", "satiation=0",
        "--log", "lists=50", "--set", "affinity.rank=16", "--users", "40", "--out", str(tmp_path),
    ]  # fmt: skip
    result = CliRunner().invoke(app, ["transfer", *words])
    assert result.exit_code == 0, result.output
    config = called["config"]
    assert config.learners == ("climber", "climber-items")
    assert config.models == ("EASE", "ItemKNN(k=20, shrink=0)")
    assert config.worlds == ("neighbours:0", "factors:1")
    assert (config.truth, config.log) == ({"satiation": 0}, {"lists": 50})
    assert config.recipe_settings == {"affinity.rank": 16}
    assert (config.users, called["folder"]) == (40, tmp_path)
    assert "- It does [so far]." in result.output
    assert str(tmp_path / "report.html") in result.output.replace("\n", "")


def test_a_mistake_is_one_line(called: dict[str, Any]) -> None:
    result = CliRunner().invoke(app, ["transfer", "--truth", "temperature=0"])
    assert result.exit_code != 0
    assert "temperature must be a number above 0, got 0" in result.output
    assert "Traceback" not in result.output
    assert not called
