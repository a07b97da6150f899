"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

Setting = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a setting: --set outside=-1.5 (repeatable)."),
]
"""Of a simulator."""
Engine = Annotated[
    str,
    typer.Option(
        help="What runs the LLM: auto, transformers, vllm or server; see 'usermirror engines'."
    ),
]
RecipeSetting = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="A setting by its path in the YAML file: --set seed=1 (repeatable)."
    ),
]
"""Of a build or a training."""


def simulator_settings(pairs: list[str] | None, engine: str) -> dict[str, Any]:
    """Settings of a simulator, the kind of its engine among them.

    Raises:
        UnknownNameError: no such kind of engine.
        ConfigError: as :func:`parse_settings`; or ``engine`` is set to something else too.
    """
    from usermirror_gym.engines.choosing import KINDS
    from usermirror_gym.errors import ConfigError, UnknownNameError

    settings = parse_settings(pairs)
    if engine == "auto":
        return settings
    if engine not in KINDS:
        raise UnknownNameError("kind of engine", engine, ["auto", *KINDS])
    given = settings.get("engine", {})
    if not isinstance(given, dict) or given.get("kind", engine) != engine:
        raise ConfigError(
            f"--engine {engine} and --set engine={given!r} do not go together: give one of them, "
            "or settings as in --set 'engine={dtype: bfloat16}'"
        )
    return {**settings, "engine": {**given, "kind": engine}}


def parse_names(text: str) -> tuple[str, ...]:
    """``"a, b,"`` as ``("a", "b")``."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


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
