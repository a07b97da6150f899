"""Real vLLM servers on this machine's CPU, for a test that kills one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PATIENCE = 240.0
"""Seconds until a server must be up."""


@dataclass
class VLLMServer:
    """One server and its log."""

    url: str
    process: subprocess.Popen
    log: Path

    def kill(self) -> None:
        """At once, with everything it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def is_up(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended: {self.tail()}")
        try:
            with urllib.request.urlopen(self.url.replace("/v1", "/health"), timeout=2) as reply:
                return reply.status == 200
        except OSError:
            return False

    def tail(self) -> str:
        return self.log.read_text("utf-8", "replace")[-3000:]


@contextmanager
def vllm_servers(count: int, weights: Path, name: str, folder: Path) -> Iterator[list[VLLMServer]]:
    """``count`` servers of the same weights, up and answering; all are dead afterwards."""
    servers: list[VLLMServer] = []
    try:
        for number in range(count):
            servers.append(_start(weights, name, folder / f"server-{number}.log"))
        end = time.monotonic() + _PATIENCE
        while not all(server.is_up() for server in servers):
            if time.monotonic() > end:
                raise RuntimeError("not up: " + "\n".join(server.tail() for server in servers))
            time.sleep(1)
        yield servers
    finally:
        for server in servers:
            server.kill()


def _start(weights: Path, name: str, log: Path) -> VLLMServer:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(weights),
        "--served-model-name", name, "--host", "127.0.0.1", "--port", str(port),
        "--dtype", "float32", "--max-model-len", "2048", "--max-logprobs", "26",
        "--logprobs-mode", "processed_logprobs", "--enforce-eager",
        "--kv-cache-memory-bytes", str(1 << 30), "--enable-prompt-tokens-details",
    ]  # fmt: skip
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env=quiet, start_new_session=True
        )
    return VLLMServer(f"http://127.0.0.1:{port}/v1", process, log)
