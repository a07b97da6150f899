"""Distillation: it comes near its teacher, goes on after a kill, and says how near it came."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from scipy.special import rel_entr

from tests.train.surrogate_teacher import Teacher
from usermirror_gym.errors import ConfigError, RunError, UnknownNameError
from usermirror_gym.progress import Display
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.simulators import make_simulator
from usermirror_gym.testing.data import tiny_split
from usermirror_gym.train.surrogate.answers import ask, read_answers
from usermirror_gym.train.surrogate.config import read_surrogate_config
from usermirror_gym.train.surrogate.distil import distill, redistil
from usermirror_gym.train.surrogate.fit import divergence
from usermirror_gym.train.surrogate.report import Agreement, summary

QUIET = Display(quiet=True)
SMALL = {
    "questions.total": 4000, "questions.agents": ["Random", "Pop"], "questions.strangers": [],
    "questions.episodes": 50, "questions.min_history": 1, "questions.slate_sizes": [5, 3],
    "network.dim": 16, "network.items": "none", "fit.epochs": 20, "fit.patience": 20,
}  # fmt: skip


def config(**changes):
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return read_surrogate_config("smollm2-ml100k", SMALL | dotted)


@pytest.fixture(scope="module")
def split():
    return tiny_split(n_users=60)


@pytest.fixture(scope="module")
def whole(split, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    distill(Teacher(), split, config(), folder, display=QUIET)
    return folder


def lists(split, count, seed=0) -> list[Scene]:
    """Random lists of users with their histories, from which their tastes can be told."""
    rng = np.random.default_rng(seed)
    users = rng.choice(split.users_with_history(1), count)
    memory = split.memory(users, 20)
    return [
        Scene(
            int(user), tuple(memory.items[row, :n].tolist()), (3.0,) * n, (9,) * n,
            tuple((rng.permutation(40)[:5] + 1).tolist()),
        )
        for row, (user, n) in enumerate(zip(users, memory.lengths.tolist(), strict=True))
    ]  # fmt: skip


def test_it_comes_near_its_teacher(split, whole):
    surrogate = make_simulator(str(whole / "checkpoint"), split)
    asked = lists(split, 300)
    teacher, student = Teacher().choose(asked).probs, surrogate.choose(asked).probs
    kl = rel_entr(teacher, student).sum(axis=1).mean()
    blind = rel_entr(teacher, teacher.mean(axis=0)).sum(axis=1).mean()
    assert kl < blind / 5


def test_the_report_says_how_near(whole):
    facts = json.loads((whole / "checkpoint" / "distillation.json").read_text())
    for role in ("new lists", "new users"):
        own = facts["report"][role]["all"]
        assert own["kl"]["low"] < own["kl"]["mean"] < own["kl"]["high"]
        assert own["kl"]["mean"] < facts["constant"][role]["kl"]
        assert own["agreement"]["mean"] > facts["constant"][role]["agreement"]
        assert own["spearman"] > 0.8
    assert sum(facts["questions"].values()) <= 4000
    card = (whole / "checkpoint" / "README.md").read_text()
    assert f"{facts['report']['new lists']['all']['kl']['mean']:.4g}" in card
    assert "nan" not in card.lower()


def test_users_of_the_report_are_strangers(split, whole):
    users = {
        role: {u for p in (whole / "answers").glob(f"{role}-*.npz")
               for u in read_answers(p).questions.users.tolist()}
        for role in ("train", "validation", "new-lists", "new-users")
    }  # fmt: skip
    assert users["new-users"]
    assert not users["new-users"] & (users["train"] | users["validation"] | users["new-lists"])


@pytest.mark.parametrize("calls", [5, 60])
def test_a_killed_distillation_ends_with_the_same_weights(split, whole, tmp_path, calls):
    with pytest.raises(KeyboardInterrupt):
        distill(Teacher(killed_after=calls), split, config(), tmp_path / "run", display=QUIET)
    teacher = Teacher()
    distill(teacher, split, config(), tmp_path / "run", display=QUIET)
    weights = "checkpoint/surrogate.safetensors"
    assert (tmp_path / "run" / weights).read_bytes() == (whole / weights).read_bytes()
    repeated = Teacher()
    distill(repeated, split, config(), tmp_path / "run", display=QUIET)
    assert repeated.asked == 0


def test_a_kill_while_learning_asks_nothing_again(split, whole, tmp_path, monkeypatch):
    from usermirror_gym.train.surrogate import fit as surrogate_fit

    epochs = []
    run = surrogate_fit._set_rate

    def killed(*args):
        epochs.append(1)
        if len(epochs) == 7:
            raise KeyboardInterrupt
        run(*args)

    monkeypatch.setattr(surrogate_fit, "_set_rate", killed)
    with pytest.raises(KeyboardInterrupt):
        distill(Teacher(), split, config(), tmp_path / "run", display=QUIET)
    teacher = Teacher(killed_after=10_000)
    distill(teacher, split, config(), tmp_path / "run", display=QUIET)
    assert len(epochs) == 7 + 20 - 6
    weights = "checkpoint/surrogate.safetensors"
    assert (tmp_path / "run" / weights).read_bytes() == (whole / weights).read_bytes()


def test_a_folder_of_another_distillation_is_refused(split, whole):
    with pytest.raises(RunError, match="seed"):
        distill(Teacher(), split, config(seed=1), whole, display=QUIET)
    other = Teacher()
    other.name = "somebody else"
    with pytest.raises(RunError, match="somebody else"):
        distill(other, split, config(), whole, display=QUIET)


def test_a_folder_in_which_somebody_is_at_work_is_refused(split, tmp_path, refused_while_busy):
    refused_while_busy(
        tmp_path, lambda: distill(Teacher(), split, config(), tmp_path, display=QUIET)
    )


def test_a_damaged_part_is_named(split, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        distill(Teacher(killed_after=20), split, config(), tmp_path, display=QUIET)
    path = next((tmp_path / "answers").glob("*.npz"))
    path.write_bytes(b"half")
    with pytest.raises(RunError, match=rf"{path.name}.*Delete it"):
        distill(Teacher(), split, config(), tmp_path, display=QUIET)


def test_where_the_learning_was_is_no_pickle(split, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    assert not list(whole.glob("*.pt"))
    torch.save({"curve": [0.0]}, tmp_path / "run" / "fit.safetensors")
    with pytest.raises(RunError, match=r"cannot read .*fit\.safetensors.*Delete it"):
        distill(Teacher(), split, config(), tmp_path / "run", display=QUIET)


def test_it_learns_other_lists_later_without_forgetting(split, whole):
    """Users whose taste turned round, and the lists of before for the others."""
    surrogate = make_simulator(str(whole / "checkpoint"), split)
    turned = Teacher(reverse=True)
    fresh = ask(turned, [s for s in lists(split, 400, 1) if s.user_id % 2], 20, "turned")
    old = ask(Teacher(), [s for s in lists(split, 400, 2) if s.user_id % 2 == 0], 20, "old")
    before, remembered = divergence(surrogate, fresh), divergence(surrogate, old)
    name = surrogate.name
    redistil(surrogate, turned, fresh, replay=old, seed=0)
    assert divergence(surrogate, fresh) < before / 2
    assert divergence(surrogate, old) < max(2 * remembered, 0.1)
    assert surrogate.name != name


def test_one_list_teaches_nothing(split, whole):
    surrogate = make_simulator(str(whole / "checkpoint"), split)
    with pytest.raises(ConfigError, match="at least 2"):
        redistil(surrogate, Teacher(), lists(split, 1))


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"questions__total": 99}, ConfigError, "total"),
        ({"questions__steps": 1000, "questions__total": 1000}, ConfigError, "questions.total"),
        ({"network__dim": 15}, ConfigError, "multiple of tastes"),
        ({"questions__totl": 1}, UnknownNameError, "total"),
        ({"fit__learning_rate": 0}, ConfigError, "learning_rate"),
        ({"questions__min_history": 1000}, ConfigError, "min_history"),
        ({"questions__agents": ["Pip"]}, UnknownNameError, "Pop"),
    ],
)
def test_settings_that_cannot_be_used(split, tmp_path, changes, error, match):
    with pytest.raises(error, match=match):
        distill(Teacher(), split, config(**changes), tmp_path / "run", display=QUIET)


def test_measures_against_their_formulas():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(4), (2, 50))
    found = Agreement.of(p, q)
    np.testing.assert_allclose(found.kl, rel_entr(p, q).sum(axis=1))
    np.testing.assert_array_equal(found.same, p.argmax(1) == q.argmax(1))
    np.testing.assert_allclose(found.values, 1 - np.stack([p[:, -1], q[:, -1]]))
    same = summary(Agreement.of(p, p), np.arange(50) % 7, 0, 100)
    assert same["kl"]["mean"] == 0
    assert same["agreement"]["mean"] == 1
    assert same["spearman"] == pytest.approx(1)
    assert same["outside"]["error"] == 0
