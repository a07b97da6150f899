"""An event loop in a thread of its own, for code that is not asynchronous."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class BackgroundLoop:
    """Runs coroutines to their end, also where a loop is running already (notebooks).

    The loop lives as long as this object, and connections that were opened in it stay open from one
    call to the next.
    """

    def __init__(self) -> None:
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, name="usermirror-server", daemon=True).start()
        self._loop = loop
        weakref.finalize(self, loop.call_soon_threadsafe, loop.stop)

    def run(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of ``ask()``, which is cancelled if the caller is interrupted."""
        future = asyncio.run_coroutine_threadsafe(ask(), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise
