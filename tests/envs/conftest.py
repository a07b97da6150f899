"""A tiny world, and simulators whose answers a test decides."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest

from usermirror_gym.data import TimeSplit
from usermirror_gym.envs import World, make_world
from usermirror_gym.scenes import Scene, SceneBatch
from usermirror_gym.simulators.base import ChoiceBatch
from usermirror_gym.testing.data import tiny_split


class Scripted:
    """Answers ``answer(batch)`` and remembers the scenes it was asked about."""

    name = "scripted"

    def __init__(self, answer: Callable[[SceneBatch], np.ndarray], **extras: object) -> None:
        self.answer = answer
        self.extras = extras
        self.calls: list[list[Scene]] = []

    def choose(self, scenes):
        batch = SceneBatch.of(scenes)
        self.calls.append(list(batch))
        extras = {k: v(batch) for k, v in self.extras.items()}
        return ChoiceBatch(self.answer(batch), **extras)


@pytest.fixture
def scripted() -> type[Scripted]:
    return Scripted


@pytest.fixture
def always() -> Callable[[int], Scripted]:
    """A simulator that takes one position for certain; ``always(K)`` takes none of these."""

    def make(position: int) -> Scripted:
        def answer(batch: SceneBatch) -> np.ndarray:
            probs = np.zeros((len(batch), batch.slate_size + 1))
            probs[:, position] = 1.0
            return probs

        return Scripted(answer)

    return make


@pytest.fixture(scope="session")
def split() -> TimeSplit:
    return tiny_split()


@pytest.fixture
def world(split: TimeSplit) -> World:
    return make_world(split, simulator="popularity", history_size=12)


@pytest.fixture
def world_of(split: TimeSplit) -> Callable[..., World]:
    """A world around a simulator."""

    def make(simulator, **options) -> World:
        return make_world(split, simulator=simulator, **{"history_size": 12, **options})

    return make


@pytest.fixture(scope="session")
def digest() -> Callable[[object], str]:
    """Hash of nested dicts, tuples and arrays."""

    def feed(tree, into) -> None:
        if isinstance(tree, dict):
            for key in sorted(tree):
                into.update(key.encode())
                feed(tree[key], into)
        elif isinstance(tree, (tuple, list)):
            for value in tree:
                feed(value, into)
        elif isinstance(tree, str):
            into.update(tree.encode())
        else:
            array = np.asarray(tree)
            into.update(str((array.dtype, array.shape)).encode() + array.tobytes())

    def hashed(tree: object) -> str:
        into = hashlib.sha256()
        feed(tree, into)
        return into.hexdigest()

    return hashed
