"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console

from usermirror_gym.errors import UserMirrorError

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


def plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Errors raised on purpose, and those of files, end the command with one readable message and
    status 1."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            note = "Stopped. Builds, training and benchmarks go on with the same command."
            Console(stderr=True).print(note)
            raise typer.Exit(130) from None
        except BrokenPipeError:  # the reader of the output has had enough; typer knows
            raise
        except (UserMirrorError, OSError) as error:
            Console(stderr=True).print(f"Error: {_readable(error)}", style="red", markup=False)
            raise typer.Exit(1) from error

    return run


def _readable(error: Exception) -> str:
    # A folder that cannot be written, a full disk: the system's words and the path say it all.
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)
