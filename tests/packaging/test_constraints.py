"""constraints.txt pins whatever pyproject.toml names, inside the range that it names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@pytest.fixture(scope="module")
def pins(root: Path) -> dict[str, str]:
    lines = (root / "constraints.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in requirements}


def test_every_line_is_one_exact_public_version(root: Path) -> None:
    lines = (root / "constraints.txt").read_text().splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    wrong = [line for line in pinned if not re.fullmatch(r"[\w.-]+==[\w.]+( ; .+)?", line)]
    assert wrong == []
    names = [canonicalize_name(line.split("==")[0]) for line in pinned]
    assert len(names) == len(set(names))


def test_everything_named_is_pinned_inside_its_range(
    pyproject: dict[str, Any], pins: dict[str, str]
) -> None:
    project = pyproject["project"]
    extras = project["optional-dependencies"]
    named = [Requirement(r) for r in sum(extras.values(), list(project["dependencies"]))]
    named = [r for r in named if r.name != project["name"]]
    unpinned = [r.name for r in named if canonicalize_name(r.name) not in pins]
    assert unpinned == []
    outside = [str(r) for r in named if pins[canonicalize_name(r.name)] not in r.specifier]
    assert outside == []


def test_self_references_name_existing_extras(pyproject: dict[str, Any]) -> None:
    extras = pyproject["project"]["optional-dependencies"]
    own = [
        Requirement(r)
        for requirements in extras.values()
        for r in requirements
        if r.startswith("usermirror-gym")
    ]
    assert own
    assert set().union(*(r.extras for r in own)) <= set(extras)
    names = "vllm train rl server embeddings offline notebooks dev"
    assert set(extras) == set(names.split())


def test_documented_traps_stay_closed(pins: dict[str, str]) -> None:
    assert pins["recbole"] == "1.2.0"
    assert pins["pandas"].startswith("2.")
