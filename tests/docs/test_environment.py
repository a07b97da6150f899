"""The docstrings of the environments say what ``gym.make`` gives."""

from __future__ import annotations

import ast
import doctest
import inspect

import gymnasium as gym
import numpy as np
import pytest

from tests.docs.pages import blocks, sections, table
from usermirror_gym.data import TimeSplit
from usermirror_gym.envs import REWARDS, SlateEnv, SlateVectorEnv, make_world
from usermirror_gym.testing.data import tiny_split

DOC = inspect.cleandoc(SlateEnv.__doc__ or "")
SECTIONS = sections(DOC)
K, H = 3, 7


@pytest.fixture(scope="module")
def split() -> TimeSplit:
    return tiny_split()


@pytest.fixture
def env(split: TimeSplit) -> gym.Env:
    return gym.make(
        "UserMirror/Slate-v0", dataset=split, simulator="popularity", slate_size=K, history_size=H
    )


def test_it_has_the_sections_of_gymnasium() -> None:
    assert list(SECTIONS) == [
        "Description", "Action Space", "Observation Space", "Rewards", "Starting State",
        "Episode End", "Arguments", "Information", "Version History",
    ]  # fmt: skip


def test_the_observation_table_is_the_observation_space(env: gym.Env, split: TimeSplit) -> None:
    ratings = split.dataset.interactions["rating"]
    names = {
        "K": K, "H": H, "n_users": split.dataset.n_users, "n_items": split.dataset.n_items,
        "min_rating": min(0.0, ratings.min()), "max_rating": ratings.max(),
    }  # fmt: skip
    space = env.observation_space
    assert isinstance(space, gym.spaces.Dict)
    rows = {row["Key"]: row for row in table(SECTIONS["Observation Space"])}
    assert set(rows) == set(space)
    for key, part in space.items():
        shape, low, high = (eval(rows[key][c], names) for c in ("Shape", "Min", "Max"))
        assert part.shape == shape, key
        assert str(part.dtype) == rows[key]["Type"], key
        if isinstance(part, gym.spaces.Discrete):
            found = (part.start, part.start + part.n - 1)
        else:
            assert isinstance(part, gym.spaces.Box)
            assert len({*part.low.ravel()}) == len({*part.high.ravel()}) == 1
            found = (part.low.flat[0], part.high.flat[0])
        assert found == (low, high), key


def test_the_action_space_is_what_it_says(env: gym.Env, split: TimeSplit) -> None:
    space = env.action_space
    assert isinstance(space, gym.spaces.MultiDiscrete)
    assert space.shape == (K,)
    assert space.dtype == np.int64
    assert (space.start == 1).all()
    assert (space.nvec == split.dataset.n_items).all()


def test_the_rewards_are_all_rewards() -> None:
    assert [row["Name"] for row in table(SECTIONS["Rewards"])] == list(REWARDS)


def test_the_arguments_and_their_defaults_are_those_of_the_code() -> None:
    described = {
        row["Parameter"]: ast.literal_eval(row["Default"]) for row in table(SECTIONS["Arguments"])
    }
    taken = [*inspect.signature(SlateEnv).parameters.values()]
    taken += inspect.signature(make_world).parameters.values()
    assert described == {p.name: p.default for p in taken if p.kind != p.VAR_KEYWORD}
    assert gym.spec("UserMirror/Slate-v0").max_episode_steps == 20


def test_the_vector_environment_takes_these_and_its_own() -> None:
    doc = sections(inspect.cleandoc(SlateVectorEnv.__doc__ or ""))["Arguments"]
    own = {row["Parameter"]: ast.literal_eval(row["Default"]) for row in table(doc)}
    vector = inspect.signature(SlateVectorEnv).parameters
    assert set(vector) - set(own) == set(inspect.signature(SlateEnv).parameters) - {"text"}
    for name, default in own.items():
        assert getattr(vector[name].default, "value", vector[name].default) == default


def test_info_holds_what_the_table_says(env: gym.Env) -> None:
    rows = [row["Key"] for row in table(SECTIONS["Information"])]
    where_told = {"rationale", "prompt_tokens", "cached_tokens"}
    _, at_start = env.reset(seed=0)
    assert set(at_start) == {"user_id", "text"}
    *_, info = env.step(np.arange(1, K + 1))
    assert set(info) == set(rows) - where_told
    assert info["probabilities"].shape == (K + 1,)
    assert info["shown"].shape == (K,)


def test_the_user_leaves_and_the_horizon_comes_as_it_says(split: TimeSplit) -> None:
    nothing = {"dataset": split, "simulator": "uniform", "simulator_options": {"outside": 1.0}}
    ends = []
    for options in ({}, {"session": 2}, {"session": "stay"}):
        env = gym.make("UserMirror/Slate-v0", **nothing, **options)
        env.reset(seed=0)
        steps = 0
        terminated = truncated = False
        while not (terminated or truncated):
            *_, terminated, truncated, _ = env.step(np.arange(1, 6))
            steps += 1
        ends.append((steps, terminated, truncated))
    assert ends == [(3, True, False), (2, True, False), (20, False, True)]


def test_the_example_runs_and_prints_what_it_says() -> None:
    (example,) = (b.content for b in blocks(DOC) if b.kind == "python")
    test = doctest.DocTestParser().get_doctest(example, {}, "SlateEnv", None, 0)
    assert doctest.DocTestRunner().run(test).failed == 0
