"""Errors as a person wants to read them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console

from usermirror_gym.errors import UserMirrorError


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
