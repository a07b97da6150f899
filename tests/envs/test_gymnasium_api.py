from __future__ import annotations

import json
import pickle
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FlattenObservation
from gymnasium.wrappers import RecordEpisodeStatistics as RecordSingle
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics

import usermirror_gym  # noqa: F401 - registers the environments
from usermirror_gym.envs import SlateEnv, SlateVectorEnv
from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.testing.envs import check_vector_env

SLATES = np.arange(1, 21).reshape(4, 5)


@pytest.mark.parametrize("render_mode", [None, "ansi", "html"])
def test_check_env_finds_nothing_on_real_data(render_mode):
    env = gym.make("UserMirror/Slate-v0", simulator="popularity", render_mode=render_mode)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)


def test_check_vector_env_finds_nothing(world):
    def make_env(num_envs, autoreset_mode):
        return gym.make_vec(
            "UserMirror/Slate-v0",
            num_envs=num_envs,
            world=world,
            autoreset_mode=autoreset_mode,
            max_episode_steps=7,
        )

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_vector_env(make_env)


def test_both_are_registered_with_the_same_horizon(world):
    assert gym.make("UserMirror/Slate-v0", world=world).spec.max_episode_steps == 20
    env = gym.make_vec("UserMirror/Slate-v0", num_envs=2, world=world)
    assert isinstance(env, SlateVectorEnv)
    assert env.max_episode_steps == 20
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP


def test_make_by_module_name_without_an_import():
    code = (
        "import gymnasium, sys; "
        "env = gymnasium.make('usermirror_gym:UserMirror/Slate-v0', simulator='uniform'); "
        "env.reset(seed=0); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_spec_survives_json():
    env = gym.make(
        "UserMirror/Slate-v0", simulator="popularity", reward={"click": 1.0, "satisfaction": 0.2}
    )
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert again.spec == env.spec
    assert again.unwrapped.core.reward.terms.keys() == {"click", "satisfaction"}
    vector = gym.make_vec("UserMirror/Slate-v0", num_envs=3, simulator="popularity")
    assert json.loads(vector.spec.to_json())["kwargs"]["simulator"] == "popularity"


def test_a_pickled_env_goes_on_as_the_original(world, digest):
    for env in (SlateEnv(world), SlateVectorEnv(4, world)):
        env.reset(seed=5)
        actions = SLATES[0] if isinstance(env, SlateEnv) else SLATES
        env.step(actions)
        copy = pickle.loads(pickle.dumps(env))
        assert digest(copy.step(actions)[:4]) == digest(env.step(actions)[:4])


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_gymnasium_vectorisation_agrees_with_the_native_one(world, digest, kind):
    make = [lambda: gym.make("UserMirror/Slate-v0", world=world, max_episode_steps=6)] * 4
    generic = kind(make)
    native = SlateVectorEnv(4, world, max_episode_steps=6)
    assert generic.single_observation_space == native.single_observation_space
    seen = [digest(env.reset(seed=2)[0]) for env in (generic, native)]
    assert seen[0] == seen[1]
    for _ in range(25):
        one, two = generic.step(SLATES), native.step(SLATES)
        assert digest(one[:4]) == digest(two[:4])
        live = two[4].get("_probabilities", np.zeros(4, bool))
        if live.any():
            np.testing.assert_array_equal(
                one[4]["probabilities"][live], two[4]["probabilities"][live]
            )
    generic.close()


def test_episode_statistics_of_the_standard_wrappers(world):
    env = RecordEpisodeStatistics(SlateVectorEnv(4, world, max_episode_steps=6))
    env.reset(seed=0)
    returns = np.zeros(4)
    resting = np.zeros(4, bool)
    finished = []
    for _ in range(30):
        _, rewards, terminated, truncated, info = env.step(SLATES)
        returns[resting] = 0
        returns += rewards
        resting = terminated | truncated
        if resting.any():
            np.testing.assert_array_equal(info["_episode"], resting)
            np.testing.assert_allclose(info["episode"]["r"][resting], returns[resting])
            finished += info["episode"]["l"][resting].tolist()
    assert max(finished) == 6
    single = RecordSingle(gym.make("UserMirror/Slate-v0", world=world, max_episode_steps=6))
    single.reset(seed=0)
    over = False
    while not over:
        _, _, terminated, truncated, info = single.step(SLATES[0])
        over = terminated or truncated
    assert info["episode"]["l"] == finished[0]


def test_flat_observations_and_info_lists(world):
    flat = FlattenObservation(SlateEnv(world))
    observation, _ = flat.reset(seed=0)
    assert observation.shape == flat.observation_space.shape
    rows = DictInfoToList(SlateVectorEnv(4, world))
    rows.reset(seed=0)
    info = rows.step(SLATES)[4]
    assert [set(row) >= {"probabilities", "item", "rating"} for row in info] == [True] * 4


def test_step_before_reset_says_what_to_do(world):
    for env in (SlateEnv(world), SlateVectorEnv(4, world)):
        with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\)"):
            env.step(SLATES[0])


def test_the_user_is_chosen_by_an_option(world):
    env = SlateEnv(world)
    observation, info = env.reset(seed=0, options={"user_id": 7})
    assert observation["user_id"] == info["user_id"] == 7
    vector = SlateVectorEnv(3, world)
    observation, _ = vector.reset(seed=0, options={"user_id": [5, 6, 7]})
    assert observation["user_id"].tolist() == [5, 6, 7]
    vector.reset(options={"user_id": 9, "reset_mask": np.array([True, False, False])})
    assert vector.core.user_ids.tolist() == [9, 6, 7]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"user_id": 0}, r"user id 0 is not in 1\.\.30"),
        ({"user_id": 31}, r"user id 31 is not in 1\.\.30"),
        ({"user_id": 2.5}, r"user ids are integers in 1\.\.30, got"),
        ({"user_id": "7"}, r"user ids are integers"),
        ({"user_id": [1, 2]}, "one id"),
        ({"userid": 7}, r"unknown reset option 'userid'. Did you mean 'user_id'\?"),
    ],
)
def test_bad_options_are_refused_and_leave_the_session_alone(world, options, message, digest):
    for env in (SlateEnv(world), SlateVectorEnv(3, world)):
        env.reset(seed=1)
        before = digest(env.core.observe())
        with pytest.raises((ConfigError, UnknownNameError), match=message):
            env.reset(seed=2, options=options)
        assert digest(env.core.observe()) == before


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([True, False], "3 booleans"),
        ([1, 0, 0], "3 booleans"),
        ([False] * 3, "one of them True"),
    ],
)
def test_bad_reset_masks_are_refused(world, mask, message):
    env = SlateVectorEnv(3, world)
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=message):
        env.reset(options={"reset_mask": np.array(mask)})


def test_the_first_reset_takes_no_mask(world):
    with pytest.raises(ConfigError, match="first reset"):
        SlateVectorEnv(2, world).reset(options={"reset_mask": np.array([True, False])})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"slate_size": 0}, r"slate_size must be in 1\.\.40"),
        ({"slate_size": 41}, r"slate_size must be in 1\.\.40"),
        ({"duplicates": "keep"}, "'drop' or 'raise'"),
        ({"render_mode": "human"}, "render_mode"),
        ({"session": "patient"}, "Did you mean 'patience'"),
        ({"session": 0}, "at least 1"),
        ({"session": True}, "session must be"),
        ({"reward": "clicks"}, "Did you mean 'click'"),
        ({"reward": {}}, "at least one component"),
        ({"reward": 3}, "a name, a mapping"),
    ],
)
def test_bad_settings_name_the_value_and_the_cure(world, settings, message):
    for make in (SlateEnv, lambda w, **s: SlateVectorEnv(2, w, **s)):
        with pytest.raises((ConfigError, UnknownNameError), match=message):
            make(world, **settings)


def test_vector_settings(world):
    with pytest.raises(ConfigError, match="at least 1"):
        SlateVectorEnv(0, world)
    with pytest.raises(UnknownNameError, match="Valid: Disabled, NextStep"):
        SlateVectorEnv(2, world, autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(ConfigError, match="2 seeds for 3 environments"):
        SlateVectorEnv(3, world).reset(seed=[1, 2])
