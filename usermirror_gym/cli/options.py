"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

Setting = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a setting: --set outside=-1.5 (repeatable)."),
]
"""Of a simulator."""
RecipeSetting = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="A setting by its path in the YAML file: --set seed=1 (repeatable)."
    ),
]
"""Of a build or a training."""


def parse_settings(pairs: list[str] | None) -> dict[str, Any]:
    """``name=value`` pairs; values are YAML.

    Raises:
        ConfigError: a pair has no ``=``, or its value is not YAML.
    """
    import yaml

    from usermirror_gym.errors import ConfigError

    settings = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set takes name=value, got {pair!r}")
        try:
            settings[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(
                f"--set {pair}: the value is not YAML; write texts in quotes"
            ) from error
    return settings
