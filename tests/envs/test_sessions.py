from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import usermirror_gym  # noqa: F401 - registers the environments
from usermirror_gym.envs import Patience, SlateEnv, SlateVectorEnv, make_world
from usermirror_gym.errors import ConfigError
from usermirror_gym.testing.data import tiny_split

SLATE = np.arange(1, 6)
NONE = 5


def lengths(env: gym.Env, episodes: int = 1) -> list[tuple[int, bool, bool]]:
    """(steps, terminated, truncated) of consecutive episodes."""
    out = []
    for _ in range(episodes):
        env.reset()
        terminated = truncated = False
        steps = 0
        while not (terminated or truncated):
            *_, terminated, truncated, _ = env.step(SLATE)
            steps += 1
        out.append((steps, terminated, truncated))
    return out


@pytest.mark.parametrize(("session", "steps"), [("patience", 3), (1, 1), (Patience(4), 4)])
def test_patience_ends_in_termination(world_of, always, session, steps):
    world = world_of(always(NONE))
    env = gym.make("UserMirror/Slate-v0", world=world, session=session)
    assert lengths(env, 2) == [(steps, True, False)] * 2


def test_a_choice_restores_patience(world_of, scripted):
    def answer(batch):
        probs = np.zeros((len(batch), 6))
        third = batch.turn_counts % 3 == 2
        probs[third, 0] = probs[~third, NONE] = 1.0
        return probs

    env = gym.make("UserMirror/Slate-v0", world=world_of(scripted(answer)), max_episode_steps=12)
    assert lengths(env) == [(12, False, True)]


def test_the_horizon_ends_in_truncation(world_of, always):
    env = gym.make("UserMirror/Slate-v0", world=world_of(always(0)))
    assert lengths(env) == [(20, False, True)]


def test_who_leaves_at_the_horizon_has_left(world_of, always):
    world = world_of(always(NONE))
    env = SlateVectorEnv(2, world, max_episode_steps=3)
    env.reset(seed=0)
    for _ in range(2):
        env.step(np.tile(SLATE, (2, 1)))
    *_, terminated, truncated, _ = env.step(np.tile(SLATE, (2, 1)))
    assert terminated.all()
    assert truncated.all()


def test_without_a_horizon_a_satisfied_user_stays(world_of, always):
    env = SlateVectorEnv(1, world_of(always(0)), max_episode_steps=None)
    env.reset(seed=0)
    for _ in range(100):
        *_, terminated, truncated, _ = env.step(SLATE[None])
        assert not terminated.any()
        assert not truncated.any()


def test_a_session_model_of_ones_own(world_of, always):
    class BoredomAtRandom:
        """Leaves with probability one half, whatever happens."""

        def leaves(self, progress):
            return progress.uniforms < 0.5

    env = SlateVectorEnv(
        200, world_of(always(0)), session=BoredomAtRandom(), autoreset_mode="Disabled"
    )
    env.reset(seed=0)
    left = [int(env.step(np.tile(SLATE, (200, 1)))[2].sum()) for _ in range(4)]
    assert 70 < left[0] < 130
    assert 30 < left[1] < 70
    assert sum(left) <= 200


def test_slates_of_one_item(world):
    env = SlateEnv(world, slate_size=1)
    env.reset(seed=0)
    observation, *_, info = env.step([3])
    assert observation["last_slate"].tolist() == [3]
    assert info["probabilities"].shape == (2,)
    assert info["choice"] in (0, 1)


def test_the_whole_catalogue_as_one_slate(world):
    env = SlateEnv(world, slate_size=40)
    env.reset(seed=0)
    assert env.step(np.arange(1, 41))[4]["probabilities"].shape == (41,)


def test_a_user_without_history_has_a_session():
    split = tiny_split()
    new = int(np.setdiff1d(np.arange(1, 31), split.users_with_history(1))[0])
    world = make_world(split, simulator="popularity", history_size=4, users=[new])
    env = SlateEnv(world, render_mode="ansi")
    observation, info = env.reset(seed=0)
    assert observation["user_id"] == new
    assert observation["history_length"] == 0
    assert not observation["history_items"].any()
    assert info["text"]["history"] == []
    assert "before" not in env.render()
    for _ in range(3):
        observation, _, terminated, _, info = env.step([1, 2, 3, 4, 5])
        if terminated:
            break
    assert env.observation_space.contains(observation)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"history_size": 0}, "history_size must be at least 1"),
        ({"min_history": 999}, "lower min_history"),
        ({"users": []}, "non-empty"),
        ({"users": [[1]]}, "shape"),
        ({"users": [31]}, r"user id 31 is not in 1\.\.30"),
        ({"users": [1.5]}, "integers"),
    ],
)
def test_worlds_that_cannot_be(split, settings, message):
    with pytest.raises(ConfigError, match=message):
        make_world(split, simulator="uniform", **settings)
