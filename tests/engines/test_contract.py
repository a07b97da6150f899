"""The engine keeps the contract that ships with the package."""

from __future__ import annotations

import pytest

from usermirror_gym.engines.choosing import load_engine
from usermirror_gym.testing.engines import EngineContract


@pytest.fixture(scope="module")
def engine_of(checkpoints):
    """One engine per architecture."""
    return {kind: load_engine(str(checkpoints(kind)), device="cpu") for kind in ("llama", "mamba")}


class TestTransformersEngine(EngineContract):
    @pytest.fixture
    def engine(self, engine_of):
        return engine_of["llama"]


class TestPlainPath(EngineContract):
    """An architecture without exact tree attention."""

    @pytest.fixture
    def engine(self, engine_of):
        return engine_of["mamba"]
