"""Chat templates are rendered by a process of their own, which can be stopped.

A template comes with the weights, from anybody, and is a program.  Jinja's sandbox keeps it from
files and objects, and bounds neither its time nor its memory: loops within loops, ``'x' * 10**10``,
``10**10**9``.  A thread that is inside of such a product cannot be interrupted, a process can.  One
serves all templates of the process that asks; it takes a second to start.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

SECONDS = 4.0
"""Of one rendering; honest templates take milliseconds, also on a busy machine."""
_MOST_BYTES = 1 << 20
"""Of what is rendered, as JSON."""
_MEMORY = 2 * 1024**3
"""Bytes of address space, where the system can bound it."""
_START_SECONDS = 120.0
_lock = threading.Lock()
_running: dict[int, subprocess.Popen[bytes]] = {}
"""By the process that asks: a fork must not talk to the helper of its parent."""


class Unbounded(Exception):
    """A template that did not end in time, or wrote or held too much."""


def render(request: Mapping[str, Any]) -> str:
    """What ``render_jinja_template`` of transformers makes of one conversation.

    Args:
        request: its arguments, plain types.

    Raises:
        Unbounded: it did not end within the limits.
        ValueError: the template is wrong, or refuses the conversation.
    """
    with _lock:
        process = _running.get(os.getpid())
        if process is None or process.poll() is not None:
            process = _running[os.getpid()] = subprocess.Popen(
                [sys.executable, "-P", __file__],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            _asked(process, b"", _START_SECONDS)
        answer = json.loads(_asked(process, json.dumps(request).encode() + b"\n", SECONDS))
    if answer.get("unbounded"):
        raise Unbounded
    if "error" in answer:
        raise ValueError(answer["error"])
    return str(answer["text"])


def _asked(process: subprocess.Popen[bytes], line: bytes, seconds: float) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    found = b""
    with contextlib.suppress(OSError):  # it is gone, and so is its end of the pipe
        process.stdin.write(line)
        process.stdin.flush()
        found = process.stdout.readline(_MOST_BYTES)
    timer.cancel()
    if not found.endswith(b"\n"):
        _stop(process)
        raise Unbounded
    return found


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


@atexit.register
def _stop_own() -> None:
    if (process := _running.get(os.getpid())) is not None:
        _stop(process)


def _serve() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    with contextlib.suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    print(flush=True)
    for line in sys.stdin.buffer:
        if hasattr(signal, "alarm"):  # should nobody be left to stop it
            signal.alarm(int(SECONDS) + 2)
        answer: dict[str, Any]
        try:
            answer = {"text": render_jinja_template(**json.loads(line))[0][0]}
        except MemoryError:
            answer = {"unbounded": True}
        except Exception as error:  # templates raise jinja's and any other exception
            answer = {"error": f"{error}"[:2000]}
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
