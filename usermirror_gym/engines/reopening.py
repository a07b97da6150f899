"""What holds weights, locks or connections travels as the arguments it was made of."""

from __future__ import annotations

import threading
from typing import Any, Self
from weakref import WeakValueDictionary

from usermirror_gym.errors import CheckpointError

_lock = threading.Lock()
_open: WeakValueDictionary[str, Any] = WeakValueDictionary()


class Reopened:
    """Base class: a pickle holds the arguments, and is opened anew where it arrives, once a
    process for all pickles that were made alike.  A copy, a deep one too, is the object itself.

    The arguments can be pickled.
    """

    _arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        made._arguments = args, kwargs
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        args, kwargs = self._arguments
        name = getattr(self, "model_id", "")
        with _lock:
            _open.setdefault(_key(type(self), args, kwargs, name), self)
        return _reopen, (type(self), args, kwargs, name)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


def _reopen(kind: type[Any], args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Any:
    """The one that is open, or a new one.

    Raises:
        CheckpointError: what was trained is another here, under the same name.
    """
    key = _key(kind, args, kwargs, name)
    with _lock:
        found = _open.get(key)
        if found is None:
            found = kind(*args, **kwargs)
            if (here := getattr(found, "model_id", "")) != name:
                raise CheckpointError(
                    f"{name!r} was sent to this process, and its files give {here!r} here: they "
                    "have changed, or are others on this machine. Copy them, or start again."
                )
            _open[key] = found
    return found


def _key(*parts: object) -> str:
    return repr(parts)
