"""From fetch to report without the network: no address but this machine's own is even asked for.

    python -m pytest tests/hostile/test_loopback.py
    unshare --net usermirror benchmark --users 4 --steps 2    # the same by hand, as root on Linux

The commands run in processes whose sockets refuse everything but loopback and write down what was
tried, children included; where the system allows it (root on Linux) they have no network besides.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

GUARD = """
import os, sys

OWN = ("127.", "::1", "localhost", "0.0.0.0")

def guard(event, args):
    if event == "socket.getaddrinfo" or event == "socket.gethostbyname":
        asked = args[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = args[1]
        asked = address[0] if isinstance(address, tuple) else None  # or a path
    else:
        return
    asked = asked.decode() if isinstance(asked, bytes) else asked
    if asked and not asked.startswith(OWN):
        with open(os.environ["ATTEMPTS"], "a") as file:
            file.write(f"{event} {asked}: {' '.join(sys.argv)}\\n")
        raise OSError(f"no network here: {event} {asked}")

sys.addaudithook(guard)
"""
"""A ``sitecustomize.py``, which Python imports before anything else."""


class Loaded(HTMLParser):
    """What a browser would fetch to show a page: everything but the links one can click."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        if tag != "a":
            names = ("src", "href", "xlink:href", "srcset", "data", "poster", "action")
            self.found += [f"{tag} {name}={v}" for name, v in attrs if name in names and v]

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "style":
            self.found += re.findall(r"@import[^;]*|url\([^)]*\)", data)
        if self.inside == "script":
            self.found += re.findall(r"\bfetch\([^)]*|XMLHttpRequest|WebSocket|\bimport\(", data)


def loaded_from_outside(page: str) -> list[str]:
    parser = Loaded()
    parser.feed(page)
    # Data that stand in the page itself, and places in it, are not fetched.
    return [one for one in parser.found if not re.search(r"(=|url\(['\"]?)(data:|#)", one)]


class Alone:
    """Runs commands that reach loopback only."""

    def __init__(self, folder: Path, cache: Path) -> None:
        guard = folder / "guard"
        guard.mkdir()
        (guard / "sitecustomize.py").write_text(GUARD)
        self.attempts = folder / "attempts.txt"
        ways = [str(guard), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        unset = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # nobody must have to say so
        self.environment = {k: v for k, v in os.environ.items() if k not in unset} | {
            "PYTHONPATH": os.pathsep.join(filter(None, ways)), "ATTEMPTS": str(self.attempts),
            "USERMIRROR_CACHE": str(cache),
        }  # fmt: skip
        self.folder = folder
        self.before = ["unshare", "--net"] if self._run("unshare", "--net", "true") == "" else []

    def _run(self, *words: str) -> str:
        """What it said; "" of a command that cannot be run is never its output."""
        if shutil.which(words[0]) is None:
            return "no such command"
        done = subprocess.run(
            words, cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        return done.stdout if done.returncode == 0 else f"status {done.returncode}: {done.stderr}"

    def python(self, *words: str) -> str:
        return self._run(*self.before, sys.executable, *words)

    def usermirror(self, *words: str) -> str:
        said = self.python("-m", "usermirror_gym.cli", *words)
        assert not said.startswith("status "), said
        return said

    def tried(self) -> str:
        return self.attempts.read_text() if self.attempts.exists() else ""


def test_the_guard_notices_who_asks_for_the_network(tmp_path: Path) -> None:
    alone = Alone(tmp_path, tmp_path)
    for code in (
        "import urllib.request as r; r.urlopen('http://example.invalid/')",
        "import socket; socket.create_connection(('192.0.2.1', 80), 1)",
        "import subprocess, sys; subprocess.run([sys.executable, '-c', "
        "'import socket; socket.getaddrinfo(\"example.invalid\", 80)'], check=True)",
    ):
        assert alone.python("-c", code).startswith("status 1")
        assert alone.tried()
        alone.attempts.unlink()
    own = "import socket; socket.getaddrinfo('localhost', 80); print('here')"
    assert alone.python("-c", own) == "here\n"
    assert alone.tried() == ""


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ("<a href='https://x.org'>x</a><img src='data:image/png;base64,x'>", 0),
        ("<svg><use xlink:href='#a'/></svg><style>p{fill:url(#a)}</style>", 0),
        ("<script src='https://x.org/d3.js'></script>", 1),
        ("<link rel=stylesheet href=//x.org/a.css><style>@import 'b.css';</style>", 2),
        ("<style>p{background:url(http://x.org/a.png)}</style>", 1),
        ("<script>fetch('/x')</script>", 1),
    ],
)
def test_what_a_page_loads_is_seen(page: str, found: int) -> None:
    assert len(loaded_from_outside(page)) == found


@pytest.mark.slow
def test_from_fetch_to_report_without_the_network(tmp_path: Path) -> None:
    """The default user, real SmolLM2; its weights were fetched before."""
    from usermirror_gym.engines import DEFAULT_CHECKPOINT, resolve_checkpoint

    # With checksums, which weights that an earlier version fetched lack.
    cache = resolve_checkpoint(DEFAULT_CHECKPOINT, verify=True).parents[1]
    alone = Alone(tmp_path, cache)
    assert DEFAULT_CHECKPOINT in "".join(alone.usermirror("fetch").split())
    run = tmp_path / "run"
    alone.usermirror(
        "benchmark", "--agents", "Random,Pop,ItemKNN", "--users", "4", "--steps", "2",
        "--fidelity-scenes", "20", "--out", str(run),
    )  # fmt: skip
    assert "all as logged" in alone.usermirror("replay", str(run))
    assert alone.tried() == ""
    page = (run / "report.html").read_text()
    assert len(page) > 10_000
    assert loaded_from_outside(page) == []
