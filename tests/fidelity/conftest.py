"""The tiny data set of the benchmark's tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from usermirror_gym.data import TimeSplit


def _benchmark_fixtures() -> Any:
    path = Path(__file__).parents[1] / "benchmark" / "conftest.py"
    spec = importlib.util.spec_from_file_location("tests_benchmark_fixtures", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def split() -> TimeSplit:
    return _benchmark_fixtures().build_split()
