"""Training in the environment: it learns, it goes on after a kill, it refuses what cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from usermirror_gym.agents import make_agent
from usermirror_gym.agents.learners.store import load_agent
from usermirror_gym.envs import World, make_world
from usermirror_gym.errors import AgentError, ConfigError, RunError, UnknownNameError
from usermirror_gym.progress import Display
from usermirror_gym.scenes import SceneBatch
from usermirror_gym.simulators.base import ChoiceBatch
from usermirror_gym.testing.data import tiny_split
from usermirror_gym.train.agent.config import rl_config
from usermirror_gym.train.agent.run import split_users, train_agent

QUIET = Display(quiet=True)
ALGOS = ("linucb", "thompson", "slateq", "reinforce", "ppo")


class Planted:
    """Users who want what nobody had before T0, the more so the higher its number."""

    name = "planted"

    def __init__(self, killed_after: int | None = None) -> None:
        self.killed_after = killed_after
        self.users: set[int] = set()

    def choose(self, scenes):
        if self.killed_after is not None:
            self.killed_after -= 1
            if self.killed_after < 0:
                raise KeyboardInterrupt
        batch = SceneBatch.of(scenes)
        self.users |= set(batch.user_ids.tolist())
        wanted = np.where(batch.slates > 0, np.exp(0.15 * (batch.slates - 30.0)), 0.0)
        weights = np.column_stack([wanted, np.full(len(wanted), 1.0)])
        return ChoiceBatch(weights / weights.sum(axis=1, keepdims=True))


def world_of(simulator) -> World:
    return make_world(tiny_split(), simulator=simulator, history_size=12, min_history=1)


def settings(algo: str, **changes):
    agent = {
        "linucb": {"d": 8},
        "thompson": {"d": 8},
        "slateq": {"d": 8, "learning_rate": 0.03, "batch_size": 50},
        "reinforce": {"d": 8, "learning_rate": 0.05, "batch_size": 50},
        "ppo": {"source": "Pop", "shortlist": 30, "trust": 0.0, "learning_rate": 0.02,
                "batch_size": 50, "epochs": 5},
    }[algo]  # fmt: skip
    base = {"algo": algo, "simulator": "planted", "steps": 1_000, "users": 20, "horizon": 5,
            "eval_users": 8, "eval_every": 3, "agent": agent, "patience": 5}  # fmt: skip
    return rl_config(**{**base, **changes})


def curve(folder):
    return [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("algo", ALGOS)
def test_it_learns_what_users_want(algo, tmp_path):
    if algo == "ppo":
        pytest.importorskip("stable_baselines3")
    config = settings(algo, steps=3_000, reward="expected_click" if algo == "ppo" else "click")
    train_agent(config, tmp_path / "run", display=QUIET, world=world_of(Planted()))
    rows = curve(tmp_path / "run")
    assert rows[-1]["iteration"] == config.iterations == 30
    assert rows[-1]["return"] > rows[0]["return"] + 0.5


@pytest.mark.parametrize("algo", ALGOS)
@pytest.mark.parametrize("killed_after", [2, 37])
def test_a_killed_training_draws_the_same_curve(algo, killed_after, tmp_path):
    if algo == "ppo":
        pytest.importorskip("stable_baselines3")
    config = settings(algo)
    train_agent(config, tmp_path / "whole", display=QUIET, world=world_of(Planted()))
    with pytest.raises(KeyboardInterrupt):
        train_agent(
            config, tmp_path / "killed", display=QUIET, world=world_of(Planted(killed_after))
        )
    assert not (tmp_path / "killed" / "agent").exists()
    train_agent(config, tmp_path / "killed", display=QUIET, world=world_of(Planted()))
    whole, killed = (tmp_path / name / "curve.jsonl" for name in ("whole", "killed"))
    assert killed.read_text() == whole.read_text()
    one, two = (load_agent(tmp_path / name / "agent").arrays() for name in ("whole", "killed"))
    assert one.keys() == two.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name], err_msg=name)


def test_another_seed_is_another_curve(tmp_path):
    for seed in (0, 1):
        train_agent(
            settings("reinforce", seed=seed), tmp_path / str(seed), display=QUIET,
            world=world_of(Planted()),
        )  # fmt: skip
    one, two = curve(tmp_path / "0"), curve(tmp_path / "1")
    assert one[0] == two[0]  # nothing learned yet, the same users with the same luck
    assert one[-1] != two[-1]


@pytest.mark.parametrize("algo", ["reinforce", "ppo"])
def test_evaluation_users_take_no_part_in_training(algo, tmp_path):
    if algo == "ppo":
        pytest.importorskip("stable_baselines3")
    config = settings(algo, steps=200)
    world = world_of(Planted())
    tests = world_of(Planted())
    seen = Planted()

    class Watch:
        def wrap(self, training: World, iteration: int) -> World:
            return replace(training, simulator=seen)

        def on_evaluation(self, row):
            return {}

    train_agent(config, tmp_path, display=QUIET, world=world, eval_world=tests, hook=Watch())
    held_out = set(split_users(config, world)[0].user_ids.tolist())
    assert len(held_out) == 8
    assert seen.users
    assert not seen.users & held_out
    assert world.simulator.users == held_out


def test_what_a_hook_says_joins_the_curve(tmp_path):
    class Hook:
        def wrap(self, world: World, iteration: int) -> World:
            return world

        def on_evaluation(self, row):
            return {"monitor": {"kl": row["iteration"] / 100}}

    train_agent(settings("linucb"), tmp_path, display=QUIET, world=world_of(Planted()), hook=Hook())
    assert [row.get("monitor") for row in curve(tmp_path)][1:3] == [{"kl": 0.03}, {"kl": 0.06}]


def test_the_evaluating_simulator_is_asked_before_and_after(tmp_path):
    config = settings("linucb", llm_users=4)
    judge = Planted()
    train_agent(
        config, tmp_path, display=QUIET, world=world_of(Planted()), eval_world=world_of(judge)
    )
    rows = curve(tmp_path)
    assert ["llm" in row for row in rows] == [True, *[False] * (len(rows) - 2), True]
    assert len(judge.users) == 4


def test_checkpoints_do_not_pile_up(tmp_path):
    train_agent(settings("slateq"), tmp_path, display=QUIET, world=world_of(Planted()))
    kept = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert kept == ["000009", "000010"]


def test_a_finished_training_is_not_repeated(tmp_path):
    config = settings("linucb")
    train_agent(config, tmp_path, display=QUIET, world=world_of(Planted()))
    train_agent(config, tmp_path, display=QUIET, world=world_of(Planted(killed_after=0)))


def test_a_folder_of_another_training_is_refused(tmp_path):
    train_agent(settings("linucb"), tmp_path, display=QUIET, world=world_of(Planted()))
    with pytest.raises(RunError, match=r"seed: 0 there, 1 here"):
        train_agent(settings("linucb", seed=1), tmp_path, display=QUIET, world=world_of(Planted()))


def test_a_folder_in_which_somebody_is_at_work_is_refused(tmp_path, refused_while_busy):
    config, world = settings("linucb"), world_of(Planted(killed_after=0))
    refused_while_busy(tmp_path, lambda: train_agent(config, tmp_path, display=QUIET, world=world))


def test_the_trained_agent_goes_by_its_folder(tmp_path):
    folder = train_agent(
        settings("linucb"), tmp_path / "mine", display=QUIET, world=world_of(Planted())
    )
    agent = make_agent(str(tmp_path / "mine"))
    assert agent.name == "LinUCB@mine"
    split = tiny_split()
    assert make_agent(str(folder)).fit(split).name == "LinUCB@mine"
    with pytest.raises(AgentError, match="40 items"):
        agent.fit(tiny_split(n_items=50))


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"algo": "sac"}, ConfigError, "algo"),
        ({"steps": 0}, ConfigError, "steps"),
        ({"users": -1}, ConfigError, "users"),
        ({"reward": "clicks"}, UnknownNameError, "click"),
        ({"stepz": 5}, UnknownNameError, "steps"),
        ({"seed": -1}, ConfigError, "seed"),
    ],
)
def test_settings_that_cannot_be_used(changes, error, match):
    with pytest.raises(error, match=match):
        rl_config(**{"algo": "linucb", "simulator": "uniform", **changes})


@pytest.mark.parametrize(
    ("agent", "error", "match"),
    [
        ({"widht": 1.0}, UnknownNameError, "width"),
        ({"width": -1.0}, ConfigError, "width"),
        ({"d": 0}, ConfigError, "d"),
    ],
)
def test_hyperparameters_that_cannot_be_used(agent, error, match, tmp_path):
    with pytest.raises(error, match=match):
        train_agent(
            settings("linucb", agent=agent), tmp_path / "run", display=QUIET,
            world=world_of(Planted()),
        )  # fmt: skip
    assert not (tmp_path / "run").exists()  # a mistake must not leave a folder with itself in it


def test_somebody_must_be_left_for_training(tmp_path):
    with pytest.raises(ConfigError, match=r"eval_users.*fewer"):
        train_agent(
            settings("linucb", eval_users=100), tmp_path / "run", display=QUIET,
            world=world_of(Planted()),
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["reinforce", "ppo"])
def test_sigkill_at_any_time_changes_no_curve(algo, tmp_path):
    """A process of its own, killed again and again until it gets through."""
    if algo == "ppo":
        pytest.importorskip("stable_baselines3")
    agent = "batch_size=50" if algo == "reinforce" else "source=Pop"
    command = [
        sys.executable, "-m", "usermirror_gym.cli", "train-agent", "--algo", algo, "--simulator",
        "surrogate", "--no-monitor", "--steps", "2400", "--users", "20", "--horizon", "6",
        "--eval-users", "10", "--eval-every", "1", "--agent-set", agent, "--out",
    ]  # fmt: skip
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    killed, delays = 0, iter((0.0, 0.05, 0.1, 0.2))
    rows = tmp_path / "run" / "curve.jsonl"
    while not (tmp_path / "run" / "agent").is_dir():
        before = rows.stat().st_size if rows.exists() else 0
        process = subprocess.Popen(
            [*command, str(tmp_path / "run")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        delay = next(delays, None)
        while delay is not None and process.poll() is None:
            if rows.exists() and rows.stat().st_size > before:  # it has got somewhere
                time.sleep(delay)
                process.kill()
                killed += 1
                break
            time.sleep(0.02)
        process.wait()
        assert delay is not None or process.returncode == 0
    assert killed >= 2
    assert rows.read_text() == (tmp_path / "whole" / "curve.jsonl").read_text()
