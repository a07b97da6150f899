"""Every exception of the project.

Each message names the mistake, the value that was given, and the cure.  All of them derive from
:class:`UserMirrorError`, so one ``except`` catches whatever this library raises on purpose.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserMirrorError(Exception):
    """Base class of all errors raised on purpose by usermirror_gym."""


class UnknownNameError(UserMirrorError, ValueError):
    """A name (model, preset, metric, data set ...) that does not exist; suggests a near one.

    Args:
        more: what else could be said in its place.
    """

    def __init__(self, kind: str, name: object, valid: Iterable[str], more: str = "") -> None:
        valid = sorted(valid)
        near = nearest(str(name), valid)
        hint = f" Did you mean {near!r}?" if near else ""
        more = more and f" {more}"
        super().__init__(f"unknown {kind} {name!r}.{hint} Valid: {', '.join(valid)}.{more}")
        self.suggestion = near


class ConfigError(UserMirrorError, ValueError):
    """A setting whose value cannot be used."""


class DataError(UserMirrorError, ValueError):
    """Raw data or a table that does not have the documented form."""


class SceneError(UserMirrorError, ValueError):
    """A scene that cannot be built or rendered (too many options, a list that does not fit ...)."""


class ActionError(UserMirrorError, ValueError):
    """A slate that the environment cannot show (wrong shape, dtype, item id ...)."""


class AgentError(UserMirrorError, RuntimeError):
    """An agent that is used wrongly: not fitted, asked for more items than it can give ..."""


class CheckpointError(UserMirrorError, RuntimeError):
    """Model weights that cannot be found, downloaded, verified or loaded."""


class EngineError(UserMirrorError, RuntimeError):
    """An LLM runtime that could not answer a prompt; names the prompt."""


class StoreError(UserMirrorError, RuntimeError):
    """An answer store that cannot be opened."""


class RunError(UserMirrorError, RuntimeError):
    """A run folder that cannot be resumed or read."""


class MissingDependencyError(UserMirrorError, ImportError):
    """An optional package is not installed; says which extra brings it.

    Args:
        hint: what else to say, about machines where the extra is not the cure.
    """

    def __init__(self, package: str, extra: str, hint: str = "") -> None:
        super().__init__(
            f"this needs the package {package!r}, which is not installed. "
            f"Run: pip install 'usermirror-gym[{extra}]'" + (f". {hint}" if hint else "")
        )


def nearest(name: str, valid: list[str]) -> str | None:
    """The valid name that is most like the given one, if any is."""
    by_fold = {v.casefold(): v for v in valid}
    match = difflib.get_close_matches(name.casefold(), by_fold, n=1, cutoff=0.5)
    return by_fold[match[0]] if match else None
