"""The HTTP client of a server engine: a reply has an end, in time and in size."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

MOST_BYTES = 64 * 1024**2
"""Of one reply; 20 log-probabilities of a token take some 2 kB."""


def bounded_client(openai: Any, seconds: float) -> Any:
    """A client for ``openai.AsyncOpenAI(http_client=...)``.

    A server that sends a little now and then keeps within every time-out of a read, so the whole
    exchange has a deadline.  Replies come as they are: a few compressed bytes could become
    gigabytes.  Redirections are not followed: the addresses that were given are those that are
    asked.

    Args:
        openai: the package.
        seconds: for one request, from its first byte to the reply's last.
    """
    client: type[Any] = openai.DefaultAsyncHttpxClient
    http: Any = sys.modules[client.__mro__[1].__module__.partition(".")[0]]  # httpx, or httpx2

    class BoundedClient(client):
        async def send(self, request: Any, *, stream: bool = False, **how: Any) -> Any:
            """The whole reply.

            Raises:
                ReadTimeout: it did not end in time.
                APIConnectionError: it is larger than :data:`MOST_BYTES`, or compressed.
            """
            try:
                async with asyncio.timeout(seconds):
                    reply = await super().send(request, stream=True, **how)
                    try:
                        content = await _read(reply)
                    finally:
                        await reply.aclose()
            except TimeoutError:
                why = f"no whole reply within {seconds:g} s"
                raise http.ReadTimeout(why, request=request) from None
            except ValueError as error:
                raise openai.APIConnectionError(message=str(error), request=request) from None
            about = {"request": reply.request, "extensions": reply.extensions}
            return type(reply)(reply.status_code, headers=reply.headers, content=content, **about)

    return BoundedClient(
        timeout=seconds, follow_redirects=False, headers={"Accept-Encoding": "identity"}
    )


async def _read(reply: Any) -> bytes:
    if (coding := reply.headers.get("content-encoding", "identity")) != "identity":
        raise ValueError(f"the reply is compressed ({coding[:40]!r}), which was not asked for")
    content = bytearray()
    async for part in reply.aiter_raw():
        content += part
        if len(content) > MOST_BYTES:
            raise ValueError(f"the reply is larger than {MOST_BYTES // 1024**2} MiB")
    return bytes(content)
