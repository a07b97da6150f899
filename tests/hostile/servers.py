"""Replies of servers: endless, huge, senseless."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.engines.stand_in import Reply, Server, completion
from tests.hostile.case import Case, Place
from usermirror_gym.engines.base import Sampling
from usermirror_gym.engines.server.server_engine import ServerEngine
from usermirror_gym.types import Message, Prompt

Change = Callable[[dict[str, Any]], object]
PROMPT = Prompt((Message("user", "film?"),), "", ("A", "B"), "a")
SECONDS = 1.0


def asked(reply: Callable[[dict[str, Any]], Reply], *, texts: bool = False, **headers: str) -> Any:
    """Reads the answer of a server that replies so: log-probabilities, or texts with counts."""

    def read(place: Place) -> Any:
        server = Server()
        server.script = lambda body, *_: reply(body)
        server.more_headers = headers
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NO_PROXY", "127.0.0.1")
            engine = ServerEngine("m", base_url=server.url, timeout=SECONDS, max_retries=0)
            begin = time.perf_counter()
            try:
                if texts:
                    return engine.generate_detailed([PROMPT], Sampling(max_tokens=8))[0]
                return engine.choice_logprobs([PROMPT])[0].logprobs.tolist()
            finally:
                server.close()
                assert time.perf_counter() - begin < 10 * SECONDS  # it would be 20

    return read


def changed(change: Change, **how: Any) -> Any:
    def reply(body: dict[str, Any]) -> Reply:
        content = completion(body)
        change(content)
        return 200, json.dumps(content).encode()

    return asked(reply, **how)


def dripping(_: object) -> Reply:
    def parts() -> Iterator[bytes]:
        for _ in range(200):
            yield b" "
            time.sleep(SECONDS / 10)

    return 200, parts()


def nothing(place: Place) -> None:
    """The server is started when it is read."""


def top(value: object, token: str = "B") -> Change:
    """A log-probability that is told."""

    def change(content: dict[str, Any]) -> None:
        listed = content["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        next(entry for entry in listed if entry["token"] == token)["logprob"] = value

    return change


def usage(**counts: object) -> Change:
    return lambda content: content["usage"].update(counts)


HONEST = [-0.31326168751822286, -1.3132616875182228]
ENDLESS = [
    Case("server: a dripping reply", nothing, asked(dripping), "no whole reply within 1 s"),
    Case(
        "server: a large reply",
        nothing,
        asked(lambda _: (200, (b" " * 2**20 for _ in range(200)))),
        "larger than 64 MiB",
    ),
    Case(
        "server: a compressed reply",
        nothing,
        asked(
            lambda body: (200, gzip.compress(json.dumps(completion(body)).encode())),
            **{"content-encoding": "gzip"},
        ),
        "compressed",
    ),
    Case("server: a deep reply", nothing, asked(lambda _: (200, b"[" * 10**6)), "prompt 'a'"),
    Case(
        "server: sends on to another",
        nothing,
        asked(lambda _: (307, b""), location="http://127.0.0.1:9/v1/elsewhere"),
        "307",
    ),
    Case(
        "server: what a terminal obeys",
        nothing,
        asked(lambda _: (400, json.dumps({"message": "\x1b[2J"}).encode())),
        r"\\x1b",
    ),
]
LOGPROBS = [
    *(
        Case(
            f"server: the log-probability {value!r}",
            nothing,
            changed(top(value)),
            "no log-probabilities but",
        )
        for value in (0.5, float("nan"), float("inf"), "1e999", "-1", True, 10**400, -(10**400), [])
    ),
    Case("server: one far away is senseless", nothing, changed(top(7.0, "the")), "but numbers up"),
    Case("server: no log-probability of an option", nothing, changed(top(None)), "'B'.*not among"),
    *(
        Case(
            f"server: the log-probability {value!r} of another token",
            nothing,
            changed(top(value, "the")),
            gives=lambda _, found: found == HONEST,
        )
        for value in (None, -float("inf"), 0.0004)
    ),
]
COUNTS = [
    Case(
        f"server: the counts {counts}",
        nothing,
        changed(usage(**counts), texts=True),
        gives=lambda _, found: found.prompt_tokens in (0, 50) and found.completion_tokens == (0,),
    )
    for counts in (
        {"completion_tokens": True},
        {"completion_tokens": 10**9, "prompt_tokens": 10**30},
        {"completion_tokens": "1e999", "prompt_tokens": True},
    )
]

CASES: list[Case] = [*ENDLESS, *LOGPROBS, *COUNTS]
