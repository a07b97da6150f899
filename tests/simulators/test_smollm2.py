"""The default simulator with its real weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from usermirror_gym.data import TimeSplit, load_dataset, time_cut
from usermirror_gym.engines import DEFAULT_CHECKPOINT
from usermirror_gym.engines.choosing import load_engine
from usermirror_gym.engines.local.transformers_engine import TransformersEngine
from usermirror_gym.fidelity.answers import answer
from usermirror_gym.measures.choice_scores import METRICS, ObservedChoices, scores_given_click
from usermirror_gym.scenes import (
    PromptBuilder,
    Scene,
    ScenePlan,
    build_scenes,
    domain_text,
    swap_histories,
)
from usermirror_gym.simulators import (
    AffinityHead,
    AffinitySimulator,
    LikelihoodSimulator,
    make_simulator,
)
from usermirror_gym.simulators.affinity.affinity_head import write_head
from usermirror_gym.simulators.checkpoint import write_simulator

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ml100k() -> TimeSplit:
    return time_cut(load_dataset())


@pytest.fixture(scope="module")
def simulator(ml100k: TimeSplit) -> LikelihoodSimulator:
    made = make_simulator("smollm2-likelihood", ml100k)
    assert isinstance(made, LikelihoodSimulator)
    return made


def score(simulator: LikelihoodSimulator, scenes: list[Scene]) -> np.ndarray:
    """``(B, 2)`` accuracy and log-loss."""
    scores = scores_given_click(answer(simulator, scenes).probs, ObservedChoices.of(scenes))
    return scores[:, [METRICS.index(name) for name in ("accuracy", "log_loss")]]


def test_it_chooses_better_than_chance_and_because_of_the_history(
    ml100k: TimeSplit, simulator: LikelihoodSimulator
) -> None:
    scenes = build_scenes(ml100k, ScenePlan(count=60))
    own = score(simulator, scenes)
    swapped = score(simulator, swap_histories(scenes))
    assert own[:, 1].mean() < np.log(5)  # better than a uniform answer
    assert own[:, 1].mean() < swapped[:, 1].mean()
    assert own[:, 0].mean() > 0.2


def test_one_scene_at_a_time_gives_the_same_answer(
    ml100k: TimeSplit, simulator: LikelihoodSimulator
) -> None:
    scenes = build_scenes(ml100k, ScenePlan(count=6, seed=5))
    fresh = make_simulator("smollm2-likelihood", ml100k, engine={"reuse_prefix": False})
    together = simulator.choose(scenes).probs
    alone = np.concatenate([fresh.choose([scene]).probs for scene in scenes])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_letters_answer_with_every_option_and_sum_to_one(ml100k: TimeSplit) -> None:
    letters = make_simulator("smollm2-letters", ml100k, permutations=2)
    probs = letters.choose(build_scenes(ml100k, ScenePlan(count=4))).probs
    assert probs.shape == (4, 6)
    assert (probs > 0).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1)


@pytest.fixture(scope="module")
def affinity_folder(ml100k: TimeSplit, tmp_path_factory) -> Path:
    """An untrained head: principal axes of the states of some titles, for memory and option."""
    parts = ((12, "mean"), (30, "last"))
    asked = PromptBuilder(domain_text(ml100k.dataset)).item_lines(tuple(range(1, 61)))
    states = load_engine().item_hidden_states(asked.options, head=asked.answer_prefix, parts=parts)
    mean = states.mean(axis=0)
    axes = np.linalg.svd(states - mean, full_matrices=False)[2][:16].T
    folder = tmp_path_factory.mktemp("affinity")
    lags = -0.1 * np.arange(20)
    write_head(folder, AffinityHead(parts, mean, axes, axes, axes[:, 0], lags), "float16")
    settings = {"checkpoint": DEFAULT_CHECKPOINT, "readout": "affinity", "affinity": 1e-3}
    write_simulator(folder, {**settings, "item_bias": 1e-2, "history_lines": 10})
    return folder


class TestAffinity:
    def test_alone_together_and_from_the_file(
        self, ml100k: TimeSplit, affinity_folder: Path, tmp_path: Path
    ) -> None:
        scenes = build_scenes(ml100k, ScenePlan(count=6, seed=5))
        made = make_simulator(str(affinity_folder), ml100k)
        assert isinstance(made, AffinitySimulator)
        settings = (made.builder, made.head, made.weights)
        together = AffinitySimulator(made.engine, *settings, cache=tmp_path).choose(scenes)
        fresh = AffinitySimulator(made.engine, *settings)
        alone = np.concatenate([fresh.choose([scene]).probs for scene in scenes])
        np.testing.assert_allclose(together.probs, alone, atol=1e-4)
        assert np.abs(together.probs - together.probs[:1]).max() > 0.01

        unloaded = TransformersEngine(DEFAULT_CHECKPOINT)
        again = AffinitySimulator(unloaded, *settings, cache=tmp_path).choose(scenes)
        np.testing.assert_array_equal(again.probs, together.probs)
        assert again.prompt_tokens.sum() == 0
        assert "_model" not in vars(unloaded)

    def test_the_history_and_the_title_count(
        self, ml100k: TimeSplit, affinity_folder: Path
    ) -> None:
        scenes = build_scenes(ml100k, ScenePlan(count=6, seed=5))
        made = make_simulator(str(affinity_folder), ml100k)
        made = AffinitySimulator(made.engine, made.builder, made.head, made.weights)
        own, swapped = made.scores(scenes), made.scores(swap_histories(scenes))
        assert np.abs(own.affinity - swapped.affinity).max() > 1.0
        np.testing.assert_array_equal(own.item_bias, swapped.item_bias)
