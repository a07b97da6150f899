"""Presets: YAML files beside this one, validated when they are read."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from usermirror_gym.errors import ConfigError, UnknownNameError


def preset_names(kind: str) -> list[str]:
    """Names of the presets of one kind, e.g. ``"simulators"``."""
    folder = resources.files("usermirror_gym.configs") / kind
    return sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".yaml"))


def read_preset(kind: str, name: str) -> dict[str, Any]:
    """The content of a preset.

    Raises:
        UnknownNameError: no such preset; suggests the nearest.
        ConfigError: the file is not a YAML mapping.
    """
    if name not in preset_names(kind):
        raise UnknownNameError(f"{kind.rstrip('s')} preset", name, preset_names(kind))
    text = (resources.files("usermirror_gym.configs") / kind / f"{name}.yaml").read_text("utf-8")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"configs/{kind}/{name}.yaml is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"configs/{kind}/{name}.yaml must be a mapping, got {type(content)}")
    return content
