"""Classic baselines: fitted on what is before T0, kept, and better than what they must beat."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from filelock import FileLock

from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.fidelity.baselines import BASELINES, KINDS, classic_baselines, fitting
from usermirror_gym.fidelity.baselines.base import Stages
from usermirror_gym.fidelity.baselines.recommenders import Recommender, _saved
from usermirror_gym.fidelity.baselines.registry import RECIPES
from usermirror_gym.measures.choice_scores import ObservedChoices
from usermirror_gym.progress import Display
from usermirror_gym.run_folder import package_versions
from usermirror_gym.scenes import (
    Rankers,
    Scene,
    SceneBatch,
    ScenePlan,
    domain_text,
    draw_scenes,
    swap_histories,
)
from usermirror_gym.scenes.table import SCHEMA, scenes_of
from usermirror_gym.scenes.words.render import scene_table
from usermirror_gym.simulators.base import UserSimulator
from usermirror_gym.testing.data import tiny_split

NOBODY = ("non-personal", "list model")
PAIR = "ItemKNN + non-personal"
QUICK = (*NOBODY, "Pop", "ItemKNN", "sequence kNN", "EASE", "logit")


def table(split: TimeSplit, count: int, window, name: str, seed: int = 0) -> pa.Table:
    plan = ScenePlan(count=count, slate_size=(3, 6), removed=0.15, seed=seed)
    rankers = Rankers(split)
    columns = draw_scenes(rankers, plan, window)
    return scene_table(columns, rankers, domain_text(split.dataset), name)


@pytest.fixture(scope="module")
def split() -> TimeSplit:
    return tiny_split(n_users=100, n_items=40)


@pytest.fixture(scope="module")
def train(split) -> pa.Table:
    return table(split, 350, (None, split.t0), "train")


@pytest.fixture(scope="module")
def evaluation(split) -> pa.Table:
    return table(split, 150, (split.t0, None), "eval")


@pytest.fixture(scope="module")
def none_yet() -> pa.Table:
    return SCHEMA.empty_table()


@pytest.fixture(scope="module")
def fitted(split, train, none_yet):
    return classic_baselines(split, train, none_yet, names=(*QUICK, PAIR, "stack"))


def forced_loss(chooser: UserSimulator, scenes: pa.Table) -> float:
    choices = ObservedChoices.of(scenes_of(scenes))
    items = chooser.choose(choices.batch).probs[choices.contains_choice, :-1]
    right = items[np.arange(len(items)), choices.targets[choices.contains_choice]]
    return float(-np.log(right / items.sum(axis=1)).mean())


def test_names_and_kinds():
    assert list(BASELINES) == [
        *NOBODY, "Pop", "ItemKNN", "sequence kNN", "BPR", "EASE", "SASRec", "logit", "trees", PAIR,
        "stack",
    ]  # fmt: skip
    assert KINDS["SASRec"] == KINDS[PAIR] == "classic"
    assert {KINDS[name] for name in NOBODY} == {"control"}
    assert KINDS["stack"] == "reference"


def test_choosers_come_in_the_order_asked_for(fitted):
    assert list(fitted) == [*QUICK, PAIR, "stack"]
    assert all(isinstance(chooser, UserSimulator) for chooser in fitted.values())
    assert [chooser.name for chooser in fitted.values()] == list(fitted)
    assert fitted["stack"].about["settings"] == {"members": list(QUICK)}
    assert fitted["EASE"].about["seconds"] > 0


def test_a_pair_is_weighed_from_its_parts_whoever_else_is_asked(
    split, train, none_yet, fitted, evaluation
):
    found = classic_baselines(split, train, none_yet, names=(PAIR, "stack", "Pop"))
    assert list(found) == [PAIR, "stack", "Pop"]
    assert found[PAIR].about["settings"] == {"members": ["ItemKNN", "non-personal"]}
    assert found["stack"].about["settings"] == {"members": ["Pop"]}
    scenes = scenes_of(evaluation)
    assert (found[PAIR].choose(scenes).probs == fitted[PAIR].choose(scenes).probs).all()


@pytest.mark.parametrize("name", NOBODY)
def test_who_knows_nobody_says_the_same_to_everybody(fitted, evaluation, name):
    scenes = scenes_of(evaluation)
    others = swap_histories(scenes)
    assert (fitted[name].choose(scenes).probs == fitted[name].choose(others).probs).all()
    assert (fitted[PAIR].choose(scenes).probs != fitted[PAIR].choose(others).probs).any()


@pytest.mark.parametrize("name", [*QUICK, PAIR, "stack"])
def test_answers_are_distributions_whatever_the_company(fitted, evaluation, name):
    scenes = scenes_of(evaluation)[:40]
    probs = fitted[name].choose(scenes).probs
    shown = SceneBatch.of(scenes).slates != 0
    assert probs.shape == (40, shown.shape[1] + 1)
    assert probs.sum(axis=1) == pytest.approx(np.ones(40), abs=1e-12)
    assert (probs[:, :-1][~shown] == 0).all()
    assert (probs[:, -1] > 0).all()
    for row in (0, 7, 23):
        alone = fitted[name].choose([scenes[row]]).probs[0]
        own = np.r_[probs[row, :-1][shown[row]], probs[row, -1]]
        assert alone == pytest.approx(own, abs=1e-12)


@pytest.mark.parametrize("name", QUICK)
def test_options_in_another_order_keep_their_probabilities(fitted, evaluation, name):
    scenes = scenes_of(evaluation)[:20]
    turned = [replace(s, slate=s.slate[::-1]) for s in scenes]
    for scene, other in zip(scenes, turned, strict=True):
        first, second = (fitted[name].choose([s]).probs[0] for s in (scene, other))
        assert second[:-1][::-1] == pytest.approx(first[:-1], abs=1e-12)


def test_those_who_read_the_history_know_taste(fitted, evaluation):
    """Two groups of users like two halves of the films: popularity cannot see that."""
    losses = {name: forced_loss(chooser, evaluation) for name, chooser in fitted.items()}
    for name in ("ItemKNN", "EASE", "logit", PAIR, "stack"):
        assert losses[name] < losses["Pop"] - 0.15, losses
    assert losses["stack"] < min(losses[name] for name in QUICK) + 0.05, losses


def test_an_empty_history_and_an_unknown_user_get_an_answer(fitted):
    nobody = Scene(user_id=0, history=(), ratings=(), ages=(), slate=(3, 25, 31))
    stranger = Scene(user_id=10**6, history=(3,), ratings=(float("nan"),), ages=(-1,), slate=(5,))
    for chooser in fitted.values():
        probs = chooser.choose([nobody, stranger]).probs
        assert np.isfinite(probs).all()
        assert probs.sum(axis=1) == pytest.approx([1, 1])
    assert fitted["Pop"].choose([]).probs.shape == (0, 1)


def test_same_seed_same_answers(split, train, none_yet, fitted, evaluation):
    again = classic_baselines(split, train, none_yet, names=("EASE", "logit"))
    scenes = scenes_of(evaluation)
    for name, chooser in again.items():
        assert (chooser.choose(scenes).probs == fitted[name].choose(scenes).probs).all()


def test_nothing_after_t0_is_learned_from(split, train, none_yet, fitted, evaluation):
    log = split.dataset.interactions
    late = log["timestamp"] >= split.t0
    changed = log.assign(item_id=log["item_id"].mask(late, 7), rating=log["rating"].mask(late, 1))
    other = TimeSplit(replace(split.dataset, interactions=changed), split.t0)
    scenes = scenes_of(evaluation)
    for name, chooser in classic_baselines(other, train, none_yet, names=QUICK).items():
        assert (chooser.choose(scenes).probs == fitted[name].choose(scenes).probs).all(), name


def test_a_calibration_scene_is_after_all_that_its_models_saw(split, train, none_yet):
    stages = Stages.of(split, train, none_yet)
    assert stages.calibration.times.min() >= stages.inner.split.t0
    assert stages.inner.choices.times.max() < stages.inner.split.t0
    assert stages.inner.split.before["timestamp"].max() < stages.inner.split.t0 < split.t0
    assert len(stages.calibration) + len(stages.inner.choices) == len(train)
    assert len(stages.calibration) == pytest.approx(0.3 * len(train), abs=3)
    assert len(stages.outer.choices) == len(train)


def test_what_was_settled_is_kept(
    split, train, none_yet, fitted, evaluation, tmp_path, monkeypatch
):
    names = ("Pop", "EASE", "stack")
    first = classic_baselines(split, train, none_yet, names=names, store=tmp_path)

    def again(self, stages):
        raise AssertionError("settled twice")

    monkeypatch.setattr(type(RECIPES["Pop"]), "settle", again)
    monkeypatch.setattr(type(RECIPES["EASE"]), "settle", again)
    second = classic_baselines(split, train, none_yet, names=names, store=tmp_path)
    scenes = scenes_of(evaluation)
    for name in names:
        assert (first[name].choose(scenes).probs == second[name].choose(scenes).probs).all()
    assert (second["EASE"].choose(scenes).probs == fitted["EASE"].choose(scenes).probs).all()
    with pytest.raises(AssertionError, match="settled twice"):  # other scenes, other fits
        classic_baselines(split, train[:300], none_yet, names=("EASE",), store=tmp_path)


def other_recipe(facts: dict) -> str:
    return json.dumps({**facts, "recipe": {**facts["recipe"], "grid": {"reg": [7.0]}}})


def without_a_setting(facts: dict) -> str:
    """As a version left it that knew one setting less, and kept no recipe."""
    settings = {k: v for k, v in facts["settings"].items() if k != "decay"}
    return json.dumps({k: v for k, v in facts.items() if k != "recipe"} | {"settings": settings})


def with_other_settings(facts: dict) -> str:
    return json.dumps({**facts, "logit": {"weights": [1.0]}})


DAMAGE = {
    "another recipe": ("json", lambda old: other_recipe(json.loads(old))),
    "an old version": ("json", lambda old: without_a_setting(json.loads(old))),
    "another logit": ("json", lambda old: with_other_settings(json.loads(old))),
    "a list": ("json", lambda old: "[]"),
    "no JSON": ("json", lambda old: old[:40].decode()),
    "no arrays": ("npz", lambda old: "not a file of arrays"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_kept_and_of_no_use_is_made_anew(
    split, train, none_yet, fitted, evaluation, tmp_path, damage
):
    classic_baselines(split, train, none_yet, names=("EASE",), store=tmp_path)
    ending, harm = DAMAGE[damage]
    (kept,) = tmp_path.rglob(f"EASE.{ending}")
    before = kept.read_bytes()
    kept.write_text(harm(before))
    found = classic_baselines(split, train, none_yet, names=("EASE",), store=tmp_path)["EASE"]
    scenes = scenes_of(evaluation)
    assert (found.choose(scenes).probs == fitted["EASE"].choose(scenes).probs).all()
    (facts,) = tmp_path.rglob("EASE.json")
    assert json.loads(facts.read_text())["recipe"] == RECIPES["EASE"].describe()


def test_other_versions_of_packages_have_a_folder_of_their_own(
    split, train, none_yet, tmp_path, monkeypatch
):
    classic_baselines(split, train, none_yet, names=("Pop",), store=tmp_path)
    classic_baselines(split, train, none_yet, names=("Pop",), store=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    now = package_versions()
    assert {"recbole", "scikit-learn", "usermirror-gym"} <= now.keys()
    for name in ("recbole", "scikit-learn", "usermirror-gym"):
        monkeypatch.setattr(fitting, "package_versions", lambda n=name: {**now, n: "0"})
        classic_baselines(split, train, none_yet, names=("Pop",), store=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_two_processes_take_turns_and_the_second_says_that_it_waits(
    split, train, none_yet, tmp_path
):
    classic_baselines(split, train, none_yet, names=("Pop",), store=tmp_path)
    (lock,) = tmp_path.rglob(".lock")
    said: list[str] = []

    class Telling(Display):
        def say(self, message: str) -> None:
            said.append(message)
            if "waiting" in message:
                other.release()  # the other process ends

    other = FileLock(lock)
    other.acquire()
    classic_baselines(split, train, none_yet, names=("Pop",), store=tmp_path, display=Telling())
    assert [message for message in said if "another process fits in" in message]
    FileLock(lock).acquire(timeout=0)  # it was given back


def test_every_recipe_says_what_it_tries():
    described = [RECIPES[name].describe() for name in RECIPES]
    assert len({json.dumps(d) for d in described}) == len(RECIPES)
    bpr = Recommender(model="BPR", configs=RECIPES["BPR"].configs, max_epochs=60)
    assert bpr.describe() != RECIPES["BPR"].describe()  # other servings


def test_an_agent_that_cannot_be_read_is_trained_anew(tmp_path):
    assert _saved(tmp_path / "nowhere", {}) is None
    (tmp_path / "agent.json").write_text("{")
    assert _saved(tmp_path, {}) is None


def test_a_wrong_name_suggests_the_right_one(split, train, none_yet):
    with pytest.raises(UnknownNameError, match="Did you mean 'SASRec'"):
        classic_baselines(split, train, none_yet, names=("SASrek",))


def test_scenes_after_t0_are_refused(split, train, evaluation):
    with pytest.raises(ConfigError, match=r"150 of 500 scenes .* are not before T0"):
        classic_baselines(split, train, evaluation, names=("Pop",))


def test_too_few_scenes_are_refused(split, train, none_yet):
    with pytest.raises(ConfigError, match="at least 100 scenes"):
        classic_baselines(split, none_yet, train[:60], names=("Pop",))
    with pytest.raises(ConfigError, match="inner cut"):
        classic_baselines(split, train[:110], none_yet, names=("Pop",))


@pytest.mark.slow
def test_recommenders_trees_and_their_stack(
    split, train, none_yet, evaluation, tmp_path: Path, monkeypatch
):
    recipes = {
        "BPR": Recommender(model="BPR", configs=[{"learning_rate": 0.02}], max_epochs=30,
                           servings=RECIPES["BPR"].servings),
        "SASRec": Recommender(model="SASRec", configs=RECIPES["SASRec"].configs[:1],
                              max_epochs=25),
    }  # fmt: skip
    for name, recipe in recipes.items():
        monkeypatch.setitem(RECIPES, name, recipe)
    names = ("Pop", "BPR", "SASRec", "trees", "stack")
    found = classic_baselines(split, train, none_yet, names=names, store=tmp_path)
    losses = {name: forced_loss(chooser, evaluation) for name, chooser in found.items()}
    assert max(losses[name] for name in names[1:]) < losses["Pop"] - 0.1, losses
    assert 1 <= found["SASRec"].about["settings"]["config"]["epochs"] <= 25
    again = classic_baselines(split, train, none_yet, names=names, store=tmp_path)
    scenes = scenes_of(evaluation)
    for name in names:  # the agents are read from the store
        assert (
            np.abs(again[name].choose(scenes).probs - found[name].choose(scenes).probs).max() < 1e-6
        )
