"""Fitted agents that several test modules share."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from usermirror_gym.agents import RecBoleAgent, observations_from_split
from usermirror_gym.testing.data import tiny_split


@pytest.fixture(scope="session")
def tiny():
    return tiny_split()


@pytest.fixture(scope="session")
def everybody(tiny):
    """Observations of all 30 users at T0."""
    return observations_from_split(tiny, np.arange(1, 31), history_size=15, slate_size=5)


@pytest.fixture(scope="session")
def fitted(tiny):
    """``fitted("BPR", epochs=3)`` -> an agent, trained once per session."""

    @functools.cache
    def fit(model, **config):
        return RecBoleAgent(model, config={"epochs": 1, **config}, progress=False).fit(tiny)

    return fit


@pytest.fixture(scope="session")
def split(tiny):
    return tiny


@pytest.fixture(scope="session")
def learner():
    """``learner("SlateQ", **options)`` -> a small one, not fitted."""
    from usermirror_gym.agents.learners.store import agent_class

    def make(kind, **options):
        small = {"source": "Pop", "shortlist": 10, "batch_size": 50} if kind == "PPO" else {"d": 8}
        return agent_class(kind)(**{"seed": 3, **small, **options})

    return make


@pytest.fixture(scope="session")
def practise():
    """``practise(agent, world, iterations)`` plays and learns; returns the numbers of each."""
    from usermirror_gym.envs import SlateVectorEnv

    def run(agent, world, iterations, *, users=20, reward="click", horizon=5):
        env = SlateVectorEnv(users, world, max_episode_steps=horizon, slate_size=5, reward=reward,
                             autoreset_mode="Disabled")  # fmt: skip
        numbers = []
        for _ in range(iterations):
            rng = np.random.default_rng([1, agent.iteration])
            seeds = rng.integers(2**31, size=users).tolist()
            numbers.append(agent.practise(env, rng.choice(world.users, users), seeds))
        return numbers

    return run


@pytest.fixture(scope="session")
def practised(learner, practise):
    """``practised("PPO", split)`` -> trained for two iterations, once per session."""
    from usermirror_gym.envs import make_world

    made = {}

    def make(kind, split):
        if kind in made:
            return made[kind]
        world = make_world(split, simulator="popularity", history_size=12)
        agent = learner(kind).fit(split)
        practise(agent, world, 2)
        agent.explore = False
        made[kind] = agent
        return agent

    return make
