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
