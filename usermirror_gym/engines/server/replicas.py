"""Copies of one server: who gets which question, and who is left alone for a while."""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from usermirror_gym.types import Prompt

_BEGINNING = 400
"""Characters of the first user message that tell users apart; later ones change with every list."""
_CROWDED = 1.25
"""A replica takes at most so many times its fair share of a call."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
"""Seconds for which a replica that failed is left alone; doubled with every failure in a row."""


@dataclass
class Replica:
    """One copy of the server and what became of the questions it was given.

    Attributes:
        url: its address, ``http://host:port/v1``.
        answered, failed: questions, and attempts that got no answer (refused, cut, timed out).
        checked: whether it is known to serve the model; forgotten when it fails.
        context_length: most tokens of a question and its answer, if it tells.
        last_error: why it failed last.
    """

    url: str | None
    answered: int = 0
    failed: int = 0
    checked: bool = False
    context_length: int | None = None
    last_error: str | None = None
    _in_a_row: int = 0
    _back_at: float = field(default=0.0, repr=False)

    @property
    def down(self) -> bool:
        """Whether it is to be left alone now."""
        return time.monotonic() < self._back_at

    def succeeded(self) -> None:
        """It answered."""
        self.answered += 1
        self._in_a_row, self._back_at = 0, 0.0

    def has_failed(self, why: str) -> None:
        """It did not, and is left alone for a growing pause (with jitter, so that many users of
        one server do not come back at once)."""
        self.failed += 1
        self.last_error = why
        self.checked = False
        if not self.down:  # questions that were under way together are one failure
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self._in_a_row)
            self._in_a_row += 1
            self._back_at = time.monotonic() + pause * random.uniform(0.5, 1.0)

    def report(self) -> dict[str, Any]:
        """Plain numbers for logs."""
        return {"answered": self.answered, "failed": self.failed, "down": self.down,
                "last_error": self.last_error}  # fmt: skip


def host_of(url: str) -> str:
    """Host and port only: an address may carry a password."""
    parts = urlsplit(url)
    return parts.hostname or "?" if parts.port is None else f"{parts.hostname}:{parts.port}"


def beginning_of(prompt: Prompt) -> str:
    """What stays the same through a user's session, and differs between users."""
    if not prompt.messages:
        return prompt.answer_prefix[:_BEGINNING]
    first = next((i for i, m in enumerate(prompt.messages) if m.role == "user"), 0)
    before = "\n".join(m.content for m in prompt.messages[:first])
    return f"{before}\n{prompt.messages[first].content[:_BEGINNING]}"


def assign(beginnings: Sequence[str], replicas: Sequence[Replica]) -> list[list[Replica]]:
    """For every question the replicas in the order in which they are to be tried.

    Rendezvous hashing (Thaler & Ravishankar, 1998): a user's questions go to the same replica,
    whose cache holds their beginning, and only those of a lost replica move.  A replica that is
    full (:data:`_CROWDED`) passes on; one that is down comes last.
    """
    alive = [r for r in replicas if not r.down] or list(replicas)
    room = math.ceil(_CROWDED * len(beginnings) / len(alive))
    taken = dict.fromkeys(map(id, alive), 0)
    orders = []
    for beginning in beginnings:
        ranked = sorted(replicas, key=lambda r: _weight(beginning, r), reverse=True)
        first = [r for r in ranked if id(r) in taken and taken[id(r)] < room]
        rest = [r for r in ranked if id(r) in taken and taken[id(r)] >= room]
        taken[id(first[0])] += 1
        orders.append([*first, *rest, *(r for r in ranked if id(r) not in taken)])
    return orders


def _weight(beginning: str, replica: Replica) -> bytes:
    text = f"{replica.url}\n{beginning}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=8).digest()


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
