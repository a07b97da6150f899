from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import pytest

WriteLines = Callable[..., Path]


@pytest.fixture
def samples() -> Path:
    """Genuine excerpts of the published files, where they lie beside the checkout."""
    folder = Path(__file__).resolve().parents[4] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no samples at {folder}")
    return folder


@pytest.fixture(scope="session")
def published() -> ModuleType:
    """The file ``published.py`` beside this one (test folders are no packages)."""
    spec = importlib.util.spec_from_file_location(
        "tests_sources_published", Path(__file__).with_name("published.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def write_lines(tmp_path: Path) -> WriteLines:
    """Write rows one a line: JSON, or Python dicts with ``u`` before their texts; strings as is."""

    def _write(name: str, rows: Iterable[object], *, literal: bool = False) -> Path:
        def line(row: object) -> str:
            if isinstance(row, str):
                return row
            return _python2(row) if literal else json.dumps(row, ensure_ascii=False)

        raw = "".join(line(row) + "\n" for row in rows).encode()
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        return tmp_path

    return _write


def _python2(value: object) -> str:
    """As Python 2 prints a value, which is how Steam is published."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_python2(k)}: {_python2(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_python2, value)) + "]"
    return f"u{value!a}" if isinstance(value, str) else repr(value)
