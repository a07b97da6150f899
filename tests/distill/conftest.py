"""A scripted model for the tests of rationales."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def scripted() -> ModuleType:
    """The file ``scripted.py`` beside this one (test folders are no packages)."""
    spec = importlib.util.spec_from_file_location(
        "tests_distill_scripted", Path(__file__).with_name("scripted.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
