"""Things by name that may be somebody else's: a session model, a reward, an agent.

A name is one of ours, an entry point of an installed package, or the path ``module:name``::

    [project.entry-points."usermirror_gym.rewards"]
    dwell = "mypkg.rewards:dwell"

A path runs code: it is followed where a caller or a command says it, never because a file does.
"""

from __future__ import annotations

import inspect
import pkgutil
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from usermirror_gym.errors import ConfigError, UnknownNameError, nearest


def resolve(kind: str, name: str, builtin: Mapping[str, Any], group: str) -> Any:
    """What a name stands for.

    Args:
        kind: how messages call it: ``"reward"``.
        builtin: ours by name, which nobody can replace.
        group: of entry points: ``"usermirror_gym.rewards"``.

    Raises:
        UnknownNameError: nothing has this name; suggests the nearest.
        ConfigError: a path or an entry point that leads nowhere; says how to mend it.
    """
    if name in builtin:
        return builtin[name]
    paths = {point.name: f"{point.module}:{point.attr}" for point in entry_points(group=group)}
    if name not in paths and not is_path(name):
        known = {**builtin, **paths}
        raise UnknownNameError(kind, name, known, "Or module:name, for something of your own.")
    path = paths.get(name, name)
    what = f"{kind} {name!r}" + (f" ({path})" if path != name else "")
    module, _, attribute = path.partition(":")
    try:
        return pkgutil.resolve_name(path)
    except AttributeError as error:
        near = nearest(attribute, [n for n in dir(sys.modules.get(module)) if n[0] != "_"])
        hint = f"did you mean {near!r}?" if near else f"name something that {module} defines"
        raise ConfigError(f"{what}: {error}; {hint}") from error
    except Exception as error:  # whatever a module may raise when it is imported
        raise ConfigError(
            f"{what}: cannot import {module!r} ({type(error).__name__}: {error}); write "
            "module:name, and install its package or put its folder on PYTHONPATH"
        ) from error


def made(what: str, make: Callable[..., Any], offered: Mapping[str, Any], **options: Any) -> Any:
    """What a class or a function makes of ``options`` and of what it asks for by name.

    Args:
        what: how messages call it: ``"agent 'mypkg:Mine'"``.
        offered: what it may ask for.

    Raises:
        ConfigError: it needs something else, or takes no such option.
    """
    try:
        signature = inspect.signature(make)
        given = {k: v for k, v in offered.items() if k in signature.parameters} | options
        signature.bind(**given)
    except (TypeError, ValueError) as error:
        offers = f"may ask for {', '.join(offered)}" if offered else "is made without arguments"
        raise ConfigError(f"{what} cannot be made: {error}; it {offers}") from error
    return make(**given)


def is_path(name: str) -> bool:
    """Whether a name is the path of somebody else's code, ``module:name``."""
    return ":" in name
