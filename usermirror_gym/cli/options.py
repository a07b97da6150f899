"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

Setting = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a setting: --set outside=-1.5 (repeatable)."),
]


def parse_settings(pairs: list[str] | None) -> dict[str, Any]:
    """``name=value`` pairs; values are YAML."""
    import yaml

    from usermirror_gym.errors import ConfigError

    settings = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set takes name=value, got {pair!r}")
        settings[name.strip()] = yaml.safe_load(value)
    return settings
