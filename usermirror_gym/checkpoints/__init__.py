"""Trained simulators that ship with the package, one folder each.

A folder holds what :mod:`usermirror_gym.simulators.checkpoint` describes.  They are small: adapters
and heads to base weights that are fetched on first use.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent
ALIASES = {"surrogate": "smollm2-ml100k-surrogate"}
"""Short names: the surrogate of the default simulator."""


def shipped_checkpoints() -> list[str]:
    """Names of the simulators that ship with the package."""
    return sorted(path.parent.name for path in _HERE.glob("*/simulator.yaml"))


def shipped_folder(name: str) -> Path | None:
    """The folder of a simulator that ships with the package, by its name or alias; ``None`` if none
    is called so."""
    name = ALIASES.get(name, name)
    return _HERE / name if name in shipped_checkpoints() else None
