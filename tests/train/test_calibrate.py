"""Calibration: every score is of users that the weights were not fitted on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from usermirror_gym.errors import ConfigError
from usermirror_gym.progress import Display
from usermirror_gym.simulators.readouts.likelihood import LikelihoodScores, LikelihoodSimulator
from usermirror_gym.simulators.readouts.utility import (
    ChoiceWeights,
    LikelihoodWeights,
    choice_logprobs,
    likelihood_logprobs,
)
from usermirror_gym.train.calibrate import (
    Asked,
    ask,
    cross_fitted,
    fitted_settings,
    scores_of,
    validation_scenes,
)
from usermirror_gym.train.config import Calibration, TrainConfig, read_config
from usermirror_gym.train.data import TrainData

SETTINGS = Calibration()
TRUE = LikelihoodWeights(0.4, -0.2, 3.0, -1.0, 0.1, outside_utility=-4.0)


def config(**overrides: Any) -> TrainConfig:
    return read_config("smollm2-ml100k-next-item", overrides)


def likelihoods(count: int = 3000, seed: int = 0) -> Asked:
    """Choices drawn from a logit with the weights TRUE."""
    rng = np.random.default_rng(seed)
    n_tokens = rng.integers(3, 12, (count, 5)).astype(np.float64)
    cond, uncond = -n_tokens * rng.gamma(2, 1, (2, count, 5))
    counts = rng.integers(2, 6, count)
    mask = np.arange(5) < counts[:, None]
    probs = np.exp(likelihood_logprobs(TRUE, cond, uncond, n_tokens, mask))
    return asked((cond, uncond, n_tokens), mask, drawn(probs, counts, rng), rng)


def letters(temperature: float, bias: tuple[float, ...], count: int = 3000) -> Asked:
    """A model that is too sure of itself and likes certain places."""
    rng = np.random.default_rng(1)
    said = np.log(rng.dirichlet(np.ones(5), count))
    probs = np.exp(choice_logprobs(ChoiceWeights(temperature, bias), said))
    mask = np.ones((count, 4), np.bool_)
    return asked((said,), mask, drawn(probs, np.full(count, 4), rng), rng)


def drawn(probs: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    places = (probs.cumsum(1) < rng.random((len(probs), 1))).sum(1)
    return np.minimum(places, counts)


def asked(values: Any, mask: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> Asked:
    users, sources = rng.integers(0, 200, len(mask)), np.arange(len(mask)) % 2
    return Asked(tuple(values), mask, targets, users, sources, outside=True)


def test_likelihood_weights_come_back() -> None:
    fitted = likelihoods().fit(SETTINGS)
    true = likelihoods(seed=9)
    places = np.where(true.took_none, 5, true.targets)
    rows = np.arange(len(true))
    loss = [-true.logprobs(w)[rows, places].mean() for w in (TRUE, fitted)]
    assert loss[1] < loss[0] + 0.005


def test_temperature_and_position_bias_come_back() -> None:
    weights = letters(2.0, (0.8, 0.0, 0.0, -0.8, 0.5)).fit(SETTINGS)
    assert isinstance(weights, ChoiceWeights)
    assert weights.temperature == pytest.approx(2.0, rel=0.15)
    assert weights.position_bias == pytest.approx((0.8, 0.0, 0.0, -0.8, 0.5), abs=0.2)
    plain = letters(2.0, ()).fit(Calibration(position_bias=False))
    assert isinstance(plain, ChoiceWeights)
    assert plain.position_bias == ()


def test_no_score_is_of_a_user_that_was_fitted_on() -> None:
    """Changing a user's own choices changes nothing in how that user is predicted."""
    before = likelihoods(400)
    user = before.users[0]
    own = before.users == user
    targets = np.where(own & ~before.took_none, 0, before.targets)
    after = replace(before, targets=targets)
    assert (after.targets != before.targets).any()
    first, second = (cross_fitted(a, SETTINGS, 0) for a in (before, after))
    np.testing.assert_array_equal(first[own], second[own])
    assert (first[~own] != second[~own]).any()  # everybody else's weights saw them


def test_cross_fitting_is_a_function_of_the_seed() -> None:
    data = likelihoods(300)
    np.testing.assert_array_equal(cross_fitted(data, SETTINGS, 4), cross_fitted(data, SETTINGS, 4))
    assert (cross_fitted(data, SETTINGS, 4) != cross_fitted(data, SETTINGS, 5)).any()


def test_scores_stay_finite_when_one_user_alone_took_none() -> None:
    data = likelihoods(300)
    targets = np.where(data.took_none & (data.users != data.users[0]), 0, data.targets)
    targets[0] = data.mask[0].sum()
    lonely = replace(data, targets=targets)
    assert set(lonely.users[lonely.took_none]) == {data.users[0]}
    scores = scores_of(lonely, cross_fitted(lonely, SETTINGS, 0), ["a", "b"])
    assert np.isfinite(scores["all"]["log_loss"])


def test_scores_are_those_of_the_true_option() -> None:
    values = (np.zeros((2, 2)),) * 3
    data = Asked(
        values, np.array([[True, True], [True, False]]), np.array([1, 1]), np.array([7, 8]),
        np.array([0, 1]), outside=True,
    )  # fmt: skip
    probs = np.array([[0.2, 0.5, 0.3], [0.9, 0.0, 0.1]])
    with np.errstate(divide="ignore"):
        scores = scores_of(data, np.log(probs), ["first", "second"])
    assert scores["all"]["log_loss"] == pytest.approx(-np.log([0.5, 0.1]).mean())
    assert scores["all"]["accuracy"] == 0.5
    assert scores["all"]["expected_accuracy"] == pytest.approx(0.3)
    assert scores["by_source"]["second"]["accuracy"] == 0.0
    assert scores["uniform"]["log_loss"] == pytest.approx(np.log([3, 2]).mean())
    assert (scores["scenes"], scores["users"]) == (2, 2)


def test_settings_of_a_forced_choice() -> None:
    forced = fitted_settings(LikelihoodWeights(outside_utility=None))
    assert forced["outside_option"] is False
    assert "outside_utility" not in forced
    assert fitted_settings(TRUE)["outside_utility"] == -4.0
    assert fitted_settings(ChoiceWeights(2.0, (0.1, -0.1)))["temperature"] == 2.0


class Scripted(LikelihoodSimulator):
    """Knows the slate only; counts its questions."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def scores(self, scenes: Any) -> LikelihoodScores:
        self.sizes.append(len(scenes))
        width = max(len(s.slate) for s in scenes)
        rows = [[*s.slate, *[0] * (width - len(s.slate))] for s in scenes]
        values = np.array(rows, np.float64)
        return LikelihoodScores(-values, values, np.ones_like(values), values > 0)


def test_scenes_of_all_sizes_are_asked_in_chunks(
    data: TrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("usermirror_gym.train.calibrate._CHUNK", 3)
    simulator = Scripted()
    found = ask(config(), lambda split: simulator, data, display=Display(quiet=True))
    scenes = validation_scenes(config(), data.sources[0], 1)
    assert sum(simulator.sizes) == len(found) == len(scenes)
    assert max(simulator.sizes) == 3
    for row, scene in enumerate(scenes):
        size = len(scene.slate)
        assert found.values[1][row, :size].tolist() == list(scene.slate)
        assert found.mask[row].sum() == size
        assert found.targets[row] == scene.target


def test_too_few_scenes_are_an_error_that_says_what_to_ask_for(data: TrainData) -> None:
    (source,) = data.sources
    one = replace(source, scenes_validation=source.scenes_validation[:1])
    with pytest.raises(ConfigError, match=r"scenes\.validation"):
        validation_scenes(config(), one, 1)
    most = config(**{"calibration.scenes": 5})
    assert len(validation_scenes(most, source, 2)) == 3
