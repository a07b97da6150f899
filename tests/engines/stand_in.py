"""A server with OpenAI's interface in this process, as good or as bad as a test wants it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, bytes | Iterable[bytes]]
"""Status and content; parts are sent one after another, and nobody is told how many."""
LETTERS = {"A": -0.5, "B": -1.5, "C": -3.0, "D": -4.0, "E": -5.0, "F": -6.0, "the": -7.0}


def completion(body: dict[str, Any]) -> dict[str, Any]:
    """A well-behaved answer, a function of the request."""
    text = body["messages"][-1]["content"]
    top = [{"token": t, "logprob": v, "bytes": None} for t, v in LETTERS.items()]
    return {
        "object": "chat.completion",
        "choices": [
            {
                "index": k,
                "message": {"role": "assistant", "content": f"{text}/{body['seed']}/{k}"},
                "logprobs": {"content": [{"token": "A", "logprob": -0.5, "top_logprobs": top}]}
                if body.get("logprobs")
                else None,
                "finish_reason": "stop",
            }
            for k in range(body["n"])
        ],
        "usage": {"prompt_tokens": 50, "completion_tokens": 7 * body["n"],
                  "prompt_tokens_details": {"cached_tokens": 16}},
    }  # fmt: skip


class Server:
    """``script(body, headers, how_often_asked)`` gives (status, bytes), or None for an answer.

    ``models`` is what it lists, ``None`` for a server without such a list; ``complete`` answers
    requests without messages; ``more_headers`` are sent with every reply.
    """

    def __init__(self) -> None:
        self.script: Callable[[dict, dict, int], Reply | None] = lambda *_: None
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: set[str] = set()
        self.more_headers: dict[str, str] = {}
        self.models: list[dict[str, Any]] | None = None
        self.complete: Callable[[dict], dict] | None = None
        self.times: Counter[str] = Counter()
        self.busy = self.most_busy = 0
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                owner._open.append(self.connection)

            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                listed = json.dumps({"data": owner.models or []}).encode()
                self._send(404 if owner.models is None else 200, listed)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, data = owner._answer(self.path, body, headers)
                if status == 0:
                    self.close_connection = True
                    return
                self._send(status, data)

            def _send(self, status: int, data: bytes | Iterable[bytes]) -> None:
                self.send_response(status)
                self.send_header("content-type", "application/json")
                whole = isinstance(data, bytes)
                length = {"content-length": len(data)} if whole else {"connection": "close"}
                for name, value in ({"retry-after-ms": 1} | length | owner.more_headers).items():
                    self.send_header(name, str(value))
                self.end_headers()
                with contextlib.suppress(OSError):  # the reader had enough
                    for part in [data] if whole else data:
                        self.wfile.write(part)

        class Quick(ThreadingHTTPServer):
            request_queue_size = 128  # many questions knock at once

        self._http = Quick(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        """As a killed process: open connections are cut too."""
        self._http.shutdown()
        self._http.server_close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> Reply:
        name = body["messages"][-1]["content"] if "messages" in body else str(body["prompt"])
        with self._lock:
            self.bodies.append(body)
            self.headers.append(headers)
            self.paths.add(path)
            self.times[name] += 1
            count = self.times[name]
            self.busy += 1
            self.most_busy = max(self.busy, self.most_busy)
        try:
            reply = self.script(body, headers, count)
            if reply is not None:
                return reply
            answer = completion if "messages" in body or self.complete is None else self.complete
            return 200, json.dumps(answer(body)).encode()
        finally:
            with self._lock:
                self.busy -= 1
