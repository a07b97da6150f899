"""Environments around a language model are copied and sent to other processes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv

from tests.engines.conftest import build_model, build_tokenizer
from usermirror_gym.data import TimeSplit
from usermirror_gym.envs import SlateEnv, SlateVectorEnv, World, make_world
from usermirror_gym.simulators import AffinityHead
from usermirror_gym.simulators.affinity.affinity_head import write_head
from usermirror_gym.simulators.checkpoint import write_simulator

SLATE = [1, 2, 3]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    build_model("llama").save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(params=["letters", "likelihood", "affinity", "letters with a store"])
def world(split: TimeSplit, weights: str, request: pytest.FixtureRequest, tmp_path: Path) -> World:
    readout, _, stored = request.param.partition(" ")
    options = {"form": "scene", "history_lines": 2, "drop_lines": 1, "engine": {"dtype": "float32"}}
    if readout == "affinity":
        rng = np.random.default_rng(0)
        arrays = (rng.normal(size=shape) for shape in ((32,), (32, 2), (32, 2), (32,), (20,)))
        write_head(tmp_path, AffinityHead(((1, "mean"),), *arrays))
        write_simulator(tmp_path, {"checkpoint": "a/b", "readout": readout, "history_lines": 20})
        options = {"checkpoint": weights}
        weights = str(tmp_path)
    if stored:
        options["answers"] = str(tmp_path / "answers.sqlite")
    return make_world(
        split,
        simulator=weights,
        simulator_options={"readout": readout, **options},
        history_size=12,
    )


def answers(env: gym.Env | SlateVectorEnv) -> np.ndarray:
    n = getattr(env, "num_envs", None)
    return env.step(SLATE if n is None else [SLATE] * n)[-1]["probabilities"]


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["copy", "pickle"]
)
def test_a_copy_goes_on_as_the_original_with_the_same_weights(
    world: World, again: Callable, used: bool
) -> None:
    assert again(world).simulator.engine is world.simulator.engine
    for env in (SlateEnv(world, slate_size=3), SlateVectorEnv(3, world, slate_size=3)):
        env.reset(seed=5)
        if used:
            answers(env)
        twin = again(env)
        np.testing.assert_allclose(answers(twin), answers(env), atol=1e-5)
        core = (env if isinstance(env, SlateVectorEnv) else env.unwrapped).core
        assert twin.core.world.simulator.engine is core.world.simulator.engine


@pytest.mark.slow
@pytest.mark.parametrize("world", ["letters with a store"], indirect=True)
def test_workers_that_start_anew_give_the_same_answers(world: World) -> None:
    native = SlateVectorEnv(2, world, slate_size=3)
    workers = AsyncVectorEnv([lambda: SlateEnv(world, slate_size=3)] * 2, context="spawn")
    try:
        native.reset(seed=3)
        workers.reset(seed=3)
        found = workers.step([SLATE] * 2)[-1]["probabilities"]
        np.testing.assert_allclose(np.stack(found), answers(native), atol=1e-5)
    finally:
        workers.close()
