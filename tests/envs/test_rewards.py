from __future__ import annotations

import numpy as np
import pytest

from usermirror_gym.envs import SlateEnv, SlateVectorEnv
from usermirror_gym.envs.rewards import Outcome, Reward
from usermirror_gym.errors import ConfigError, UnknownNameError

# Three users with lists of two: the first takes the second item and rates it 4, the second takes
# nothing, the third takes the first item, whose rating nobody knows.
OUTCOME = Outcome(
    slates=np.array([[3, 5], [1, 2], [8, 9]]),
    probs=np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8], [1.0, 0.0, 0.0]]),
    choices=np.array([1, 2, 0]),
    ratings=np.array([4.0, np.nan, np.nan]),
)


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("click", [1, 0, 1]),
        ("expected_click", [0.7, 0.2, 1.0]),
        ("target_rank", [0.5, 0, 1]),
        ("satisfaction", [4, 0, 0]),
    ],
)
def test_components_by_hand(name, by_hand):
    total, raw = Reward(name)(OUTCOME)
    np.testing.assert_allclose(total, by_hand)
    np.testing.assert_allclose(raw[name], by_hand)


def test_components_add_up_with_their_weights():
    total, raw = Reward({"click": 1.0, "satisfaction": 0.25, "expected_click": -2.0})(OUTCOME)
    np.testing.assert_allclose(total, [1 + 1 - 1.4, -0.4, 1 - 2])
    assert list(raw) == ["click", "satisfaction", "expected_click"]
    np.testing.assert_allclose(raw["satisfaction"], [4, 0, 0])  # raw, not weighted


def test_a_function_is_a_reward():
    total, raw = Reward(lambda outcome: outcome.probs[:, 0])(OUTCOME)
    np.testing.assert_allclose(total, [0.2, 0.1, 1.0])
    assert list(raw) == ["custom"]


def test_a_function_must_answer_for_every_row():
    with pytest.raises(ConfigError, match=r"with shape \(\), expected an array of shape \(3,\)"):
        Reward(lambda outcome: 1.0)(OUTCOME)


def test_an_unknown_name_suggests_the_right_one():
    with pytest.raises(UnknownNameError, match="Did you mean 'satisfaction'"):
        Reward({"satisfacton": 1.0})


def test_the_environments_pay_what_the_components_say(world):
    spec = {"click": 1.0, "satisfaction": 0.1, "target_rank": 0.5}
    env = SlateEnv(world, reward=spec)
    env.reset(seed=0)
    for _ in range(3):
        _, reward, *_, info = env.step([1, 2, 3, 4, 5])
        parts = info["rewards"]
        assert reward == pytest.approx(sum(w * parts[name] for name, w in spec.items()))
        assert parts["click"] == (info["item"] > 0)
        assert parts["target_rank"] == (1 / (info["choice"] + 1) if info["item"] else 0)
    vector = SlateVectorEnv(6, world, reward=spec)
    vector.reset(seed=0)
    _, rewards, *_, info = vector.step(np.tile(np.arange(1, 6), (6, 1)))
    total = sum(w * info[f"rewards/{name}"] for name, w in spec.items())
    np.testing.assert_allclose(rewards, total)


def test_ratings_are_levels_of_the_log_and_only_for_choices(world):
    env = SlateVectorEnv(16, world)
    env.reset(seed=0)
    levels = world.ratings.levels.tolist()
    for _ in range(5):
        *_, info = env.step(np.tile(np.arange(1, 6), (16, 1)))
        live = info["_rating"]
        chosen = live & (info["item"] > 0)
        assert set(info["rating"][chosen]) <= set(levels)
        assert np.isnan(info["rating"][live & ~chosen]).all()
        assert chosen.any()
