"""The pages that people read, and how they are taken apart."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
)
_FENCE = re.compile(r"^```(\w*)(?: title=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One fenced block: its language, its title (a file name, mostly), its content."""

    kind: str
    title: str
    content: str


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [Block(*(part or "" for part in match.groups())) for match in _FENCE.finditer(text)]


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", text)


def sections(text: str) -> dict[str, str]:
    """What stands under each heading of the second level."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def table(text: str) -> list[dict[str, str]]:
    """The first table of a text, a row a dictionary; code marks are taken off."""
    lines = re.search(r"(?:^\s*\|.*\|\n?)+", text, re.MULTILINE)
    assert lines, f"no table in {text[:80]!r}"
    head, _, *rows = (
        [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]
        for line in lines.group().strip().splitlines()
    )
    return [dict(zip(head, row, strict=True)) for row in rows]
