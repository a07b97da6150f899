"""Logged runs come out the same without their simulator, and changed logs do not pass."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from usermirror_gym.benchmark.replay import replay
from usermirror_gym.benchmark.run import BenchmarkConfig, run_benchmark
from usermirror_gym.cli import app
from usermirror_gym.errors import RunError
from usermirror_gym.files import read_jsonl, write_jsonl
from usermirror_gym.simulators import PopularityChooser


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    config = BenchmarkConfig(
        agents=("Random", "Pop"), users=5, steps=6, patience=2, simulator="popularity",
        reward="expected_click", fidelity_scenes=0, batch_size=2,
    )  # fmt: skip
    run_benchmark(config, folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run that may be changed."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def change(run: Path, line: int, **values: object) -> dict:
    rows = read_jsonl(run / "episodes.jsonl")
    rows[line] |= values
    write_jsonl(run / "episodes.jsonl", rows)
    return rows[line]


def test_everything_comes_out_as_logged_and_nobody_is_asked(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PopularityChooser, "choose", lambda *_: 1 / 0)
    rows = read_jsonl(finished / "episodes.jsonl")
    assert any(row["terminated"] for row in rows)  # sessions of different lengths
    assert any(row["truncated"] for row in rows)
    found = replay(finished)
    assert (found.agents, found.episodes, found.steps) == (2, 10, len(rows))
    assert found.differences == ()


@pytest.mark.parametrize(
    "values", [{"reward": 0.123}, {"choice": 0, "item": 9}, {"rating": 2.75}, {"truncated": True}]
)
def test_a_step_that_was_changed_is_named(run: Path, values: dict) -> None:
    row = change(run, 7, **values)
    found = replay(run).differences
    assert {difference.name for difference in found} <= set(values)
    where = f"{row['agent']}, episode {row['episode']}, step {row['step']}: "
    assert all(str(difference).startswith(where) for difference in found)
    assert "in the log and" in str(found[0])


def test_another_list_earns_another_choice(run: Path) -> None:
    rows = read_jsonl(run / "episodes.jsonl")
    line = next(i for i, row in enumerate(rows) if row["choice"] == 0)
    change(run, line, slate=rows[line]["slate"][::-1])
    assert "item" in {difference.name for difference in replay(run).differences}


def test_other_answers_do_not_pass(run: Path) -> None:
    rows = read_jsonl(run / "episodes.jsonl")
    line = next(i for i, row in enumerate(rows) if row["choice"] == 5 and not row["terminated"])
    change(run, line, probabilities=[1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    found = replay(run).differences
    assert [d.name for d in found][:2] == ["choice", "item"]
    assert found[0].replayed == 0


def test_sessions_that_end_otherwise_are_named(run: Path) -> None:
    rows = read_jsonl(run / "episodes.jsonl")
    line = next(i for i, row in enumerate(rows) if row["terminated"] and row["step"] < 5)
    change(run, line, probabilities=[1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    with pytest.raises(RunError, match="sessions go on, and the log has"):
        replay(run)


def test_sessions_that_all_end_before_the_log_are_named(run: Path) -> None:
    for line in range(len(read_jsonl(run / "episodes.jsonl"))):
        change(run, line, probabilities=[0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    with pytest.raises(RunError, match="Random: all sessions end after 10 steps, and the log has"):
        replay(run)


def test_cut_and_foreign_logs_are_refused(run: Path, tmp_path: Path) -> None:
    rows = read_jsonl(run / "episodes.jsonl")
    write_jsonl(run / "episodes.jsonl", rows[1:])
    with pytest.raises(RunError, match=r"line 1: step 1 of episode 0 .* where step 0 must be"):
        replay(run)
    last = max(i for i, row in enumerate(rows) if row["agent"] == "Random")
    write_jsonl(run / "episodes.jsonl", [row for i, row in enumerate(rows) if i != last])
    with pytest.raises(RunError, match=r"Random: at step \d sessions go|Random: at step \d+ \d+"):
        replay(run)
    write_jsonl(run / "episodes.jsonl", [{"agent": "Pop"}])
    with pytest.raises(RunError, match="line 1: a step without user_id"):
        replay(run)
    write_jsonl(run / "episodes.jsonl", [7])
    with pytest.raises(RunError, match="line 1: a step without user_id"):
        replay(run)
    write_jsonl(run / "episodes.jsonl", [rows[0] | {"slate": [1, 2]}])
    with pytest.raises(RunError, match=r"line 1: slate is \[1, 2\], and must be 5 numbers"):
        replay(run)
    with pytest.raises(RunError, match=r"no run\.json: name the folder"):
        replay(tmp_path)
    (run / "run.json").write_text(json.dumps({"agents": [], "colour": "red"}))
    with pytest.raises(RunError, match=r"run\.json does not hold the settings of a benchmark"):
        replay(run)


def test_the_command_says_how_it_went(run: Path) -> None:
    good = CliRunner().invoke(app, ["replay", str(run)])
    assert good.exit_code == 0, good.output
    assert "all as logged" in good.output
    change(run, 3, reward=0.5)
    bad = CliRunner().invoke(app, ["replay", str(run)])
    assert bad.exit_code == 1
    assert "reward is 0.5 in the log" in " ".join(bad.output.split())
    assert "NOT as logged" in bad.output
    missing = CliRunner().invoke(app, ["replay", "nowhere"])
    assert missing.exit_code == 1
    assert "Traceback" not in missing.output
