"""The default simulator with its real weights."""

from __future__ import annotations

import numpy as np
import pytest

from usermirror_gym.data import TimeSplit, load_dataset, time_cut
from usermirror_gym.evaluate.fidelity import score
from usermirror_gym.scenes import ScenePlan, build_scenes, swap_histories
from usermirror_gym.simulators import DEFAULT_SIMULATOR, LikelihoodSimulator, make_simulator

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ml100k() -> TimeSplit:
    return time_cut(load_dataset())


@pytest.fixture(scope="module")
def simulator(ml100k: TimeSplit) -> LikelihoodSimulator:
    made = make_simulator(DEFAULT_SIMULATOR, ml100k)
    assert isinstance(made, LikelihoodSimulator)
    return made


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
    fresh = make_simulator(DEFAULT_SIMULATOR, ml100k, engine={"reuse_prefix": False})
    together = simulator.choose(scenes).probs
    alone = np.concatenate([fresh.choose([scene]).probs for scene in scenes])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_letters_answer_with_every_option_and_sum_to_one(ml100k: TimeSplit) -> None:
    letters = make_simulator("smollm2-letters", ml100k, permutations=2)
    probs = letters.choose(build_scenes(ml100k, ScenePlan(count=4))).probs
    assert probs.shape == (4, 6)
    assert (probs > 0).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1)
