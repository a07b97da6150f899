"""Calibration error, entropy and places: by hand, against scikit-learn, and their noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from usermirror_gym.measures.bootstrap import UserBootstrap
from usermirror_gym.measures.calibration import (
    calibration,
    entropy,
    equal_count_bins,
    expected_error,
    positions,
    reliability,
)
from usermirror_gym.measures.choice_scores import ObservedChoices, forced
from usermirror_gym.scenes import Scene


def world(
    s: int, sharpness: float, seed: int = 0
) -> tuple[np.ndarray, ObservedChoices, list[Scene]]:
    """Choices drawn from a logit, and the answers of a chooser whose logits are sharper."""
    rng = np.random.default_rng(seed)
    utility = np.column_stack([rng.normal(0, 1.2, (s, 4)), np.full(s, -1.0)])
    true = np.exp(utility) / np.exp(utility).sum(axis=1, keepdims=True)
    targets = (rng.random((s, 1)) > np.cumsum(true, axis=1)).sum(axis=1)
    said = np.exp(sharpness * utility)
    said /= said.sum(axis=1, keepdims=True)
    slates = 1 + np.argsort(rng.random((s, 30)), axis=1)[:, :4]
    users = np.arange(s) // 4
    scenes = [
        Scene(int(u), (), (), (), tuple(row.tolist()), target=int(t))
        for u, row, t in zip(users, slates, targets, strict=True)
    ]
    return said, ObservedChoices.of(scenes), scenes


def value(found: dict, name: str = "ece") -> float:
    return found[name]["mean"]


def test_two_bins_by_hand() -> None:
    confidence = np.array([0.3, 0.4, 0.8, 0.9])
    hit = np.array([1.0, 0.0, 1.0, 1.0])
    bins = equal_count_bins(confidence, 2)
    assert bins.tolist() == [0, 0, 1, 1]
    # (2/4) |.5 - .35| + (2/4) |1 - .85|
    assert expected_error(confidence, hit, bins).mean == pytest.approx(0.15)
    low, high = reliability(confidence, hit, bins)
    assert low == {"low": 0.3, "high": 0.4, "confidence": pytest.approx(0.35), "accuracy": 0.5,
                   "n": 2}  # fmt: skip
    assert high["accuracy"] == 1.0


def test_bins_as_scikit_learn_has_them() -> None:
    rng = np.random.default_rng(0)
    # 1499 gaps between values are no multiple of 15: no edge of a bin is a value, up to rounding.
    confidence = rng.random(1500)
    hit = (rng.random(1500) < confidence**2).astype(float)
    rows = reliability(confidence, hit, equal_count_bins(confidence))
    right, said = calibration_curve(hit, confidence, n_bins=15, strategy="quantile")
    assert len(rows) == 15
    assert {row["n"] for row in rows} == {100}
    np.testing.assert_allclose([row["accuracy"] for row in rows], right)
    np.testing.assert_allclose([row["confidence"] for row in rows], said)
    error = sum(row["n"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / 1500
    bins = equal_count_bins(confidence)
    assert expected_error(confidence, hit, bins).mean == pytest.approx(error)


def test_equal_confidences_share_a_bin() -> None:
    assert equal_count_bins(np.full(90, 0.2)).tolist() == [0] * 90
    confidence = np.repeat([0.2, 0.5], [80, 10])
    assert equal_count_bins(confidence).tolist() == [0] * 80 + [1] * 10


def test_a_calibrated_chooser_is_within_the_noise_and_a_sure_one_is_not() -> None:
    for s in (400, 3000):
        fair = calibration(*world(s, 1.0)[:2])
        sure = calibration(*world(s, 2.5)[:2])
        assert value(fair) <= fair["if_calibrated"]["high"]
        assert value(sure) > 2 * sure["if_calibrated"]["high"]
        assert value(sure, "options_ece") > 2 * value(fair, "options_ece")
        assert value(sure["outside"]) > 2 * value(fair["outside"])
    few, many = (calibration(*world(s, 1.0)[:2])["if_calibrated"]["mean"] for s in (400, 3000))
    assert few > 2 * many  # noise, and only noise, shrinks with the number of lists


def test_the_noise_is_that_of_calibrated_choosers() -> None:
    errors = [calibration(*world(600, 1.0, seed)[:2]) for seed in range(40)]
    mean = np.mean([value(e) for e in errors])
    assert mean == pytest.approx(errors[0]["if_calibrated"]["mean"], rel=0.15)
    assert np.mean([value(e) <= e["if_calibrated"]["high"] for e in errors]) >= 0.85


def test_a_uniform_chooser_is_perfectly_calibrated() -> None:
    _, choices, _ = world(200, 1.0)
    even = np.full((200, 5), 0.2)
    found = calibration(even, choices)
    assert value(found) == pytest.approx(0)
    assert len(found["bins"]) == 1
    about = entropy(even, choices)
    assert about["mean"] == pytest.approx(np.log(4))
    assert about["real"] == pytest.approx(np.log(4))
    places = positions(even, choices, UserBootstrap(choices.users, 10))
    assert [place["mean"] for place in places] == pytest.approx([0.25] * 4)


def test_entropy_says_who_is_too_sure() -> None:
    fair, sure, vague = (entropy(*world(4000, sharpness)[:2]) for sharpness in (1.0, 2.0, 0.5))
    assert fair["mean"] == pytest.approx(fair["real"], abs=0.03)
    assert sure["mean"] < sure["real"] - 0.1
    assert vague["mean"] > vague["real"] + 0.1


def test_places_are_of_the_commonest_length() -> None:
    scenes = [Scene(1, (), (), (), s, target=0) for s in ((1, 2), (3, 4), (5, 6, 7))]
    probs = np.array([[0.6, 0.2, 0, 0.2], [0.2, 0.2, 0, 0.6], [0, 0, 0.9, 0.1]])
    places = positions(probs, ObservedChoices.of(scenes), UserBootstrap(np.ones(3, np.int64), 10))
    assert [place["mean"] for place in places] == pytest.approx([0.625, 0.375])


def test_the_interval_of_a_place_is_over_users() -> None:
    probs, choices, _ = world(400, 1.0)
    (place, *_) = positions(probs, choices, UserBootstrap(choices.users, 500))
    expected = UserBootstrap(choices.users, 500).intervals(forced(probs, choices.shown)[:, :1])[0]
    assert place == pytest.approx(expected._asdict())
    assert place["low"] < 0.25 < place["high"]


def test_intervals_of_the_error_by_hand() -> None:
    """Two users with one list each: a resample has one of them twice, or both."""
    choices = ObservedChoices(np.array([1, 2]), np.ones((2, 2), bool), np.array([0, 0]))
    probs = np.array([[0.6, 0.4, 0.0], [0.4, 0.6, 0.0]])
    bootstrap = UserBootstrap(choices.users, 400)
    found = calibration(probs, choices, bootstrap)
    # Both are given 0.6, one is right: |0.5 - 0.6|, and 0.4 or 0.6 in a resample of one user.
    assert found["ece"]["mean"] == pytest.approx(0.1)
    # Half of the resamples have both, a quarter each of the others: 0.6 is above their mean.
    assert found["ece"]["high"] == pytest.approx(0.1 + 0.6 - 0.3, abs=0.03)
    assert found["ece"]["low"] == 0
    alone = calibration(probs, replace(choices, users=np.array([1, 1])),
                        UserBootstrap(np.array([1, 1]), 9))  # fmt: skip
    assert np.isnan(alone["ece"]["low"])


def test_intervals_of_the_error_hold_the_truth() -> None:
    """The true error of a chooser whose logits are 1.6 times too sharp, from very many lists."""
    truth_of_it = value(calibration(*world(60_000, 1.6, 99)[:2]))
    intervals = []
    for seed in range(20):
        probs, choices, _ = world(600, 1.6, seed)
        found = calibration(probs, choices, UserBootstrap(choices.users, 200, seed))["ece"]
        assert found["low"] <= found["mean"] <= found["high"]
        intervals.append(found["low"] <= truth_of_it <= found["high"])
    assert np.mean(intervals) >= 0.85


def test_without_any_true_item_there_is_nothing_to_say() -> None:
    scenes = [Scene(1, (), (), (), (1, 2), target=2)]
    probs = np.array([[0.2, 0.2, 0.6]])
    assert calibration(probs, ObservedChoices.of(scenes)) is None
    assert set(entropy(probs, ObservedChoices.of(scenes)).values()) == {None}
