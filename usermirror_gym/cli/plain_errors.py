"""Errors as a person wants to read them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console

from usermirror_gym.errors import UserMirrorError


def plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Errors raised on purpose end the command with one readable message and status 1."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except UserMirrorError as error:
            Console(stderr=True).print(f"Error: {error}", style="red", markup=False)
            raise typer.Exit(1) from error

    return run
