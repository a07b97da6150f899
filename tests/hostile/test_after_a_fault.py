"""Whatever happened to a folder: the next run goes on to the same result, or says what is wrong."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from usermirror_gym.agents.recbole.agent import RecBoleAgent
from usermirror_gym.benchmark import run as run_module
from usermirror_gym.benchmark.run import BenchmarkConfig, run_benchmark
from usermirror_gym.cli.options import plain_errors
from usermirror_gym.envs import make_world
from usermirror_gym.errors import CheckpointError
from usermirror_gym.fidelity.answers import answer
from usermirror_gym.fidelity.baselines.controls import HistoryHidden
from usermirror_gym.files import disk_is_full, read_jsonl, replacing, write_text
from usermirror_gym.scenes import Scene
from usermirror_gym.simulators import ChoiceBatch
from usermirror_gym.simulators.recording import RecordingSimulator
from usermirror_gym.testing.data import tiny_split

SMALL = BenchmarkConfig(
    agents=("Random", "Pop"), users=6, steps=3, slate_size=3, fidelity_scenes=0, batch_size=2
)


class Moody:
    """Its last digits are those of its batch, and of what it was asked since it forgot: an LLM."""

    name = "moody"

    def __init__(self) -> None:
        self.asked, self.usage = 0, SimpleNamespace(seconds=0.0)

    @property
    def engine(self) -> Moody:
        return self

    def forget(self) -> None:
        self.asked = 0

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        self.asked += 1
        probs = np.ones((len(scenes), 1 + max(len(scene.slate) for scene in scenes)))
        probs[:, 0] += 1e-9 * len(scenes) + 1e-7 * self.asked
        return ChoiceBatch(probs / probs.sum(axis=1, keepdims=True))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a small benchmark with a new moody user, as a new process has one."""
    split = tiny_split()

    def run(folder: Path) -> None:
        monkeypatch.setattr(
            run_module, "make_world", lambda *a, **k: make_world(split, simulator=Moody())
        )
        run_benchmark(SMALL, folder)

    return run


def steps(folder: Path) -> list[dict[str, Any]]:
    rows = read_jsonl(folder / "episodes.jsonl")
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.mark.parametrize("lost", [("000001",), ("000002", "000003"), ("000000", "000005")])
def test_a_benchmark_goes_on_with_the_last_digits_of_an_undisturbed_one(
    run: Any, tmp_path: Path, lost: tuple[str, ...]
) -> None:
    """Killed between two parts, or while the episodes of one were being written."""
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    run(calm)
    shutil.copytree(calm, killed)
    (killed / "results.json").unlink()
    kept = {p: p.stat().st_mtime_ns for p in (killed / "episodes").rglob("*.jsonl")}
    for name in lost:
        gone = killed / "episodes" / "Pop" / f"{name}.jsonl"
        gone.unlink()
        del kept[gone]
    run(killed)
    assert steps(killed) == steps(calm)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_answers_of_a_card_do_not_depend_on_what_was_asked_before(tmp_path: Path) -> None:
    scenes = [Scene(user, (1,), (3.0,), (60,), (2, 3, 4)) for user in range(1, 9)]
    for wrapped in (lambda user: user, HistoryHidden, lambda user: RecordingSimulator(user, 3)):
        calm = answer(wrapped(Moody()), scenes, chunk=2).probs
        other = wrapped(Moody())
        for _ in range(3):
            other.choose(scenes)
        np.testing.assert_array_equal(answer(other, scenes, chunk=2).probs, calm)


def test_a_run_that_was_moved_goes_on(run: Any, tmp_path: Path) -> None:
    run(tmp_path / "calm")
    run(tmp_path / "here")
    (tmp_path / "here" / "results.json").unlink()
    shutil.rmtree(tmp_path / "here" / "episodes" / "Pop")
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "here").rename(tmp_path / "elsewhere" / "there")
    run(moved)
    assert steps(moved) == steps(tmp_path / "calm")
    assert not (tmp_path / "here").exists()


def test_half_an_agent_is_no_agent(tmp_path: Path) -> None:
    split = tiny_split()
    agent = RecBoleAgent("ItemKNN", progress=False).fit(split)
    whole = agent.save(tmp_path / "whole")
    for name in ("agent.json", "agent.safetensors"):
        half = tmp_path / f"without {name}"
        shutil.copytree(whole, half)
        (half / name).unlink()
        with pytest.raises(CheckpointError, match=f"{name} is missing"):
            RecBoleAgent("ItemKNN", progress=False).fit_once(split, half)
        shutil.copy(whole / name, half / name)
        os.truncate(half / name, (whole / name).stat().st_size // 2)
        with pytest.raises(CheckpointError, match=r"cannot be read .* save it again"):
            RecBoleAgent("ItemKNN", progress=False).fit_once(split, half)


def drops_rights() -> list[str] | None:
    """Before a command, so that a folder that is read-only is so for root, too; None: no way."""
    if os.geteuid() != 0:
        return []
    words = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
    if shutil.which("setpriv") is None:
        return None
    return words if subprocess.run([*words, "true"], capture_output=True).returncode == 0 else None


@pytest.mark.parametrize("when", ["new", "unfinished"])
def test_a_folder_that_is_read_only_is_told_in_one_line(tmp_path: Path, when: str) -> None:
    before = drops_rights()
    if before is None:
        pytest.skip("root may write everywhere, and setpriv is not there")
    command = [
        *before, sys.executable, "-m", "usermirror_gym.cli", "benchmark", "--agents", "Pop",
        "--users", "2", "--steps", "2", "--simulator", "popularity", "--fidelity-scenes", "0",
        "--out", str(tmp_path / "place" / "run"),
    ]  # fmt: skip
    environment = os.environ | {"COLUMNS": "500"}
    (tmp_path / "place").mkdir()
    if when == "unfinished":
        subprocess.run(command, check=True, capture_output=True, env=environment)
        (tmp_path / "place" / "run" / "results.json").unlink()
    found = sorted((tmp_path / "place").rglob("*"))
    for path in [tmp_path / "place", *found]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    for path in [tmp_path / "place", *found]:
        path.chmod(0o755)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"Error: {tmp_path / 'place' / 'run'}" in done.stderr
    assert "Permission denied" in done.stderr
    assert sorted((tmp_path / "place").rglob("*")) == found


class TestFullDisk:
    WORDS = (
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail] . PytorchStreamWriter failed writing file data/0"),
    )

    @pytest.mark.parametrize("error", WORDS, ids=["system", "safetensors", "torch"])
    def test_it_is_known_by_the_words_of_others_and_told_in_ours(self, error: Exception) -> None:
        assert disk_is_full(error)
        app = typer.Typer()

        @app.command()
        @plain_errors
        def command() -> None:
            raise ValueError("while saving") from error

        result = CliRunner().invoke(app, [])
        assert result.exit_code == 1
        assert "Error: the disk is full. Make room;" in result.output
        assert "Traceback" not in result.output

    def test_other_errors_are_not_hidden(self) -> None:
        for error in (OSError(errno.EACCES, "x"), RuntimeError("os error"), ValueError("(28)")):
            assert not disk_is_full(error)
        app = typer.Typer()

        @app.command()
        @plain_errors
        def command() -> None:
            raise ValueError("a mistake of ours")

        assert isinstance(CliRunner().invoke(app, []).exception, ValueError)

    def test_the_file_is_named_where_the_system_does_not(self, tmp_path: Path) -> None:
        write_text(tmp_path / "a.txt", "whole")
        half = pytest.raises(OSError, match="No space")
        with half as told, replacing(tmp_path / "a.txt"):
            raise OSError(errno.ENOSPC, "No space left on device")
        assert told.value.filename == str(tmp_path / "a.txt")
        assert [p.read_text() for p in tmp_path.iterdir()] == ["whole"]
