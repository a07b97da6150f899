"""The check must find what it says it finds: one broken environment for each promise."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorWrapper

from usermirror_gym.envs import SlateVectorEnv
from usermirror_gym.testing.envs import check_vector_env


class Broken(VectorWrapper):
    """Passes everything through; subclasses break one thing."""

    def step(self, actions):
        return self.spoil(*self.env.step(actions))

    def spoil(self, observations, rewards, terminated, truncated, info):
        return observations, rewards, terminated, truncated, info


class ReusedArray(Broken):
    buffer = None

    def spoil(self, observations, *rest):
        if self.buffer is None:
            self.buffer = observations["turns"]
        self.buffer[:] = observations["turns"]
        return observations | {"turns": self.buffer}, *rest


class OtherDtype(Broken):
    def spoil(self, observations, *rest):
        return observations | {"turns": observations["turns"].astype(np.int32)}, *rest


class OutOfSpace(Broken):
    def spoil(self, observations, *rest):
        return observations | {"turns": observations["turns"] - 100}, *rest


class IntegerFlags(Broken):
    def spoil(self, observations, rewards, terminated, truncated, info):
        return observations, rewards, terminated.astype(int), truncated, info


class NoMask(Broken):
    def spoil(self, *step):
        step[-1].pop("_choice", None)
        return step


class RewardAtReset(Broken):
    def spoil(self, observations, rewards, terminated, truncated, info):
        rewards = np.where(observations["turns"][:, 0] == 0, 1.0, rewards)
        return observations, rewards, terminated, truncated, info


class LostFinalObservation(Broken):
    def spoil(self, observations, rewards, terminated, truncated, info):
        over = (terminated | truncated)[:, None]
        lost = self.env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
        turns = np.where(over & lost, 0, observations["turns"])
        return observations | {"turns": turns}, rewards, terminated, truncated, info


class SharedLuck(Broken):
    """Draws for all rows from one generator, so that a row depends on how many there are."""

    def spoil(self, observations, rewards, *rest):
        return observations, rewards + self.np_random.random(self.num_envs), *rest


class NotReseeded(Broken):
    count = 0

    def spoil(self, observations, rewards, *rest):
        self.count += 1
        return (
            observations,
            np.where(observations["turns"][:, 0] > 0, rewards + self.count, 0),
            *rest,
        )


class ResetsEverybody(Broken):
    def reset(self, *, seed=None, options=None):
        return self.env.reset(seed=seed)


class WrongSpace(Broken):
    @property
    def action_space(self):
        return self.env.single_action_space


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (ReusedArray, r"step 0: observation\['turns'\] was changed by a later step"),
        (OtherDtype, r"dtype int32, its space says \(4, 1\) and int64"),
        (OutOfSpace, "step 0: the observations are not in observation_space"),
        (IntegerFlags, "terminations must be a bool array"),
        (NoMask, r"info\['choice'\] needs a mask info\['_choice'\] of 4 booleans"),
        (RewardAtReset, "must have reward 0"),
        (LostFinalObservation, "autoreset DISABLED instead of NEXT_STEP.*differs"),
        (SharedLuck, "alone in an environment of one|instead of seed|differs|reward 0"),
        (NotReseeded, "the same environment, seeded again.*differs"),
        (ResetsEverybody, "was not in reset_mask, but its observation changed"),
        (WrongSpace, "action_space is not single_action_space batched 4 times"),
    ],
)
def test_every_broken_promise_is_found(world, broken, message):
    def make_env(num_envs, autoreset_mode):
        return broken(
            SlateVectorEnv(num_envs, world, autoreset_mode=autoreset_mode, max_episode_steps=5)
        )

    with pytest.raises(AssertionError, match=message):
        check_vector_env(make_env, steps=40)


def test_an_endless_environment_cannot_be_checked(world):
    def make_env(num_envs, autoreset_mode):
        return SlateVectorEnv(
            num_envs, world, autoreset_mode=autoreset_mode, session="stay", max_episode_steps=None
        )

    with pytest.raises(AssertionError, match="no episode ended within 10 steps"):
        check_vector_env(make_env, steps=10)
