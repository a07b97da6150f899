from __future__ import annotations

import os
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

import usermirror_gym  # noqa: F401 - registers the environments
from usermirror_gym.envs import SlateEnv, SlateVectorEnv

STEPS = 60
HORIZON = 6


def actions_of(row: int) -> list[np.ndarray]:
    rng = np.random.default_rng(100 + row)
    return [rng.permutation(40)[:5] + 1 for _ in range(STEPS)]


def single(world, seed: int, row: int, env: gym.Env | None = None) -> list:
    """Everything that ``STEPS`` steps of consecutive episodes return."""
    if env is None:
        env = gym.make("UserMirror/Slate-v0", world=world, max_episode_steps=HORIZON)
    story = [env.reset(seed=seed)[0]]
    for action in actions_of(row):
        observation, reward, terminated, truncated, info = env.step(action)
        story.append((observation, reward, terminated, truncated, info["probabilities"]))
        if terminated or truncated:
            story.append(env.reset()[0])
    return story


def vector(world, seed: int, n: int) -> list[list]:
    """The same of every row, with the environment's own resets."""
    env = SlateVectorEnv(n, world, max_episode_steps=HORIZON)
    queues = [iter(actions_of(row)) for row in range(n)]
    pending = [next(queue) for queue in queues]
    observations, _ = env.reset(seed=seed)
    stories = [[{k: v[row] for k, v in observations.items()}] for row in range(n)]
    resting = np.zeros(n, bool)
    done = np.zeros(n, bool)
    while not done.all():
        observations, rewards, terminated, truncated, info = env.step(np.array(pending))
        for row in np.flatnonzero(~done):
            observation = {k: v[row] for k, v in observations.items()}
            if resting[row]:
                stories[row].append(observation)
                done[row] = pending[row] is STOP
                continue
            stories[row].append(
                (
                    observation,
                    float(rewards[row]),
                    bool(terminated[row]),
                    bool(truncated[row]),
                    info["probabilities"][row],
                )
            )
            pending[row] = next(queues[row], STOP)
            done[row] = pending[row] is STOP and not (terminated[row] or truncated[row])
        resting = terminated | truncated
    return stories


STOP = np.arange(1, 6)


def test_a_story_has_several_episodes_that_end_in_both_ways(world):
    steps = [s for s in single(world, 3, 0) if isinstance(s, tuple)]
    assert sum(s[2] for s in steps) >= 2
    assert sum(s[3] for s in steps) >= 2


def test_fresh_and_reseeded_environments(world, digest):
    env = gym.make("UserMirror/Slate-v0", world=world, max_episode_steps=HORIZON)
    first = digest(single(world, 3, 0, env))
    assert digest(single(world, 3, 0, env)) == first
    assert digest(single(world, 3, 0)) == first
    assert digest(single(world, 4, 0)) != first


def test_reseeding_in_the_middle_of_an_episode(world, digest):
    env = SlateEnv(world)
    env.reset(seed=8)
    for action in actions_of(0)[:2]:
        env.step(action)
    again, _ = env.reset(seed=8)
    assert digest(again) == digest(SlateEnv(world).reset(seed=8)[0])


@pytest.mark.parametrize("n", [1, 8])
def test_rows_live_like_single_environments(world, digest, n):
    for row, story in enumerate(vector(world, 3, n)):
        assert digest(story) == digest(single(world, 3 + row, row)), f"row {row} of {n}"


def test_a_chosen_user_has_the_luck_of_a_drawn_one(world, digest):
    env = SlateEnv(world)
    drawn, _ = env.reset(seed=1)
    after_draw = [env.step(a)[4]["choice"] for a in actions_of(0)[:3]]
    env.reset(seed=1, options={"user_id": int(drawn["user_id"])})
    assert [env.step(a)[4]["choice"] for a in actions_of(0)[:3]] == after_draw


def test_luck_does_not_repeat_in_long_sessions(world_of, scripted):
    world = world_of(scripted(lambda b: np.full((len(b), 6), 1 / 6)))
    env = SlateEnv(world, session="stay", text=False)
    env.reset(seed=0)
    choices = [env.step(np.arange(1, 6))[4]["choice"] for _ in range(128)]
    blocks = [choices[i : i + 32] for i in range(0, 128, 32)]
    assert len({tuple(block) for block in blocks}) == 4
    assert np.bincount(choices, minlength=6).min() >= 8


CODE = """
import hashlib, sys
import numpy as np
from usermirror_gym.envs import SlateVectorEnv, make_world
from usermirror_gym.testing.data import tiny_split
env = SlateVectorEnv(4, make_world(tiny_split(), simulator="popularity"), max_episode_steps=6)
actions = np.random.default_rng(0).permuted(np.tile(np.arange(1, 41), (4, 1)), axis=1)[:, :5]
sha = hashlib.sha256()
def feed(observations, *arrays):
    for array in (*observations.values(), *arrays):
        sha.update(array.tobytes())
feed(env.reset(seed=11)[0])
for _ in range(40):
    feed(*env.step(actions)[:4])
print(sha.hexdigest())
"""


def test_separate_processes_live_the_same_episodes():
    hashes = {
        subprocess.run(
            [sys.executable, "-c", CODE],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1
    assert len(hashes.pop().strip()) == 64
