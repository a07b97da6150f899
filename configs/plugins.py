"""Things by name that may be somebody else's: a session model, a reward, an agent.

A name is one of ours, an entry point of an installed package, or the path ``module:name``::

    [project.entry-points."usermirror_gym.rewards"]
    dwell = "mypkg.rewards:dwell"

A path runs code: it is followed where a caller or a command says it, never because a file does.
Options stand behind a name in parentheses: ``ItemKNN(k=20, shrink=0)``.
"""

from __future__ import annotations

import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from usermirror_gym.errors import ConfigError, UnknownNameError, nearest
from usermirror_gym.foreign import parse_yaml

_WITH_OPTIONS = re.compile(r"([^()]+)\((.*)\)", re.DOTALL)


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


def split_names(text: str) -> list[str]:
    """The names between the commas of a text, but for commas within brackets of any kind."""
    names, depth = [""], 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth <= 0:
            names.append("")
        else:
            names[-1] += char
    return [name.strip() for name in names if name.strip()]


def with_options(kind: str, spec: str) -> tuple[str, dict[str, Any]]:
    """A name and the options behind it; values are YAML.

    Args:
        kind: how messages call it: ``"agent"``.

    Raises:
        ConfigError: what stands in the parentheses is no list of ``name=value``.
    """
    found = _WITH_OPTIONS.fullmatch(spec.strip())
    if found is None:
        return spec.strip(), {}
    options = {}
    for pair in split_names(found[2]):
        name, equals, value = (part.strip() for part in pair.partition("="))
        try:
            if not (name.isidentifier() and equals and value):
                raise ValueError(f"{pair!r} is not name=value")
            options[name] = parse_yaml(value)
        except ValueError as error:
            raise ConfigError(
                f"{kind} {spec!r}: {error}; options are written as in ItemKNN(k=20, shrink=0)"
            ) from error
    return found[1].strip(), options


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
