"""The first check of a simulator against real choices."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from usermirror_gym.data import TimeSplit
from usermirror_gym.fidelity.answers import answer
from usermirror_gym.fidelity.quick_check import fidelity_check
from usermirror_gym.measures.choice_scores import METRICS, ObservedChoices, scores_given_click
from usermirror_gym.scenes import Scene, SceneBatch, ScenePlan, build_scenes
from usermirror_gym.simulators import ChoiceBatch, PopularityChooser, UniformChooser
from usermirror_gym.testing.data import tiny_split


@pytest.fixture(scope="module")
def split() -> TimeSplit:
    return tiny_split(n_users=200, n_items=60, seed=1)


class TasteReader:
    """Likes items of the half of the catalogue from which most of the history comes."""

    name = "taste"

    def __init__(self, n_items: int) -> None:
        self.middle = n_items / 2

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        batch = SceneBatch.of(scenes)
        late = np.array([np.mean(np.array(s.history) > self.middle) > 0.5 for s in scenes])
        fits = (batch.slates > self.middle) == late[:, None]
        probs = np.where(fits, 0.9, 0.1)
        probs = np.concatenate([probs / probs.sum(1, keepdims=True) * 0.7,
                                np.full((len(probs), 1), 0.3)], axis=1)  # fmt: skip
        return ChoiceBatch(probs)


def rows(check: dict, chooser: str) -> dict[str, dict]:
    return {r["sampler"]: r for r in check["rows"] if r["chooser"] == chooser}


def test_a_simulator_that_reads_the_history_is_told_from_one_that_does_not(
    split: TimeSplit,
) -> None:
    reads = fidelity_check(split, TasteReader(60), scenes=240, seed=2)
    blind = fidelity_check(split, PopularityChooser(split), scenes=240, seed=2)
    for sampler in ("uniform", "popularity"):
        assert reads["gaps"][sampler]["low"] > 0
        assert blind["gaps"][sampler]["mean"] == 0
        own = rows(reads, "simulator")[sampler]["accuracy"]["mean"]
        assert own > rows(reads, "swapped history")[sampler]["accuracy"]["mean"] + 0.05
    assert "reads the history" in reads["verdict"]
    assert "is not shown to read the history" in blind["verdict"]
    assert "does not beat popularity" in blind["verdict"]
    assert "costs 0 points of accuracy and 0.00 nats" in blind["verdict"]


def test_yardsticks_and_counts(split: TimeSplit) -> None:
    told: list[int] = []
    check = fidelity_check(split, UniformChooser(), scenes=60, progress=told.append)
    assert check["scenes"] == 60
    assert sum(told) == 2 * 60
    for row in rows(check, "uniform").values():
        assert row["accuracy"]["mean"] == pytest.approx(0.2)
        assert row["log_loss"]["mean"] == pytest.approx(np.log(5))
    json.dumps(check)


def test_scores_by_hand() -> None:
    class Fixed:
        name = "fixed"

        def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
            return ChoiceBatch(np.array([[0.4, 0.1, 0.5], [0.25, 0.25, 0.5]]))

    memory = {"user_id": 1, "history": (), "ratings": (), "ages": (), "slate": (1, 2)}
    scenes = [Scene(**memory, target=0), Scene(**memory, target=1)]
    expected = [[1.0, -np.log(0.8)], [0.5, -np.log(0.5)]]  # a tie counts as half
    scores = scores_given_click(answer(Fixed(), scenes).probs, ObservedChoices.of(scenes))
    shown = [METRICS.index(name) for name in ("accuracy", "log_loss")]
    np.testing.assert_allclose(scores[:, shown], expected)


def test_lists_are_as_long_as_asked_for(split: TimeSplit) -> None:
    asked: set[int] = set()

    class Looking(UniformChooser):
        def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
            asked.update(len(scene.slate) for scene in scenes)
            return super().choose(scenes)

    check = fidelity_check(split, Looking(), scenes=40, slate_size=10)
    assert asked == {10}
    assert check["slate_size"] == 10
    for row in rows(check, "uniform").values():
        assert row["log_loss"]["mean"] == pytest.approx(np.log(10))


def test_the_same_seed_asks_about_the_same_scenes(split: TimeSplit) -> None:
    a = fidelity_check(split, TasteReader(60), scenes=40, seed=5)
    assert a == fidelity_check(split, TasteReader(60), scenes=40, seed=5)
    assert a != fidelity_check(split, TasteReader(60), scenes=40, seed=6)
    assert build_scenes(split, ScenePlan(count=3)) == build_scenes(split, ScenePlan(count=3))
