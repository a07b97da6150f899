"""Training of the session readout: what it learns from, and that a kill changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from usermirror_gym.data import TimeSplit
from usermirror_gym.data.dataset import Impressions
from usermirror_gym.errors import ConfigError
from usermirror_gym.files import read_json
from usermirror_gym.progress import Display
from usermirror_gym.simulators import SessionSimulator, make_simulator
from usermirror_gym.simulators.session.session_net import FAR, JUST_NOW, Lines, SessionShape
from usermirror_gym.testing.data import tiny_split
from usermirror_gym.train.config import Session, TrainConfig, read_config
from usermirror_gym.train.run import train
from usermirror_gym.train.session import fit as fit_module
from usermirror_gym.train.session.fit import (
    Log,
    Student,
    _draw_lists,
    _draw_openers,
    _loss,
    _plan,
    fit_student,
    opener_scenes,
)
from usermirror_gym.train.session.heads import Words, metadata
from usermirror_gym.types import ITEM_ID, TIMESTAMP

SETTINGS = Session(
    words="none", dim=8, tastes=2, steps=60, list_steps=60, batch_size=16, list_batch_size=64
)
SHAPE = SessionShape(8, 2)


@pytest.fixture(scope="module")
def split() -> TimeSplit:
    return tiny_split(n_users=60, n_items=40, seed=1)


def fitted(split: TimeSplit, settings: Session = SETTINGS, **options: Any) -> Student:
    codes = np.zeros((split.dataset.n_users + 1, 0), np.int64)
    options = {"words": None, "seed": 0, **options}
    return fit_student(split, codes, shape=SHAPE, settings=settings, **options)


def with_lists(split: TimeSplit, count: int = 3000) -> TimeSplit:
    """Lists of three from which everybody takes film 1, or nothing."""
    rng = np.random.default_rng(0)
    slates = np.stack([rng.permutation(np.arange(1, 11))[:3] for _ in range(count)])
    shown = Impressions(
        np.arange(count).astype(str), rng.integers(1, split.dataset.n_users + 1, count),
        np.sort(rng.integers(split.t0 - 10**6, split.t0, count)), 3 * np.arange(count + 1),
        slates.ravel(), (slates == 1).ravel(),
    )  # fmt: skip
    return TimeSplit(replace(split.dataset, impressions=shown), split.t0)


def test_it_learns_which_half_of_the_films_a_user_likes(split: TimeSplit) -> None:
    student = fitted(split, replace_settings(steps=300, next_share=0.0))
    past, option, _ = student.tables()
    with torch.no_grad():
        match = past @ option.T
    first, second = slice(1, 21), slice(21, 40)
    same = match[first, first].mean() + match[second, second].mean()
    assert same > match[first, second].mean() + match[second, first].mean() + 0.02


def replace_settings(**changes: Any) -> Session:
    return SETTINGS.model_copy(update=changes)


def test_it_learns_from_lists_what_is_taken_and_how_often_nothing_is(split: TimeSplit) -> None:
    settings = replace_settings(steps=0, list_steps=300, learning_rate=0.02)
    data = with_lists(split)
    student = fitted(data, settings)
    log = Log.of(data, np.zeros((data.dataset.n_users + 1, 0), np.int64))
    batch = _draw_lists(log, settings, np.random.default_rng(9))
    with torch.no_grad():
        loss = float(_loss(student, batch))
    taken = (batch.targets < 3).float().mean()  # film 1 is on so many lists, and is always taken
    assert 0.2 < taken < 0.4
    assert loss < 0.1


def killed_at(step: int) -> Callable[[int], None]:
    """Progress of a fit that ends there."""
    done = 0

    def killed(steps: int) -> None:
        nonlocal done
        done += steps
        if done == step:
            raise KeyboardInterrupt

    return killed


def check_same_weights(one: Student, other: Student) -> None:
    for (name, own), theirs in zip(
        one.state_dict().items(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(own, theirs), name


@pytest.mark.parametrize("at", [30, 75])
def test_a_fit_that_was_killed_ends_with_the_same_weights(
    split: TimeSplit, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = with_lists(split, 500)
    monkeypatch.setattr(fit_module, "_SAVE_EVERY", 25)
    whole = fitted(data)
    state = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fitted(data, state=state, progress=killed_at(at))
    told: list[int] = []
    again = fitted(data, state=state, progress=told.append)
    assert told[0] == 25 * (at // 25) > 0
    check_same_weights(whole, again)


def test_only_what_was_before_the_cut_is_learned_from(split: TimeSplit) -> None:
    data = split.dataset
    early = data.interactions[data.interactions[TIMESTAMP] < split.t0].reset_index(drop=True)
    blind = TimeSplit(replace(data, interactions=early), split.t0)
    one, other = (fitted(which, replace_settings(steps=20)) for which in (split, blind))
    assert torch.equal(one.past, other.past)


def test_what_nobody_took_has_nothing_but_its_words(split: TimeSplit) -> None:
    never = np.flatnonzero(split.popularity == 0)
    never = never[never > 0]
    assert len(never)
    past, option, _ = fitted(split).tables()
    assert not past[never].any()
    assert not option[never].any()
    words = np.random.default_rng(0).normal(size=(split.dataset.n_items + 1, 4)).astype(np.float32)
    assert fitted(split, words=words).tables().option[never].any()


def test_openers_come_after_an_hour_and_the_cut_and_know_the_whole_history(
    split: TimeSplit,
) -> None:
    scenes = opener_scenes(split, removed=0.25, slate_size=4, draws=4, seed=3)
    missing = np.mean([scene.target == 4 for scene in scenes])
    assert 0.1 < missing < 0.4
    for scene in scenes:
        assert min(scene.ages) > 3600
        assert len(set(scene.slate)) == 4
        assert not set(scene.history) & set(scene.slate)
        assert list(scene.ages) == sorted(scene.ages, reverse=True)
    events = split.dataset.interactions
    own = events[(events["user_id"] == scenes[0].user_id)].sort_values(TIMESTAMP, kind="stable")
    assert tuple(own[ITEM_ID])[: len(scenes[0].history)] == scenes[0].history
    assert scenes == opener_scenes(split, removed=0.25, slate_size=4, draws=4, seed=3)


def test_steps_on_openers_are_of_what_was_taken_after_a_pause(split: TimeSplit) -> None:
    log = Log.of(split, np.zeros((split.dataset.n_users + 1, 0), np.int64))
    settings = replace_settings(steps=12, opener_share=0.25)
    batch = _draw_openers(log, settings, np.random.default_rng(0))
    before = split.before.sort_values(["user_id", TIMESTAMP], kind="stable")
    gaps = before.groupby("user_id")[TIMESTAMP].diff()
    opened = set(before.loc[gaps > 3600, ITEM_ID])
    assert set(batch.targets[:, 0].tolist()) <= opened
    for items, ages, target in zip(*batch.lines[:2], batch.targets[:, 0], strict=True):
        newest = ages[items != 0][-1]
        assert newest >= FAR
        assert target not in items
    kinds = [kind for kind, _ in _plan(settings, log)]
    assert kinds.count("openers") == 3
    assert {kinds[i] for i in (3, 7, 11)} == {"openers"}
    # A log without pauses has none.
    at_once = split.dataset.interactions.assign(**{TIMESTAMP: 1})
    data = TimeSplit(replace(split.dataset, interactions=at_once), 2)
    log = Log.of(data, log.codes)
    assert "openers" not in [kind for kind, _ in _plan(settings, log)]


def test_of_a_share_of_the_lists_the_newest_lines_are_told_as_those_of_a_session(
    split: TimeSplit,
) -> None:
    data = with_lists(split)
    log = Log.of(data, np.zeros((data.dataset.n_users + 1, 0), np.int64))

    def drawn(share: float) -> Lines:
        settings = replace_settings(list_sessions=share, list_batch_size=500)
        return _draw_lists(log, settings, np.random.default_rng(1)).lines

    plain, told = drawn(0.0), drawn(1.0)
    assert torch.equal(plain.items, told.items)
    new = (told.ages == JUST_NOW) & (told.items != 0)
    assert (told.marks[new] == 0).all()
    assert torch.equal(told.ages[~new], plain.ages[~new])
    assert torch.equal(told.marks[~new], plain.marks[~new])
    counts = new.sum(dim=1)[(told.items != 0).any(dim=1)]
    assert counts.min() >= 1
    assert counts.max() <= 8
    # They are the newest ones: nothing older stands behind.
    real = told.items != 0
    behind = new[:, :-1] & real[:, 1:] & ~new[:, 1:]
    assert not behind.any()


def test_lists_teach_how_much_the_numbers_count(split: TimeSplit) -> None:
    data = with_lists(split)
    weights = fitted(data).weights(data)
    assert weights is not None
    assert weights.match == 1.0
    assert weights.general == (1.0,)
    assert weights.outside_utility is not None
    assert fitted(split).weights(split) is None
    # If something was taken from every list, nobody knows when nothing is.
    shown = data.dataset.impressions
    assert shown is not None
    every = replace(shown, clicked=np.tile([True, False, False], len(shown)))
    taken = TimeSplit(replace(data.dataset, impressions=every), data.t0)
    found = fitted(taken).weights(taken)
    assert found is not None
    assert found.outside_utility is None


def test_nothing_to_learn_from_is_said(split: TimeSplit) -> None:
    few = split.dataset.interactions.groupby("user_id").head(2).reset_index(drop=True)
    lonely = TimeSplit(replace(split.dataset, interactions=few), split.t0)
    with pytest.raises(ConfigError, match="more than 3 interactions"):
        fitted(lonely)


def test_words_are_what_their_map_makes_of_the_states() -> None:
    rng = np.random.default_rng(0)
    states = np.concatenate([np.zeros((1, 12)), rng.normal(size=(30, 12)) * 5 + 2]).astype("f4")
    words = Words.of_states(states, 3, 5)
    assert words.values is not None
    assert words.values.shape == (31, 5)
    assert words.values[1:].std(axis=0) == pytest.approx(np.ones(5), abs=1e-4)
    again = (states[1:].astype(float) - words.mean) @ words.space
    assert again == pytest.approx(words.values[1:], abs=1e-4)
    with pytest.raises(ConfigError, match="read alike"):
        Words.of_states(np.ones((4, 6), np.float32), 3, 2)


def test_metadata_are_years_and_shared_categories(split: TimeSplit) -> None:
    columns = metadata(split.dataset)
    assert len(columns) == split.dataset.n_items
    assert columns.mean(axis=0) == pytest.approx(0, abs=1e-9)
    assert columns.std(axis=0) == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 9}, "no multiple of tastes"),
        ({"ids": False}, "nothing tells items apart"),
        ({"steps": 0, "list_steps": 0}, "nothing would be learned"),
    ],
)
def test_settings_that_cannot_be(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Session(**{**SETTINGS.model_dump(), **change})


def test_the_readout_and_its_settings_need_each_other() -> None:
    with pytest.raises(ConfigError, match="need each other"):
        read_config("smollm2-session", {"readout": "likelihood"})
    alone = read_config("smollm2-session", {"affinity": None})
    assert alone.session is not None
    with pytest.raises(ConfigError, match="'session' need each other"):
        read_config("smollm2-session", {"affinity": None, "readout": "likelihood"})


@pytest.fixture
def recipe(own_log: Path, base: Path) -> TrainConfig:
    """On a log of 60 users, with a random LLM that reads their films."""
    return TrainConfig.model_validate(
        {
            "name": "mine", "checkpoint": str(base),
            "data": {
                "sources": [{"name": str(own_log)}],
                "scenes": {"train": 30, "validation": 60, "eval": 30, "train_slate": [3, 5],
                           "eval_slate": [4, 4], "history": [2, 100], "removed": 0.2},
            },
            "readout": "session", "lora": None,
            "prompt": {"form": "session", "history_lines": 100},
            "session": {"steps": 40, "batch_size": 16, "dim": 8, "components": 6,
                        "parts": [[1, "mean"]], "store": "float32"},
        }
    )  # fmt: skip


def test_a_run_ends_with_a_simulator_that_needs_no_llm_for_what_it_knows(
    recipe: TrainConfig, own_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train(recipe, tmp_path / "run", display=Display(quiet=True))
    facts = read_json(folder / "training.json")
    assert facts["scores"]["all"]["log_loss"] > 0
    from usermirror_gym.data import load_dataset, time_cut
    from usermirror_gym.scenes import Scene
    from usermirror_gym.simulators import registry

    monkeypatch.setattr(registry, "load_engine", None)
    split = time_cut(load_dataset(str(own_log)))
    simulator = make_simulator(str(folder), split)
    assert isinstance(simulator, SessionSimulator)
    assert len(simulator.weights.general) == 6
    scene = Scene(1, (1, 2), (3.0, 4.0), (50, 40), (3, 4, 5))
    probs = simulator.choose([scene]).probs
    assert probs.sum() == pytest.approx(1)
    forced = make_simulator(str(folder), split, outside_option=False)
    assert forced.choose([scene]).probs[0, -1] == 0
