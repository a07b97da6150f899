"""What the source imports is what pyproject.toml names."""

from __future__ import annotations

import ast
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def imported_names(root: Path) -> dict[str, Path]:
    """Top-level names of everything foreign that the source imports, with one file each."""
    found = {}
    for top in ("usermirror_gym", "agents", "envs", "configs"):
        for file in (root / top).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [str(node.module)]
                else:
                    continue
                found |= {name.split(".")[0]: file for name in names}
    return {
        name: file
        for name, file in found.items()
        if name not in sys.stdlib_module_names and name != "usermirror_gym"
    }


def test_every_import_is_a_named_dependency(root: Path, pyproject: dict[str, Any]) -> None:
    project = pyproject["project"]
    requirements = [
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ]
    named = {canonicalize_name(Requirement(r).name) for r in requirements}
    distributions = packages_distributions()
    unnamed = {
        name: str(file)
        for name, file in imported_names(root).items()
        # A package of an extra that is not installed here is looked up by its import name.
        if not {canonicalize_name(d) for d in distributions.get(name, [name])} & named
    }
    assert unnamed == {}
