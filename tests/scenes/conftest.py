from __future__ import annotations

import pytest

from usermirror_gym.data import TimeSplit
from usermirror_gym.testing.data import tiny_split


@pytest.fixture(scope="session")
def split() -> TimeSplit:
    return tiny_split(n_users=60, n_items=60, seed=3)
