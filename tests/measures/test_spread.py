"""How many items are taken, and how evenly."""

from __future__ import annotations

import numpy as np
import pytest

from usermirror_gym.measures.choice_scores import ObservedChoices
from usermirror_gym.measures.spread import spread
from usermirror_gym.scenes import Scene


def test_by_hand() -> None:
    scenes = [Scene(1, (), (), (), (7, 8), target=t) for t in (0, 0, 0, 1)]
    scenes.append(Scene(1, (), (), (), (9, 5), target=2))  # without its item: of no concern
    choices = ObservedChoices.of(scenes)
    probs = np.array([[0.5, 0.0, 0.5]] * 4 + [[0.0, 1.0, 0.0]])
    found = spread(probs, choices)
    assert found is not None
    real = {name: about["real"] for name, about in found.items()}
    entropy = -0.75 * np.log(0.75) - 0.25 * np.log(0.25)
    assert real == pytest.approx({"gini": 0.25, "entropy": entropy, "coverage": 1.0})
    for name, value in {"gini": 0.5, "entropy": 0.0, "coverage": 0.5}.items():
        one = found[name]
        assert (one["mean"], one["low"], one["high"]) == (value, value, value)
    assert spread(probs[4:], choices.select(np.array([4]))) is None


def test_a_right_user_spreads_like_the_real_ones_and_a_sure_one_does_not() -> None:
    rng = np.random.default_rng(0)
    utility = rng.normal(0, 1, 61)
    slates = np.array([1 + rng.permutation(60)[:5] for _ in range(800)])
    mass = np.exp(utility[slates])
    probs = mass / mass.sum(axis=1, keepdims=True)
    targets = (rng.random((800, 1)) >= np.cumsum(probs, axis=1)).sum(axis=1)
    scenes = [
        Scene(u, (), (), (), tuple(s.tolist()), target=int(t))
        for u, (s, t) in enumerate(zip(slates, targets, strict=True))
    ]
    choices = ObservedChoices.of(scenes)
    right = spread(np.column_stack([probs, np.zeros(800)]), choices)
    sure = spread(np.eye(6)[probs.argmax(axis=1)], choices)
    assert right is not None
    assert sure is not None
    for name, about in right.items():
        assert about["low"] <= about["real"] <= about["high"], name
    assert sure["gini"]["mean"] > right["gini"]["high"] + 0.05
    assert sure["entropy"]["mean"] < right["entropy"]["low"] - 0.1
    assert sure["coverage"]["mean"] < right["coverage"]["low"]
