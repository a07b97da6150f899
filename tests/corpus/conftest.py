"""A scripted model for the tests of rationales, and a data set of one's own."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from usermirror_gym.testing.data import tiny_split


@pytest.fixture(scope="session")
def scripted() -> ModuleType:
    """The file ``scripted.py`` beside this one."""
    return load(Path(__file__).with_name("scripted.py"))


@pytest.fixture
def chat_server() -> Iterator[Any]:
    """The stand-in server of the tests of the server engine."""
    server = load(Path(__file__).parents[1] / "engines" / "test_server_engine.py").Server()
    yield server
    server.close()


@pytest.fixture
def tiny_tables(tmp_path: Path) -> Path:
    """A data set of 60 users and 60 films as CSV, and the YAML file that maps it."""
    data = tiny_split(n_users=60, n_items=60).dataset
    data.items.reset_index().to_csv(tmp_path / "films.csv", index=False)
    data.interactions.to_csv(tmp_path / "log.csv", index=False)
    mapping = tmp_path / "mine.yaml"
    mapping.write_text(
        "name: mine\ndomain: movie\n"
        "interactions: {file: log.csv, user: user_id, item: item_id, time: timestamp}\n"
        "items: {file: films.csv, item: item_id, title: title, texts: [genres], numbers: [year]}\n"
    )
    return mapping


def load(path: Path) -> ModuleType:
    """A Python file as a module (test folders are no packages)."""
    spec = importlib.util.spec_from_file_location(f"tests_corpus_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
