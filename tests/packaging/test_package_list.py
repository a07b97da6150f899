"""pyproject.toml names its packages by hand, so it is compared with the tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ROOMS = ("agents", "configs", "envs")


def packages_in_tree(root: Path) -> set[str]:
    """Dotted names of all folders with Python files; the linked folders count once."""
    found = set()
    for top in ("usermirror_gym", *ROOMS):
        for file in (root / top).rglob("*.py"):
            parts = file.relative_to(root).parent.parts
            if top == "usermirror_gym" and len(parts) > 1 and parts[1] in ROOMS:
                continue
            found.add(".".join(parts if top == "usermirror_gym" else ("usermirror_gym", *parts)))
    return found


def test_package_list_equals_the_tree(root: Path, pyproject: dict[str, Any]) -> None:
    listed = pyproject["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(packages_in_tree(root))


def test_every_package_has_an_init(root: Path, pyproject: dict[str, Any]) -> None:
    for name in pyproject["tool"]["setuptools"]["packages"]:
        assert (root / name.replace(".", "/") / "__init__.py").is_file(), name


@pytest.mark.parametrize("room", ROOMS)
def test_links_are_relative_and_resolve(root: Path, room: str) -> None:
    link = root / "usermirror_gym" / room
    assert link.is_symlink()
    assert link.readlink() == Path("..", room)
    assert link.resolve() == (root / room).resolve()


def test_mapping_covers_the_folders_outside(pyproject: dict[str, Any]) -> None:
    mapping = pyproject["tool"]["setuptools"]["package-dir"]
    assert mapping == {
        "usermirror_gym": "usermirror_gym",
        **{f"usermirror_gym.{room}": room for room in ROOMS},
    }
