"""Presets: YAML files beside this one, validated when they are read."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from usermirror_gym.errors import UnknownNameError
from usermirror_gym.foreign import parse_yaml


def preset_names(kind: str) -> list[str]:
    """Names of the presets of one kind, e.g. ``"simulators"``."""
    folder = resources.files("usermirror_gym.configs") / kind
    return sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".yaml"))


def read_preset(kind: str, name: str) -> dict[str, Any]:
    """The content of a preset.

    Raises:
        UnknownNameError: no such preset; suggests the nearest.
    """
    if name not in preset_names(kind):
        raise UnknownNameError(f"{kind.rstrip('s')} preset", name, preset_names(kind))
    text = (resources.files("usermirror_gym.configs") / kind / f"{name}.yaml").read_text("utf-8")
    return dict(parse_yaml(text))
