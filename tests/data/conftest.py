from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pandas as pd
import pytest

from usermirror_gym.data import RecDataset

Event = tuple[Any, ...]


@pytest.fixture(scope="session")
def build() -> Callable[..., RecDataset]:
    """Build a data set of users a, b and items x, y, z from (user, item, timestamp[, rating])."""

    def _build(
        events: list[Event] | pd.DataFrame,
        *,
        users: pd.DataFrame | None = None,
        items: pd.DataFrame | None = None,
        **options: Any,
    ) -> RecDataset:
        if not isinstance(events, pd.DataFrame):
            rows = [(*e, 3.0)[:4] for e in events]
            events = pd.DataFrame(
                rows, columns=["user_id", "item_id", "timestamp", "rating"], dtype=object
            )
        if users is None:
            users = pd.DataFrame({"user_id": ["a", "b"], "age": [30, 40]})
        if items is None:
            items = pd.DataFrame({"item_id": ["x", "y", "z"], "title": ["X", "Y", "Z"]})
        return RecDataset.from_tables(
            "toy", "movie", users=users, items=items, interactions=events, **options
        )

    return _build


@dataclass
class FileServer:
    """Serves ``files`` on loopback; the other fields say how badly."""

    files: dict[str, bytes] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    """Answers of the next requests, instead of 200."""
    break_after: list[int] = field(default_factory=list)
    """The next transfers break off after so many bytes."""
    ranges: bool = True
    tags: bool = True
    pause: float = 0.0
    """Seconds between pieces of 64 KiB."""
    content_type: str = "application/octet-stream"
    requests: list[dict[str, str]] = field(default_factory=list)
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: FileServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        state = self.state
        state.requests.append(dict(self.headers))
        status = state.statuses.pop(0) if state.statuses else 200
        content = state.files.get(self.path.lstrip("/"))
        if status != 200 or content is None:
            self._head(404 if content is None else status, 0)
            return
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        start = 0
        wanted = self.headers.get("Range")
        if wanted and state.ranges and self.headers.get("If-Range") == tag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start > len(content):
            self._head(416, 0)
            return
        extra = {"ETag": tag} if state.tags else {}
        if start:
            extra["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._head(206 if start else 200, len(content) - start, extra)
        self._send(content[start:])

    def _head(self, status: int, length: int, extra: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", self.state.content_type)
        self.send_header("Content-Length", str(length))
        for name, value in (extra or {}).items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, content: bytes) -> None:
        state = self.state
        end = state.break_after.pop(0) if state.break_after else len(content)
        for i in range(0, min(end, len(content)), 1 << 16):
            try:
                self.wfile.write(content[i : min(i + (1 << 16), end)])
            except OSError:  # the client is gone
                break
            time.sleep(state.pause)
        if end < len(content):
            self.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A running server; ``url`` ends in a slash."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    state = FileServer()
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}/"
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
