"""The runner of random faults: what it sees, and that the commands survive a few."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from usermirror_gym.files import write_json, write_jsonl, write_text

SOURCES = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def runner() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SOURCES / "benchmarks"))
        import faults
        from fault_tries import inputs, outcome

        yield SimpleNamespace(faults=faults, inputs=inputs, outcome=outcome)


def tried(out: Path, *words: str) -> dict[str, Any]:
    path = out / "faults.json"
    done = subprocess.run(
        [sys.executable, str(SOURCES / "benchmarks" / "faults.py"), "--work", str(out / "work"),
         "--json", str(path), *words],
        capture_output=True, text=True, cwd=SOURCES,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(path.read_text())
    assert f"{found['survived']} faults survived of {found['tried']} faults tried" in done.stdout
    return found


def test_two_faults_in_the_quickest_command_are_survived(tmp_path: Path) -> None:
    found = tried(
        tmp_path, "--tries", "2", "--commands", "evaluate", "--faults", "kill,second", "--seed", "1"
    )
    assert found["survived"] == found["tried"] == 2
    assert {one["command"] for one in found["tries"]} == {"evaluate"}
    assert found["versions"]["usermirror-gym"]
    assert found["undisturbed_seconds"]["evaluate"] > 0


@pytest.mark.slow
def test_eight_faults_in_any_command_are_survived(tmp_path: Path) -> None:
    found = tried(tmp_path, "--tries", "8", "--seed", "2")
    assert found["survived"] == 8


def test_every_command_and_fault_is_known(runner: Any) -> None:
    for name, known in (("commands", "benchmark"), ("faults", "kill")):
        done = subprocess.run(
            [sys.executable, str(SOURCES / "benchmarks" / "faults.py"), f"--{name}", "nothing"],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 1
        assert "unknown" in done.stderr
        assert known in done.stderr


def filled(folder: Path, seconds: float, *, reward: float = 1.0) -> Path:
    """A folder like those of runs, in which something took so long."""
    write_json(folder / "results.json", {"timing": {"user_steps": seconds}, "reward": reward})
    write_json(folder / "agents" / "agent.json", {"fit_seconds": seconds})
    write_jsonl(folder / "episodes.jsonl", [{"step": 0, "seconds": seconds}])
    write_text(folder / "card.html", f"<dt>seconds in all</dt><dd>{seconds}</dd><p>{reward}</p>")
    write_text(
        folder / "README.md", f"| a | minutes |\n| - | {'-' * int(seconds)} |\n| 1 | {seconds} |"
    )
    np.savez(folder / "answers.npz", probs=[reward], seconds=[seconds])
    (folder / ".lock").touch()
    return folder


def test_times_are_no_difference_and_everything_else_is(runner: Any, tmp_path: Path) -> None:
    contents = lambda folder: runner.outcome.contents(folder, without=("in",))  # noqa: E731
    calm = contents(filled(tmp_path / "calm", 9.0))
    assert contents(filled(tmp_path / "late", 71.25)) == calm
    other = contents(filled(tmp_path / "other", 9.0, reward=0.5))
    changed = {name for name in calm if other[name] != calm[name]}
    assert changed == {"results.json", "card.html", "answers.npz"}
    (tmp_path / "late" / ".x.json.7.tmp").touch()
    (tmp_path / "late" / "agents" / "agent.json").unlink()
    assert runner.outcome.unfinished(tmp_path / "late") == [".x.json.7.tmp"]
    assert runner.outcome.differences(contents(tmp_path / "late"), calm) == [
        "agents/agent.json is missing", ".x.json.7.tmp is too many",
    ]  # fmt: skip


def test_a_step_that_stands_twice_in_a_log_is_seen(runner: Any, tmp_path: Path) -> None:
    rows = [{"agent": "Pop", "episode": 1, "step": step} for step in (0, 1, 1)]
    write_jsonl(tmp_path / "episodes.jsonl", rows)
    assert runner.outcome.played_twice(tmp_path) == ["Pop, episode 1, step 1"]


@pytest.mark.parametrize(
    ("status", "text", "survived"),
    [
        (0, "report.html", True), (1, "Error: run.json: other settings", True), (1, "oh", False),
        (0, "Traceback (most recent call last):", False), (-11, "", False), (130, "", False),
    ],
)  # fmt: skip
def test_how_a_command_may_end(runner: Any, status: int, text: str, survived: bool) -> None:
    ended = runner.faults.Ended(status, text)
    if survived:
        assert ended.check(0, 1) is ended
        return
    with pytest.raises(runner.faults.NotSurvived):
        ended.check(0, 1)


def test_a_change_changes_its_input_alone(runner: Any, tmp_path: Path) -> None:
    runner.inputs.write_inputs(tmp_path / "in")
    content = lambda: runner.outcome.contents(tmp_path, without=())  # noqa: E731
    before = content()
    touched = {
        "data": {"in/log.csv"}, "agent": {"in/agent/agent.safetensors"},
        "simulator": {"in/llm/model.safetensors", "in/user/model.safetensors"},
    }  # fmt: skip
    assert touched.keys() == runner.inputs.CHANGES.keys()
    for name, files in touched.items():
        change, _ = runner.inputs.CHANGES[name]
        change(tmp_path / "in")
        after = content()
        assert {file for file in before if after[file] != before[file]} == files
        before = after
