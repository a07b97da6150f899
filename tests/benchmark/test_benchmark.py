"""The interactive benchmark: paired, complete, and resumable after a kill."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from gymnasium.vector import AutoresetMode

from usermirror_gym.agents import PopAgent, RandomAgent
from usermirror_gym.agents.rollout import Clock, plan_episodes, roll_out
from usermirror_gym.benchmark.run import BenchmarkConfig, default_folder, run_benchmark
from usermirror_gym.envs import SlateVectorEnv, make_world
from usermirror_gym.errors import ConfigError, RunError, UnknownNameError
from usermirror_gym.files import read_json, read_jsonl, write_text
from usermirror_gym.testing.data import tiny_split

SMALL = BenchmarkConfig(
    agents=("Random", "Pop"), users=6, steps=4, simulator="popularity", fidelity_scenes=20
)


def read_steps(folder: Path) -> pd.DataFrame:
    return pd.DataFrame(read_jsonl(folder / "episodes.jsonl")).drop(columns="seconds")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    run_benchmark(SMALL, folder)
    return folder


def test_every_agent_meets_the_same_users_with_the_same_luck(finished: Path) -> None:
    steps = read_steps(finished)
    starts = steps.drop_duplicates(["agent", "episode"])
    by_agent = {n: g[["episode", "user_id", "seed"]].to_numpy() for n, g in starts.groupby("agent")}
    np.testing.assert_array_equal(by_agent["Random"], by_agent["Pop"])
    assert len(np.unique(by_agent["Pop"][:, 1])) == 6


def test_the_user_is_vouched_for_on_lists_of_the_size_of_the_run(tmp_path: Path) -> None:
    run_benchmark(replace(SMALL, slate_size=10, users=2, steps=1), tmp_path)
    check = read_json(tmp_path / "results.json")["fidelity"]
    assert check["slate_size"] == 10
    guesses = [row for row in check["rows"] if row["chooser"] == "uniform"]
    assert [row["log_loss"]["mean"] for row in guesses] == pytest.approx([np.log(10)] * 2)


def test_the_outcome_is_complete_and_consistent(finished: Path) -> None:
    results = read_json(finished / "results.json")
    steps = read_steps(finished)
    assert [a["name"] for a in results["agents"]] == ["Random", "Pop"]
    assert results["fidelity"]["scenes"] == 20
    assert results["agents"][1]["offline"]["ndcg@10"] > results["agents"][0]["offline"]["ndcg@10"]
    for agent, rows in steps.groupby("agent"):
        ctr = rows.groupby("episode")["reward"].mean().mean()
        (block,) = [a["metrics"]["ctr"] for a in results["agents"] if a["name"] == agent]
        assert block["mean"] == pytest.approx(ctr)
    last = steps.groupby(["agent", "episode"]).tail(1)
    assert (last["terminated"] | last["truncated"]).all()
    report = (finished / "report.html").read_text()
    assert "Toy Story" in report or "Star Wars" in report


def test_batch_size_does_not_change_the_episodes(finished: Path, tmp_path: Path) -> None:
    run_benchmark(replace(SMALL, batch_size=1), tmp_path / "one")
    pd.testing.assert_frame_equal(read_steps(tmp_path / "one"), read_steps(finished))


def test_a_longer_run_starts_with_the_shorter_one() -> None:
    users = np.arange(1, 9)
    short, long = plan_episodes(users, 5, seed=3), plan_episodes(users, 20, seed=3)
    np.testing.assert_array_equal(long.user_ids[:5], short.user_ids)
    np.testing.assert_array_equal(long.seeds[:5], short.seeds)
    assert sorted(long.user_ids[:8]) == users.tolist()


def test_lost_episodes_are_played_again_and_others_are_not(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run_benchmark(SMALL, folder)
    files = sorted((folder / "episodes").rglob("*.jsonl"))
    assert len(files) == 12
    kept = {f: f.stat().st_mtime_ns for f in files[3:]}
    for file in files[:3]:
        file.unlink()
    (folder / "results.json").unlink()
    run_benchmark(SMALL, folder)
    assert {f: f.stat().st_mtime_ns for f in files[3:]} == kept
    pd.testing.assert_frame_equal(read_steps(folder), read_steps(finished))


def test_kill_at_any_moment_then_resume(finished: Path, tmp_path: Path) -> None:
    """SIGKILL in mid-run, twice, then to the end: the log equals that of an undisturbed run."""
    folder = tmp_path / "run"
    command = [
        sys.executable, "-m", "usermirror_gym.cli", "benchmark", "--agents", "Random,Pop",
        "--users", "6", "--steps", "4", "--simulator", "popularity", "--fidelity-scenes", "20",
        "--batch-size", "1", "--out", str(folder),
    ]  # fmt: skip
    for wanted in (1, 4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(folder.rglob("0*.jsonl"))) < wanted:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, capture_output=True)
    pd.testing.assert_frame_equal(read_steps(folder), read_steps(finished))
    assert not list(folder.rglob("*.tmp"))


def test_a_second_process_is_refused_and_the_first_ends_well(
    finished: Path, tmp_path: Path
) -> None:
    """Two real processes: the second names the first, which ends like an undisturbed run."""
    folder = tmp_path / "run"
    command = [
        sys.executable, "-m", "usermirror_gym.cli", "benchmark", "--agents", "Random,Pop",
        "--users", "6", "--steps", "4", "--simulator", "popularity", "--fidelity-scenes", "20",
        "--batch-size", "1", "--out", str(folder),
    ]  # fmt: skip
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (folder / "run.json").exists():
        assert first.poll() is None
        time.sleep(0.005)
    first.send_signal(signal.SIGSTOP)  # in the middle of its work
    unfinished = folder / ".offline.json.1.tmp"
    unfinished.write_text("half")
    second = subprocess.run(command, capture_output=True, text=True)
    assert unfinished.exists()
    first.send_signal(signal.SIGCONT)
    assert second.returncode != 0
    said = " ".join(second.stderr.replace("│", " ").split())
    assert f"process {first.pid} on" in said
    assert first.wait() == 0
    pd.testing.assert_frame_equal(read_steps(folder), read_steps(finished))


def test_a_folder_in_which_somebody_is_at_work_is_refused(
    tmp_path: Path, refused_while_busy
) -> None:
    refused_while_busy(tmp_path / "run", lambda: run_benchmark(SMALL, tmp_path / "run"))


def test_what_a_killed_process_was_writing_is_cleared_away(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "episodes" / "Pop" / ".000001.jsonl.77.tmp").write_text('{"agent"')
    (folder / "agents" / ".EASE.9.tmp").mkdir(parents=True)
    run_benchmark(SMALL, folder)
    assert not list(folder.rglob("*.tmp"))


def test_a_folder_with_other_settings_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"other settings \(users=6\)"):
        run_benchmark(replace(SMALL, users=7), finished)
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty and holds no run"):
        run_benchmark(SMALL, tmp_path)
    assert (tmp_path / "note.txt").read_text() == "mine"


def test_the_default_folder_continues_its_own_run_and_spares_others(
    finished: Path, tmp_path: Path
) -> None:
    base = tmp_path / "benchmark"
    assert default_folder(SMALL, base) == base
    shutil.copytree(finished, base)
    assert default_folder(SMALL, base) == base
    other = replace(SMALL, users=7)
    assert default_folder(other, base) == tmp_path / "benchmark-2"
    (tmp_path / "benchmark-2").mkdir()
    assert default_folder(other, base) == tmp_path / "benchmark-3"


def test_a_broken_file_says_what_to_do(tmp_path: Path) -> None:
    broken = write_text(tmp_path / "x.jsonl", '{"a": 1}\n{"a":')
    with pytest.raises(RunError, match=r"line 2.*Delete the file"):
        read_jsonl(broken)
    with pytest.raises(RunError, match="Delete it"):
        read_json(broken)


def test_settings_are_checked_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="users must be at least 1, got 0"):
        replace(SMALL, users=0)
    with pytest.raises(ConfigError, match="named twice"):
        replace(SMALL, agents=("Pop", "pop"))
    with pytest.raises(ConfigError, match="fidelity_scenes"):
        replace(SMALL, fidelity_scenes=1)
    with pytest.raises(UnknownNameError, match="Did you mean 'LightGCN'"):
        run_benchmark(replace(SMALL, agents=("LightGNC",)), tmp_path / "run")
    assert not (tmp_path / "run").exists()  # the corrected command can use the folder


def test_the_log_tells_the_step_as_it_was() -> None:
    world = make_world(tiny_split(), simulator="popularity", history_size=10)
    env = SlateVectorEnv(3, world, max_episode_steps=5, autoreset_mode=AutoresetMode.DISABLED)
    clock = Clock()
    episodes = plan_episodes(world.users, 3, seed=1)
    log = roll_out(env, RandomAgent(0).fit(world.split), episodes, clock)
    assert clock.user_steps == len(log)
    for step in log:
        assert sum(step["probabilities"]) == pytest.approx(1)
        assert step["item"] == (step["slate"] + [0])[step["choice"]]
        assert step["reward"] == (step["item"] > 0) == step["rewards"]["click"]
        assert (step["rating"] is None) == (step["item"] == 0)
    json.dumps(log, allow_nan=False)
    again = roll_out(env, PopAgent().fit(world.split), episodes, Clock())
    assert {s["seed"] for s in again} == {s["seed"] for s in log}
