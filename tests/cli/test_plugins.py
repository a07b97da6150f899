"""Rewards, session models and agents of somebody else's package, by the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from usermirror_gym.agents import make_agent
from usermirror_gym.cli import app
from usermirror_gym.configs.plugins import resolve
from usermirror_gym.envs import SlateVectorEnv, make_world
from usermirror_gym.envs.rewards import Reward
from usermirror_gym.envs.session import session_model
from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.files import read_jsonl
from usermirror_gym.testing.data import tiny_split

CODE = '''
import numpy as np

def dwell(outcome):
    """Seconds: more for what stands further down, and for every item that was taken before."""
    return outcome.clicked * (outcome.choices + outcome.history_lengths + 0.5)

class Fixed:
    def __call__(self, outcome):
        return np.full(len(outcome.slates), 7.0)

class Hazard:
    """Everybody leaves after the second list."""
    def leaves(self, progress):
        return progress.turns >= 2

class MyAgent:
    name = "Mine"
    def __init__(self, seed, first=1):
        self.seed, self.first = seed, first
    def fit(self, data):
        return self
    def recommend(self, observations, k):
        rows = len(observations["user_id"])
        return np.tile(np.arange(self.first, self.first + k), (rows, 1))
    def observe(self, transition):
        pass

class Impostor(MyAgent):
    name = "Pop"

class Shouting(MyAgent):
    name = "POP"

class Escaping(MyAgent):
    name = "../elsewhere"

def never(outcome):
    return np.full(len(outcome.slates), np.nan)

class Numbers:
    def leaves(self, progress):
        return progress.turns

class NoAgent:
    pass

class NeedsMore:
    def __init__(self, theta):
        self.theta = theta

constant = 3
'''
SMALL = ("--simulator", "popularity", "--users", "3", "--steps", "4", "--fidelity-scenes", "0")


@pytest.fixture
def mypkg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package beside which the command runs, and a module that cannot be imported."""
    home = tmp_path / "site"
    (home / "mypkg").mkdir(parents=True)
    (home / "mypkg" / "__init__.py").write_text("")
    (home / "mypkg" / "parts.py").write_text(CODE)
    (home / "mypkg" / "broken.py").write_text("import a_package_that_nobody_has")
    monkeypatch.syspath_prepend(home)
    for name in [name for name in sys.modules if name.split(".")[0] == "mypkg"]:
        monkeypatch.delitem(sys.modules, name)
    return home


@pytest.fixture
def installed(mypkg: Path) -> Path:
    """The same package with entry points."""
    info = mypkg / "mypkg-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mypkg\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[usermirror_gym.rewards]\ndwell = mypkg.parts:dwell\nclick = mypkg.parts:dwell\n"
        "[usermirror_gym.sessions]\nhazard = mypkg.parts:Hazard\n"
        "[usermirror_gym.agents]\nMine = mypkg.parts:MyAgent\nLost = mypkg.parts:Lots\n"
    )
    return mypkg


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def said(result: Result) -> str:
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def test_a_benchmark_of_somebody_elses_parts_and_its_replay(mypkg: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    reward = "click=1,mypkg.parts:dwell=0.5"
    result = call("benchmark", *SMALL, "--agents", "Pop,mypkg.parts:MyAgent", "--reward", reward,
                  "--session", "mypkg.parts:Hazard", "--out", str(out))  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "Mine" in result.output
    settings = json.loads((out / "run.json").read_text())
    assert (settings["reward"], settings["session"]) == (reward, "mypkg.parts:Hazard")
    assert settings["agents"] == ["Pop", "mypkg.parts:MyAgent"]
    config = json.loads((out / "results.json").read_text())["config"]
    assert (config["reward"], config["session"]) == (reward, "mypkg.parts:Hazard")
    rows = read_jsonl(out / "episodes.jsonl")
    assert {row["agent"] for row in rows} == {"Pop", "Mine"}
    assert {row["step"] for row in rows} == {0, 1}  # they leave after two lists
    for row in rows:
        raw = row["rewards"]
        assert row["reward"] == raw["click"] + 0.5 * raw["mypkg.parts:dwell"]
        assert (raw["mypkg.parts:dwell"] > 0) == (raw["click"] > 0)
    assert any(row["reward"] > 2 for row in rows)  # the history was seen
    refused = call("replay", str(out))
    assert refused.exit_code == 1
    allowed = ("--allow", "mypkg.parts:dwell", "--allow", "mypkg.parts:Hazard")
    assert " ".join(allowed) in said(refused)
    again = call("replay", str(out), *allowed)
    assert again.exit_code == 0, again.output
    assert "all as logged" in said(again)
    assert call("benchmark", *SMALL, "--agents", "Pop,mypkg.parts:MyAgent", "--reward", reward,
                "--session", "mypkg.parts:Hazard", "--out", str(out)).exit_code == 0  # fmt: skip


def test_code_that_only_a_file_names_is_not_run(mypkg: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert call("benchmark", *SMALL, "--agents", "Pop", "--out", str(out)).exit_code == 0
    original = json.loads((out / "run.json").read_text())
    (mypkg / "mypkg" / "evil.py").write_text("import sys; sys.was_run = True")
    evil = ("mypkg.evil:x", "mypkg.evil:x=1,click=1", {"mypkg.evil:x": 1})
    for change in (*({"reward": r} for r in evil), {"session": "mypkg.evil:X"},
                   {"patience": "mypkg.evil:X"}):  # fmt: skip
        (out / "run.json").write_text(json.dumps(original | change))
        for command in (("replay", str(out)),
                        ("benchmark", *SMALL, "--agents", "Pop", "--out", str(out))):  # fmt: skip
            result = call(*command)
            assert result.exit_code == 1, (command, change)
            assert isinstance(result.exception, SystemExit)
    assert not hasattr(sys, "was_run")


def test_an_episode_and_a_training(mypkg: Path, tmp_path: Path) -> None:
    parts = ("--reward", "mypkg.parts:Fixed", "--session", "mypkg.parts:Hazard")
    episode = call("episode", "--simulator", "popularity", "--agent", "mypkg.parts:MyAgent", *parts)
    assert episode.exit_code == 0, episode.output
    assert "return 14" in said(episode)
    trained = call(
        "train-agent", "--algo", "linucb", "--simulator", "popularity", "--steps", "40", "--users",
        "10", "--horizon", "4", "--eval-users", "6", "--eval-every", "1", "--agent-set", "d=4",
        *parts, "--out", str(tmp_path / "agent"),
    )  # fmt: skip
    assert trained.exit_code == 0, trained.output
    curve = read_jsonl(tmp_path / "agent" / "curve.jsonl")
    assert [(row["return"], row["return_length"]) for row in curve] == [(14.0, 2.0)] * 2


def test_the_real_command_takes_a_path(mypkg: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "usermirror_gym.cli", "episode", "--simulator", "popularity",
         "--agent", "mypkg.parts:MyAgent", "--reward", "mypkg.parts:Fixed", "--steps", "1"],
        cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(mypkg), *sys.path])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "return 7" in done.stdout


def test_entry_points_are_names_and_ours_come_first(installed: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = call("benchmark", *SMALL, "--agents", "Mine", "--reward", "click=1,dwell=2",
                  "--session", "hazard", "--out", str(out))  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = read_jsonl(out / "episodes.jsonl")
    assert {row["rewards"]["click"] for row in rows} <= {0.0, 1.0}  # not theirs
    assert {row["step"] for row in rows} == {0, 1}
    again = call("replay", str(out))  # an installed package is no code of a stranger's file
    assert "all as logged" in said(again)
    near = call("benchmark", *SMALL, "--agents", "Pop", "--reward", "dwel", "--out", f"{out}2")
    assert "Did you mean 'dwell'?" in said(near)
    lost = call("episode", "--simulator", "popularity", "--agent", "Lost")
    assert "agent 'Lost' (mypkg.parts:Lots): " in said(lost)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--reward", "clik"), "Did you mean 'click'? Valid: click, expected_click, satisfaction, "
         "target_rank. Or module:name, for something of your own."),
        (("--session", "paitence"), "Did you mean 'patience'? Valid: patience, stay. Or module:"),
        (("--agents", "Popp"), "Did you mean 'Pop'?"),
        (("--agents", "Popp"), "Or module:name, for something of your own."),
        (("--reward", "nopkg.parts:dwell"), "reward 'nopkg.parts:dwell': cannot import "
         "'nopkg.parts' (ModuleNotFoundError: No module named 'nopkg'); write module:name, and "
         "install its package or put its folder on PYTHONPATH"),
        (("--session", "mypkg.broken:X"), "No module named 'a_package_that_nobody_has'"),
        (("--reward", "mypkg.parts:dwel"), "has no attribute 'dwel'; did you mean 'dwell'?"),
        (("--agents", "mypkg.parts:Xyz"), "'Xyz'; name something that mypkg.parts defines"),
        (("--reward", "mypkg.parts:constant"), "reward 'mypkg.parts:constant' is 3; name a func"),
        (("--session", "mypkg.parts:dwell"), "a method leaves(progress), got 'mypkg.parts:dwell'"),
        (("--session", "mypkg.parts:NeedsMore"), "missing a required argument: 'theta'; it is "
         "made without arguments"),
        (("--agents", "mypkg.parts:NoAgent"), "is NoAgent without name, fit, recommend, observe"),
        (("--agents", "mypkg.parts:NeedsMore"), "it may ask for seed, progress, simulator"),
        (("--agents", "Pop,mypkg.parts:Impostor"), "two agents are called"),
        (("--agents", "Pop,mypkg.parts:Shouting"), "two agents are called"),
        (("--agents", "mypkg.parts:Escaping"), "'../elsewhere', which is no name for a file"),
        (("--reward", "click=1,click=2"), "names 'click' twice"),
        (("--reward", "click=nan"), "the weight of 'click' must be a number, got 'nan'"),
        (("--session", "-1"), "patience must be at least 1, got -1"),
        (("--reward", "click=much"), "the weight of 'click' must be a number, got 'much'"),
        (("--session", "0"), "patience must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_the_cure_and_leave_no_folder(
    mypkg: Path, tmp_path: Path, options: tuple[str, str], message: str
) -> None:
    agents = () if options[0] == "--agents" else ("--agents", "Pop")
    result = call("benchmark", *SMALL, *agents, *options, "--out", str(tmp_path / "run"))
    assert result.exit_code == 1
    assert message in said(result)
    assert not (tmp_path / "run").exists()


def test_a_training_with_a_mistaken_session_leaves_no_folder(mypkg: Path, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "run"))
    result = call("train-agent", "--algo", "linucb", "--simulator", "popularity", "--session",
                  "sty", *out)  # fmt: skip
    assert result.exit_code == 1
    assert "Did you mean 'stay'?" in said(result)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward": "mypkg.parts:never"}, "mypkg.parts:never.* is not a finite number"),
        ({"session": "mypkg.parts:Numbers"}, "answered with int64 of shape .*expected bool"),
    ],
)
def test_answers_of_others_that_cannot_be_used_are_errors(
    mypkg: Path, options: dict[str, str], message: str
) -> None:
    world = make_world(tiny_split(), simulator="popularity", min_history=1)
    env = SlateVectorEnv(4, world, **options)
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=message):
        env.step(np.tile(np.arange(1, 6), (4, 1)))


def test_names_in_python(mypkg: Path) -> None:
    split = tiny_split()
    agent = make_agent("mypkg.parts:MyAgent", seed=5, first=3)
    assert vars(agent) == {"seed": 5, "first": 3}
    with pytest.raises(ConfigError, match="unexpected keyword argument 'last'"):
        make_agent("mypkg.parts:MyAgent", last=3)
    world = make_world(split, simulator="popularity", min_history=1)
    env = SlateVectorEnv(
        4, world, session="mypkg.parts:Hazard", reward={"mypkg.parts:Fixed": 2.0, "click": 1.0}
    )
    env.reset(seed=0)
    _, rewards, left, _, info = env.step(np.tile(np.arange(1, 6), (4, 1)))
    np.testing.assert_array_equal(rewards, 14.0 + info["rewards/click"])
    assert not left.any()
    assert env.step(np.tile(np.arange(1, 6), (4, 1)))[2].all()
    assert Reward("click=1,satisfaction=0.2").terms.keys() == {"click", "satisfaction"}
    assert session_model("4") == session_model(4)
    with pytest.raises(UnknownNameError, match="module:name"):
        resolve("thing", "x", {"y": 1}, "usermirror_gym.things")


def test_a_reward_sees_the_state_before_the_step() -> None:
    seen = []

    def look(outcome):
        seen.append(type(outcome)(*(np.array(value) for value in outcome)))
        return outcome.clicked.astype(float)

    world = make_world(tiny_split(), simulator="uniform", min_history=1)
    env = SlateVectorEnv(8, world, reward=look, session="stay")
    observations, info = env.reset(seed=0)
    for step in range(4):
        before = observations
        observations, *_, info = env.step(np.tile(np.arange(1, 6), (8, 1)))
        outcome = seen[-1]
        np.testing.assert_array_equal(outcome.user_ids, before["user_id"])
        np.testing.assert_array_equal(outcome.history, before["history_items"])
        np.testing.assert_array_equal(outcome.history_lengths, before["history_length"])
        np.testing.assert_array_equal(outcome.turns, step)
        np.testing.assert_array_equal(outcome.items, info["item"])
    assert any((outcome.items > 0).any() for outcome in seen)


def test_a_folder_begun_before_there_were_session_models_goes_on(tmp_path: Path) -> None:
    """Settings as version 0.1.0 wrote them, in its order."""
    (tmp_path / "run").mkdir()
    old = {
        "agents": ["Pop"], "users": 3, "steps": 4, "slate_size": 5, "simulator": "popularity",
        "simulator_options": {}, "dataset": "ml-100k", "data_folder": None, "patience": 3,
        "reward": "click", "fidelity_scenes": 0, "seed": 0,
    }  # fmt: skip
    (tmp_path / "run" / "run.json").write_text(json.dumps(old))
    command = ("benchmark", *SMALL, "--agents", "Pop", "--out", str(tmp_path / "run"))
    assert call(*command).exit_code == 0
    now = json.loads((tmp_path / "run" / "run.json").read_text())
    assert list(now.pop("inputs")) == ["data", "simulator"]  # which it has from now on
    assert now == old
    assert call("replay", str(tmp_path / "run")).exit_code == 0
    assert "session" in said(call(*command, "--session", "stay"))
    assert "patience" in said(call(*command, "--patience", "2"))
