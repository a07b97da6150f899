"""The simulated user that ships with the package."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from usermirror_gym.checkpoints import shipped_checkpoints, shipped_folder
from usermirror_gym.data import TimeSplit, load_dataset, time_cut
from usermirror_gym.errors import ConfigError
from usermirror_gym.fidelity.answers import answer
from usermirror_gym.files import read_json
from usermirror_gym.measures.choice_scores import METRICS, ObservedChoices, scores_given_click
from usermirror_gym.scenes import Scene, ScenePlan, build_scenes, swap_histories
from usermirror_gym.simulators import (
    DEFAULT_SIMULATOR,
    AffinitySimulator,
    SessionSimulator,
    UserSimulator,
    make_simulator,
    registry,
)
from usermirror_gym.simulators.affinity.affinity_head import read_head
from usermirror_gym.simulators.checkpoint import read_simulator
from usermirror_gym.testing.data import tiny_split
from usermirror_gym.train.config import TrainConfig, read_config


def test_it_is_small_and_says_where_it_comes_from() -> None:
    assert DEFAULT_SIMULATOR in shipped_checkpoints()
    folder = shipped_folder(DEFAULT_SIMULATOR)
    assert folder is not None
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2e6
    card = (folder / "README.md").read_text()
    for words in ("apache-2.0", "no redistribution", "before T0", "must not be used"):
        assert words in card, words


def test_it_is_what_its_recipe_makes() -> None:
    folder = shipped_folder(DEFAULT_SIMULATOR)
    assert folder is not None
    facts = read_json(folder / "training.json")
    recipe = read_config(DEFAULT_SIMULATOR)
    assert TrainConfig(**facts["recipe"]) == recipe
    assert recipe.affinity is not None
    head = read_head(folder)
    assert head.parts == recipe.affinity.parts
    assert head.d == recipe.affinity.rank + recipe.affinity.memory
    assert read_simulator(DEFAULT_SIMULATOR)["readout"] == "affinity"


def test_it_speaks_of_films_alone() -> None:
    split = tiny_split()
    songs = replace(split, dataset=replace(split.dataset, domain="music"))
    with pytest.raises(ConfigError, match=r"'movie'.*has 'music'.*smollm2-likelihood.*domain=null"):
        make_simulator(DEFAULT_SIMULATOR, songs)
    for films, options in ((split, {}), (songs, {"domain": None})):
        made = make_simulator(DEFAULT_SIMULATOR, films, **options)
        assert isinstance(made, AffinitySimulator)


@pytest.fixture(scope="module")
def ml100k() -> TimeSplit:
    return time_cut(load_dataset())


def score(simulator: UserSimulator, scenes: list[Scene]) -> np.ndarray:
    """``(B, 2)`` accuracy and log-loss."""
    scores = scores_given_click(answer(simulator, scenes).probs, ObservedChoices.of(scenes))
    return scores[:, [METRICS.index(name) for name in ("accuracy", "log_loss")]]


@pytest.mark.slow
def test_it_chooses_far_better_than_chance_and_because_of_the_history(ml100k: TimeSplit) -> None:
    simulator = make_simulator(DEFAULT_SIMULATOR, ml100k)
    assert isinstance(simulator, AffinitySimulator)
    scenes = build_scenes(ml100k, ScenePlan(count=400, seed=1))
    own, swapped = score(simulator, scenes), score(simulator, swap_histories(scenes))
    assert own[:, 0].mean() > 0.4  # of five
    assert own[:, 0].mean() > swapped[:, 0].mean() + 0.08
    assert own[:, 1].mean() < np.log(5) - 0.2


def test_the_better_one_is_what_its_recipe_makes_and_needs_no_llm_for_its_films(
    ml100k: TimeSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shipped_folder("smollm2-session")
    assert folder is not None
    assert sum(path.stat().st_size for path in folder.iterdir()) < 25e6
    assert TrainConfig(**read_json(folder / "training.json")["recipe"]) == read_config(
        "smollm2-session"
    )
    monkeypatch.setattr(registry, "load_engine", None)  # asking an LLM would fail
    simulator = make_simulator("smollm2-session", ml100k)
    assert isinstance(simulator, SessionSimulator)
    scenes = build_scenes(ml100k, ScenePlan(count=400, seed=1, history=1000))
    own, swapped = score(simulator, scenes), score(simulator, swap_histories(scenes))
    assert own[:, 0].mean() > 0.4  # of five
    assert own[:, 0].mean() > swapped[:, 0].mean() + 0.08
    assert own[:, 1].mean() < np.log(5) - 0.2
