from __future__ import annotations

import builtins
import importlib
import sys
import warnings

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

from gymnasium.vector import VectorWrapper
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from usermirror_gym.agents.simple import PopAgent
from usermirror_gym.data import TimeSplit
from usermirror_gym.envs import (
    ScoreWrapper,
    ShortlistWrapper,
    SlateEnv,
    SlateVectorEnv,
    VectorShortlistWrapper,
)
from usermirror_gym.envs.sb3 import SB3VecEnv
from usermirror_gym.errors import ConfigError, MissingDependencyError

HORIZON = 5


@pytest.fixture
def source(split):
    return PopAgent().fit(split)


@pytest.fixture
def make(world, source):
    def make(n=4, *, shortlist=True, wrap=lambda env: env) -> SB3VecEnv:
        env = SlateVectorEnv(n, world, autoreset_mode="Disabled", max_episode_steps=HORIZON)
        env = wrap(env)
        if shortlist:
            env = VectorShortlistWrapper(env, source, 10, features_only=True)
        return SB3VecEnv(env)

    return make


def test_their_check_env_passes_through_the_wrappers(world, source):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(ShortlistWrapper(SlateEnv(world), source, 10, features_only=True))
        check_env(ScoreWrapper(SlateEnv(world), source, size=10, features_only=True))
        check_env(ShortlistWrapper(SlateEnv(world), source, 10))


def test_it_lives_like_their_own_dummy_vec_env(world, source, make):
    """The same seeds and actions give the same episodes, with the same bookkeeping."""
    from gymnasium.wrappers import TimeLimit

    def single():
        env = TimeLimit(SlateEnv(world), HORIZON)
        return ShortlistWrapper(env, source, 10, features_only=True)

    ours, theirs = make(4), DummyVecEnv([single] * 4)
    for env in (ours, theirs):
        env.seed(3)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    one, two = ours.reset(), theirs.reset()
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(40):
        for key in two:
            np.testing.assert_array_equal(one[key], two[key])
        actions = rng.integers(0, 10, (4, 5))
        one, rewards, dones, infos = ours.step(actions)
        two, their_rewards, their_dones, their_infos = theirs.step(actions)
        np.testing.assert_array_equal(rewards, their_rewards)
        np.testing.assert_array_equal(dones, their_dones)
        assert rewards.dtype == their_rewards.dtype
        for mine, theirs_info in zip(infos, their_infos, strict=True):
            assert mine["TimeLimit.truncated"] == theirs_info["TimeLimit.truncated"]
            assert ("terminal_observation" in mine) == ("terminal_observation" in theirs_info)
            assert mine["item"] == theirs_info["item"]
            for key, value in theirs_info.get("terminal_observation", {}).items():
                np.testing.assert_array_equal(mine["terminal_observation"][key], value)
        ended += dones.sum()
    assert ended >= 8


def test_monitor_counts_whole_sessions(make):
    env = VecMonitor(make(4))
    env.seed(0)
    env.reset()
    lengths = []
    for _ in range(40):
        infos = env.step(np.tile(np.arange(5), (4, 1)))[3]
        lengths += [info["episode"]["l"] for info in infos if "episode" in info]
    assert max(lengths) == HORIZON
    assert min(lengths) >= 3  # the patience
    assert len(lengths) >= 20


def test_actions_count_from_zero_without_a_shortlist_too(make):
    env = make(2, shortlist=False)
    env.seed(0)
    env.reset()
    assert (env.action_space.start == 0).all()
    infos = env.step(np.array([[0, 1, 2, 3, 4], [35, 36, 37, 38, 39]]))[3]
    assert infos[0]["shown"].tolist() == [1, 2, 3, 4, 5]
    assert infos[1]["shown"].tolist() == [36, 37, 38, 39, 40]


def test_seeds_and_options_are_used_once(make):
    env = make(3)
    env.seed(5)
    env.set_options([{"user_id": u} for u in (7, 8, 9)])
    env.reset()
    assert [info["user_id"] for info in env.reset_infos] == [7, 8, 9]
    first = env.step(np.tile(np.arange(5), (3, 1)))[1]
    env.seed(5)
    env.set_options({"user_id": 7})
    env.reset()
    assert [info["user_id"] for info in env.reset_infos] == [7, 7, 7]
    assert env.step(np.tile(np.arange(5), (3, 1)))[1][0] == first[0]
    env.set_options([{"user_id": 7}, {}, {}])
    with pytest.raises(ConfigError, match="'user_id' must be set for all rows or for none"):
        env.reset()


def test_attributes_and_methods_are_those_of_the_vector_env(make):
    env = make(3, wrap=RecordEpisodeStatistics)
    assert env.get_attr("slate_size", indices=[0, 2]) == [5, 5]
    assert env.get_attr("shortlist")[0].size == 10
    assert env.has_attr("world")
    assert not env.has_attr("nonsense")
    assert env.env_is_wrapped(RecordEpisodeStatistics) == [True] * 3
    assert env.env_is_wrapped(VectorWrapper, indices=0) == [True]
    assert env.env_is_wrapped(SB3VecEnv) == [False] * 3
    env.reset()
    live = env.get_attr("live", indices=1)[0]
    assert live.tolist() == [True] * 3
    env.set_attr("max_episode_steps", 2)
    env.step(np.tile(np.arange(5), (3, 1)))
    assert env.step(np.tile(np.arange(5), (3, 1)))[2].all()
    with pytest.raises(ConfigError, match="all rows share"):
        env.set_attr("max_episode_steps", 2, indices=[0])


def test_another_autoreset_mode_says_what_to_do(world):
    with pytest.raises(ConfigError, match='autoreset_mode="Disabled"'):
        SB3VecEnv(SlateVectorEnv(2, world))


def test_without_stable_baselines3_the_error_names_the_extra(monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.startswith("stable_baselines3"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "usermirror_gym.envs.sb3")
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingDependencyError, match=r"usermirror-gym\[rl\]"):
        importlib.import_module("usermirror_gym.envs.sb3")


class HalfPopular(PopAgent):
    """The ten most popular items, then the ten least popular ones, for everybody."""

    def fit(self, data: TimeSplit):
        ranked = np.argsort(-data.popularity[1:], kind="stable") + 1
        self.candidates = np.r_[ranked[:10], ranked[-10:]]
        return self

    def recommend(self, observations, k):
        return np.tile(self.candidates[:k], (len(observations["user_id"]), 1))


@pytest.mark.slow
def test_ppo_learns_to_show_what_is_popular():
    from stable_baselines3 import PPO
    from stable_baselines3.common.evaluation import evaluate_policy

    from usermirror_gym.data import load_dataset, time_cut

    split = time_cut(load_dataset("ml-100k"))
    source = HalfPopular().fit(split)

    def make_env(n: int) -> VecMonitor:
        env = SlateVectorEnv(
            n, dataset=split, simulator="popularity", session="stay", reward="expected_click",
            autoreset_mode="Disabled",
        )  # fmt: skip
        return VecMonitor(SB3VecEnv(VectorShortlistWrapper(env, source, 20, features_only=True)))

    def score(model: PPO) -> tuple[float, float]:
        """Mean return of 32 sessions of 20 lists, and its standard error."""
        env = make_env(32)
        env.seed(1000)
        returns, _ = evaluate_policy(
            model, env, n_eval_episodes=32, deterministic=False, return_episode_rewards=True
        )
        return float(np.mean(returns)), float(np.std(returns) / np.sqrt(len(returns)))

    model = PPO(
        "MultiInputPolicy", make_env(16), n_steps=16, batch_size=128, learning_rate=3e-3, gamma=0.0,
        seed=0, device="cpu",
    )  # fmt: skip
    before, error_before = score(model)
    model.learn(10_000)
    after, error_after = score(model)
    # An untrained policy takes half of its list from the unpopular items.  At 10.5 +- 0.13 clicks
    # in 20 lists before, and 15.2 at best, the margin is out of reach for chance.
    print(f"return {before:.2f} +- {error_before:.2f} -> {after:.2f} +- {error_after:.2f}")
    assert after > before + 2 + 5 * np.hypot(error_before, error_after)
