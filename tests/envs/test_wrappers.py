from __future__ import annotations

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import TimeLimit

import usermirror_gym  # noqa: F401 - registers the environments
from usermirror_gym.agents.simple import PopAgent, RandomAgent
from usermirror_gym.envs import (
    ScoreWrapper,
    ShortlistWrapper,
    SlateEnv,
    SlateVectorEnv,
    VectorScoreWrapper,
    VectorShortlistWrapper,
)
from usermirror_gym.errors import ActionError, AgentError, ConfigError
from usermirror_gym.testing.envs import check_vector_env

SINGLE = {
    "shortlist": lambda env, source: ShortlistWrapper(env, source, 10),
    "features": lambda env, source: ShortlistWrapper(env, source, 10, features_only=True),
    "scores of the catalogue": lambda env, source: ScoreWrapper(env),
    "scores of candidates": lambda env, source: ScoreWrapper(env, source, size=10),
}
VECTOR = {
    "shortlist": lambda env, source: VectorShortlistWrapper(env, source, 10),
    "features": lambda env, source: VectorShortlistWrapper(env, source, 10, features_only=True),
    "scores of the catalogue": lambda env, source: VectorScoreWrapper(env),
    "scores of candidates": lambda env, source: VectorScoreWrapper(env, source, size=10),
}


class Counting(RandomAgent):
    """Counts how often and for how many rows it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def recommend(self, observations, k):
        self.asked.append(len(observations["user_id"]))
        return super().recommend(observations, k)


@pytest.fixture
def source(split):
    return Counting().fit(split)


@pytest.mark.parametrize("kind", SINGLE)
def test_check_env(world, source, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The checker prefers bare environments, and says so.
        warnings.filterwarnings("ignore", message=".*is different from the unwrapped version.*")
        check_env(SINGLE[kind](SlateEnv(world), source), skip_render_check=True)


@pytest.mark.parametrize("kind", VECTOR)
def test_check_vector_env(world, source, kind):
    def make_env(num_envs, autoreset_mode):
        env = SlateVectorEnv(num_envs, world, autoreset_mode=autoreset_mode, max_episode_steps=5)
        return VECTOR[kind](env, source)

    check_vector_env(make_env, steps=60)


@pytest.mark.parametrize("kind", VECTOR)
def test_single_and_vector_wrappers_agree(world, source, kind, digest):
    single = SINGLE[kind](TimeLimit(SlateEnv(world), 5), source)
    vector = VECTOR[kind](SlateVectorEnv(3, world, max_episode_steps=5), source)
    assert single.observation_space == vector.single_observation_space
    assert single.action_space == vector.single_action_space
    single.action_space.seed(0)
    one, _ = single.reset(seed=6)
    many, _ = vector.reset(seed=6)
    for _ in range(20):
        assert digest(one) == digest({key: value[0] for key, value in many.items()})
        action = single.action_space.sample()
        one, reward, terminated, truncated, _ = single.step(action)
        many, rewards, *_ = vector.step(np.tile(action, (3, 1)))
        assert reward == rewards[0]
        if terminated or truncated:
            one, _ = single.reset()
            many, *_ = vector.step(np.tile(action, (3, 1)))


def test_positions_become_the_candidates_at_them(world, source):
    env = ShortlistWrapper(SlateEnv(world), source, 10)
    observation, _ = env.reset(seed=0)
    candidates = observation["candidates"]
    *_, info = env.step([9, 0, 3, 1, 2])
    assert info["shown"].tolist() == candidates[[9, 0, 3, 1, 2]].tolist()


def test_features_mean_what_they_say(world, source, split):
    env = ShortlistWrapper(SlateEnv(world, session="stay"), source, 10)
    compact = ShortlistWrapper(SlateEnv(world, session="stay"), source, 10, features_only=True)
    full, _ = env.reset(seed=0)
    few, info = compact.reset(seed=0)
    np.testing.assert_array_equal(info["candidates"], full["candidates"])
    counts = split.popularity
    for _ in range(4):
        by_hand = np.log1p(counts[full["candidates"]]) / np.log1p(counts.max())
        np.testing.assert_allclose(full["candidate_popularity"], by_hand, rtol=1e-6)
        np.testing.assert_array_equal(
            full["candidate_shown"], np.isin(full["candidates"], full["last_slate"])
        )
        turns = full["turns"][0]
        assert few["session_progress"] == pytest.approx(turns / (turns + 10))
        assert few["history_fill"] == pytest.approx(full["history_length"] / 12)
        assert few["last_choice"].argmax() == full["last_choice"]
        assert all(value.dtype == np.float32 for value in few.values())
        full = env.step([0, 1, 2, 3, 4])[0]
        few = compact.step([0, 1, 2, 3, 4])[0]


def test_the_source_is_asked_once_per_step_for_all_rows(world, source):
    env = VectorShortlistWrapper(SlateVectorEnv(7, world), source, 10)
    env.reset(seed=0)
    for _ in range(3):
        env.step(env.action_space.sample())
    assert source.asked == [7] * 4


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ([0, 1, 2, 3, 10], r"position 4: candidate 10 is not in 0\.\.9"),
        ([-1, 1, 2, 3, 4], r"position 0: candidate -1 is not in 0\.\.9"),
        ([0, 1, 2, 3], r"expected shape \(5,\)"),
        ([0.0, 1, 2, 3, 4], "dtype float64"),
    ],
)
def test_hostile_positions_are_refused(world, source, action, message):
    env = ShortlistWrapper(SlateEnv(world), source, 10)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(action)
    env.reset(seed=0)
    with pytest.raises(ActionError, match=message):
        env.step(action)
    vector = VectorShortlistWrapper(SlateVectorEnv(2, world), source, 10)
    vector.reset(seed=0)
    if len(action) == 5:
        with pytest.raises(ActionError, match=message.replace("position", "row 1, position")):
            vector.step(np.array([[0, 1, 2, 3, 4], action]))


def test_shortlists_that_cannot_be(world, source, split):
    for size in (4, 41):
        with pytest.raises(
            ConfigError, match=rf"slate size \(5\).*catalogue \(40\), got size {size}"
        ):
            ShortlistWrapper(SlateEnv(world), source, size)
    with pytest.raises(ConfigError, match="needs a UserMirror/Slate environment"):
        ShortlistWrapper(gym.make("CartPole-v1"), source)
    with pytest.raises(AgentError, match="not fitted"):
        ShortlistWrapper(SlateEnv(world), PopAgent(), 10).reset()

    class Short(RandomAgent):
        def recommend(self, observations, k):
            return super().recommend(observations, k - 1)

    with pytest.raises(AgentError, match=r"shape \(1, 9\), expected \(1, 10\)"):
        ShortlistWrapper(SlateEnv(world), Short().fit(split), 10).reset()


def test_the_best_scores_are_shown_best_first(world):
    env = ScoreWrapper(SlateEnv(world))
    env.reset(seed=0)
    scores = np.zeros(40)
    scores[[30, 7]] = 1.0, 2.5
    scores[20:25] = 0.5
    *_, info = env.step(scores)
    assert info["shown"].tolist() == [8, 31, 21, 22, 23]  # ties go to the smaller id


def test_scores_over_candidates(world, source):
    env = ScoreWrapper(SlateEnv(world), source, size=10)
    observation, _ = env.reset(seed=0)
    *_, info = env.step(-np.arange(10.0)[::-1])
    assert info["shown"].tolist() == observation["candidates"][[9, 8, 7, 6, 5]].tolist()


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros(39), r"expected scores of shape \(40,\), got \(39,\)"),
        (np.full(40, np.nan), r"score \(0,\) is nan"),
        (np.r_[np.zeros(39), np.inf], r"score \(39,\) is inf"),
        (["a"] * 40, "scores are numbers"),
    ],
)
def test_hostile_scores_are_refused(world, scores, message):
    env = ScoreWrapper(SlateEnv(world))
    env.reset(seed=0)
    with pytest.raises(ActionError, match=message):
        env.step(scores)


def test_scores_need_slates_underneath(world):
    with pytest.raises(ConfigError, match="whose action is a slate"):
        ScoreWrapper(ScoreWrapper(SlateEnv(world)))
