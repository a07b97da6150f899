"""The monitor says when a surrogate is not to be trusted, and renews it if it may."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from tests.train.surrogate_teacher import Teacher
from tests.train.test_surrogate import config, lists
from usermirror_gym.agents import PopAgent
from usermirror_gym.agents.rollout import plan_episodes, play_steps
from usermirror_gym.envs import make_world
from usermirror_gym.errors import CheckpointError, ConfigError
from usermirror_gym.files import read_jsonl
from usermirror_gym.progress import Display
from usermirror_gym.simulators import make_simulator
from usermirror_gym.testing.data import tiny_split
from usermirror_gym.train.agent.config import rl_config
from usermirror_gym.train.agent.run import make_env, train_agent
from usermirror_gym.train.surrogate.answers import ask
from usermirror_gym.train.surrogate.distil import distill
from usermirror_gym.train.surrogate.fit import divergence
from usermirror_gym.train.surrogate.monitor import FidelityMonitor, Trust, monitor_of

QUIET = Display(quiet=True)


@pytest.fixture(scope="module")
def split():
    return tiny_split(n_users=60)


@pytest.fixture(scope="module")
def folder(split, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "surrogate"
    return distill(Teacher(), split, config(), place, display=QUIET)


@pytest.fixture
def surrogate(folder, split):
    return make_simulator(str(folder), split)


def settings(**changes):
    base = {
        "algo": "linucb", "simulator": "surrogate", "steps": 800, "users": 20, "horizon": 5,
        "eval_users": 8, "eval_every": 2, "agent": {"d": 8}, "monitor_lists": 64,
    }  # fmt: skip
    return rl_config(**(base | changes))


def world_of(split, simulator):
    return make_world(split, simulator=simulator, history_size=12, min_history=1)


def check(monitor, world):
    """What it says of the lists of Pop."""
    agent = PopAgent().fit(world.split)
    watched = monitor.wrap(world, 0)
    env = make_env(settings(), watched, 20, "click")
    for _ in play_steps(env, agent, plan_episodes(world.users, 20, 0)):
        pass
    return monitor.on_evaluation({"iteration": 2})


def test_it_compares_with_the_teacher(split, surrogate, tmp_path):
    teacher = Teacher()
    monitor = FidelityMonitor(surrogate, teacher, tmp_path, sample=50)
    row = check(monitor, world_of(split, surrogate))
    assert teacher.asked == row["monitor_lists"] == 50
    assert row["monitor_trusted"]
    assert 0 <= row["monitor_kl"] < 0.1
    assert row["monitor_gap_low"] <= row["monitor_gap"] <= row["monitor_gap_high"]
    assert not list(tmp_path.iterdir())  # nothing is kept unless it may renew


def test_it_says_when_trust_ends(split, surrogate, tmp_path, capsys):
    monitor = FidelityMonitor(surrogate, Teacher(reverse=True), tmp_path, display=Display())
    row = check(monitor, world_of(split, surrogate))
    assert not row["monitor_trusted"]
    assert row["monitor_kl"] > 0.1
    said = " ".join(capsys.readouterr().err.split())
    assert "iteration 2: the surrogate is not to be trusted" in said
    assert f"KL {row['monitor_kl']:.3f} above 0.100" in said


def test_flattery_alone_ends_trust(split, surrogate, tmp_path):
    class Bored(Teacher):
        def choose(self, scenes):
            probs = super().choose(scenes).probs * 0.9
            probs[:, -1] += 0.1
            return type(super().choose(scenes))(probs)

    trust = Trust(kl=9.0, agreement=0.0, gap=0.05)
    row = check(
        FidelityMonitor(surrogate, Bored(), tmp_path, trust=trust), world_of(split, surrogate)
    )
    assert not row["monitor_trusted"]
    assert row["monitor_gap"] > 0.05
    assert trust.broken_by(row)[0].endswith("more to it than to its teacher")


def test_it_renews_what_is_not_trusted(split, surrogate, tmp_path):
    turned = Teacher(reverse=True)
    asked = ask(turned, lists(split, 200), 20, "x")
    before = divergence(surrogate, asked)
    monitor = FidelityMonitor(surrogate, turned, tmp_path, renew=True)
    row = check(monitor, world_of(split, surrogate))
    assert row["monitor_redistilled"]
    assert divergence(surrogate, asked) < before
    again = FidelityMonitor(surrogate, turned, tmp_path, renew=True)
    assert again.wrap(world_of(split, surrogate), 2)
    assert again._before is not None


def test_bounds_come_from_the_report(folder, tmp_path):
    own = json.loads((folder / "distillation.json").read_text())["report"]["new lists"]["all"]
    trust = Trust.of(folder)
    assert trust.kl == pytest.approx(3 * own["kl"]["mean"])
    assert trust.agreement == pytest.approx(own["agreement"]["mean"] - 0.1)
    assert Trust.of(tmp_path) == Trust()
    rounding = {"kl": {"mean": 1e-8}, "agreement": {"mean": 1.0}}
    facts = {"report": {"new lists": {"all": rounding}}}
    (tmp_path / "distillation.json").write_text(json.dumps(facts))
    assert Trust.of(tmp_path).kl == 1e-3  # three times nothing would be broken by rounding


def test_a_surrogate_without_a_report_has_no_monitor(split, surrogate, tmp_path):
    surrogate.folder = tmp_path
    with pytest.raises(ConfigError, match="--no-monitor"):
        monitor_of(settings(), world_of(split, surrogate), tmp_path, QUIET)


def test_a_sample_is_more_than_one_list(surrogate, tmp_path):
    with pytest.raises(ConfigError, match="2 lists or more"):
        FidelityMonitor(surrogate, Teacher(), tmp_path, sample=1)


class Killed(Exception):
    pass


@pytest.mark.parametrize("algo", ["linucb", "reinforce"])
def test_a_killed_training_with_renewals_draws_the_same_curve(folder, split, tmp_path, algo):
    """The surrogate changes while the agent learns, and comes back as it was."""
    agent = {"d": 8} if algo == "linucb" else {"d": 8, "batch_size": 50}

    def run(name, killed_at=None):
        surrogate = make_simulator(str(folder), split)
        monitor = FidelityMonitor(
            surrogate, Teacher(reverse=True), tmp_path / name, renew=True, sample=64
        )
        plain = monitor.on_evaluation

        def watched(row):
            if row["iteration"] == killed_at:
                raise Killed
            return plain(row)

        monitor.on_evaluation = watched
        train_agent(
            settings(algo=algo, agent=agent), tmp_path / name, display=QUIET,
            world=world_of(split, surrogate), hook=monitor,
        )  # fmt: skip
        return (tmp_path / name / "curve.jsonl").read_text()

    whole = run("whole")
    with pytest.raises(Killed):
        run("killed", killed_at=6)
    assert run("killed") == whole
    rows = read_jsonl(tmp_path / "whole" / "curve.jsonl")
    assert any(row.get("monitor_redistilled") for row in rows)
    assert all("monitor_kl" in row for row in rows[1:])
    assert np.isfinite([row["monitor_kl"] for row in rows[1:]]).all()


@pytest.mark.parametrize(
    "recipe",
    [
        {"teacher": "openai:gpt-4o"},
        {"teacher_options": {"engine": {"base_url": "http://127.0.0.1:9/v1"}}},
        {"teacher_options": {"answers": "/tmp/answers.sqlite"}},
    ],
)
def test_a_foreign_surrogate_names_no_server_to_ask(folder, split, tmp_path, recipe):
    foreign = tmp_path / "foreign"
    shutil.copytree(folder, foreign)
    facts = json.loads((foreign / "distillation.json").read_text())
    facts["recipe"] |= recipe
    (foreign / "distillation.json").write_text(json.dumps(facts))
    surrogate = make_simulator(str(foreign), split)
    with pytest.raises(CheckpointError, match=r"distillation\.json sets .*--no-monitor"):
        monitor_of(settings(), world_of(split, surrogate), tmp_path / "run", QUIET)
