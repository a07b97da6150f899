"""Several copies of a server: caches stay warm, one may die, none may be another model."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.engines.stand_in import LETTERS, Server, completion
from usermirror_gym.engines.server.replicas import Replica, assign, beginning_of
from usermirror_gym.engines.server.server_engine import ServerEngine
from usermirror_gym.errors import ConfigError, EngineError
from usermirror_gym.types import Message, Prompt


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Server]]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    made = [Server(), Server()]
    for server in made:
        server.models = [{"id": "m"}]
    yield made
    for server in made:
        server.close()


def engine_of(servers: list[Server], **settings: Any) -> ServerEngine:
    urls = [server.url for server in servers]
    return ServerEngine("m", base_url=urls, **{"timeout": 5, "max_retries": 1, **settings})


def session(user: int, turns: int) -> Prompt:
    """A conversation that grows: list, choice, list ..."""
    opening = f"I am user {user}, {'and I like films' * 40}."
    messages = [Message("system", "Choose."), Message("user", f"{opening} List 0.")]
    for turn in range(1, turns + 1):
        messages += [Message("assistant", "[A]"), Message("user", f"List {turn} of {user}.")]
    return Prompt(tuple(messages), "", tuple("ABC"), f"user {user}, turn {turns}")


def names_of(server: Server) -> set[str]:
    return {body["messages"][1]["content"].split(",")[0] for body in server.bodies}


def replicas_report(engine: ServerEngine) -> list[dict[str, Any]]:
    return list(engine.report()["replicas"].values())


def test_a_user_stays_with_one_replica_and_the_load_is_shared(servers) -> None:
    engine = engine_of(servers)
    for turn in range(4):
        engine.choice_logprobs([session(user, turn) for user in range(40)])
    first, second = map(names_of, servers)
    assert len(first & second) <= 8  # a few give way where a replica is full
    assert [r["answered"] for r in replicas_report(engine)] == [len(s.bodies) for s in servers]
    assert min(len(server.bodies) for server in servers) >= 4 * 40 * 0.3
    assert engine.report()["rerouted"] == 0


def test_orders_are_bounded_and_complete() -> None:
    replicas = [Replica(f"http://h{i}/v1") for i in range(3)]
    orders = assign(["the same beginning"] * 30, replicas)
    assert all(sorted(map(id, order)) == sorted(map(id, replicas)) for order in orders)
    first = Counter(order[0].url for order in orders)
    assert max(first.values()) <= np.ceil(1.25 * 30 / 3)
    replicas[0].has_failed("gone")
    assert all(order[-1] is replicas[0] for order in assign(["a", "b", "c"] * 9, replicas))


def test_only_the_questions_of_a_lost_replica_move() -> None:
    replicas = [Replica(f"http://h{i}/v1") for i in range(4)]
    beginnings = [f"user {i}" for i in range(400)]
    before = [order[0] for order in assign(beginnings, replicas)]
    replicas[2].has_failed("gone")
    after = [order[0] for order in assign(beginnings, replicas)]
    moved = [b for b, a in zip(before, after, strict=True) if a is not b]
    assert sum(b is not replicas[2] for b in moved) < 0.05 * 400


def test_the_beginning_is_what_a_session_keeps() -> None:
    assert beginning_of(session(3, 0)) == beginning_of(session(3, 5))
    assert beginning_of(session(3, 0)) != beginning_of(session(4, 0))
    assert beginning_of(Prompt((), "Films:\nHeat\n", ("A",))) == "Films:\nHeat\n"


@pytest.mark.parametrize("way", ["cut", "closed", "hangs"])
def test_one_dies_in_mid_run_and_nothing_is_lost_or_changed(servers, way: str) -> None:
    dying, other = servers
    engine = engine_of(servers, timeout=0.5 if way == "hangs" else 5)

    def script(body: dict, headers: dict, count: int) -> tuple[int, bytes] | None:
        if len(dying.bodies) <= 20:
            return None
        if way == "hangs":
            time.sleep(2)
        return 0, b""

    dying.script = script
    found = []
    for turn in range(6):
        if way == "closed" and turn == 2:
            dying.close()
        scores = engine.choice_logprobs([session(user, turn) for user in range(20)])
        found += [score.logprobs for score in scores]
    expected = np.array([LETTERS[letter] for letter in "ABC"])
    expected -= np.logaddexp.reduce(expected)
    assert len(found) == 120
    np.testing.assert_allclose(found, np.tile(expected, (120, 1)))
    dead, alive = replicas_report(engine)
    assert dead["answered"] + alive["answered"] == 120
    assert dead["failed"] > 0
    assert dead["last_error"]
    assert alive["failed"] == 0
    assert engine.usage.questions == 120
    assert len(other.bodies) == alive["answered"]  # nobody was asked twice


def test_a_replica_that_comes_back_is_asked_again(servers, monkeypatch) -> None:
    first, _ = servers
    engine = engine_of(servers)
    first.script = lambda *_: (0, b"")
    engine.choice_logprobs([session(user, 0) for user in range(12)])
    first.script = lambda *_: None
    asked = len(first.bodies)
    engine.choice_logprobs([session(user, 1) for user in range(12)])
    assert len(first.bodies) == asked  # left alone for a while
    now = time.monotonic() + 100
    monkeypatch.setattr("usermirror_gym.engines.server.replicas.time.monotonic", lambda: now)
    engine.choice_logprobs([session(user, 2) for user in range(12)])
    assert len(first.bodies) > asked
    assert not replicas_report(engine)[0]["down"]


def test_a_busy_replica_passes_its_question_on(servers) -> None:
    first, _ = servers
    first.script = lambda *_: (429, b"{}")
    engine = engine_of(servers)
    engine.choice_logprobs([session(user, 0) for user in range(12)])
    busy, other = replicas_report(engine)
    assert (busy["answered"], other["answered"]) == (0, 12)
    assert not busy["down"]
    assert engine.report()["rerouted"] > 0


def test_all_down_names_the_prompt_every_host_and_the_cause(servers) -> None:
    for server in servers:
        server.close()
    engine = engine_of(servers, max_retries=0)
    with pytest.raises(EngineError, match=r"'user 1, turn 0'") as error:
        engine.choice_logprobs([session(1, 0)])
    for server in servers:
        assert server.url.split("/")[2] in str(error.value)
    assert "Connection" in str(error.value)


@pytest.mark.parametrize("wrong", [(0,), (1,), (0, 1)])
def test_another_model_is_an_error_that_says_what_is_served(servers, wrong) -> None:
    for k in wrong:
        servers[k].models = [{"id": "llama-3b"}, {"id": "mm"}]
    engine = engine_of(servers)
    with pytest.raises(EngineError, match=r"does not serve the model 'm'.*Did you mean 'mm'") as e:
        engine.choice_logprobs([session(user, 0) for user in range(12)])
    assert "llama-3b" in str(e.value)
    with pytest.raises(EngineError, match="does not serve"):  # and it stays one
        engine.choice_logprobs([session(user, 1) for user in range(12)])


def test_a_reply_of_another_model_is_an_error(servers) -> None:
    answering = "other"

    def script(body: dict, headers: dict, count: int) -> tuple[int, bytes]:
        return 200, json.dumps({**completion(body), "model": answering}).encode()

    for server in servers:
        server.script = script
    engine = engine_of(servers)
    with pytest.raises(EngineError, match="the model 'other' answered instead of 'm'"):
        engine.choice_logprobs([session(1, 0)])
    answering = "m-2026-01-01"
    assert len(engine.choice_logprobs([session(1, 0)])) == 1


def test_addresses_are_given_as_a_list_or_a_text() -> None:
    assert ServerEngine("m", base_url="http://a/v1, http://b:1/v1").report()["replicas"].keys() == {
        "a", "b:1",
    }  # fmt: skip
    for bad, words in (([], "begin with"), (["http://a", "ftp://b"], "begin with"),
                       ("http://a,http://a", "twice")):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            ServerEngine("m", base_url=bad)


def test_passwords_in_addresses_are_not_reported(servers) -> None:
    urls = [s.url.replace("http://", "http://me:hush@") for s in servers]
    engine = ServerEngine("m", base_url=urls, max_retries=0, timeout=2)
    engine.choice_logprobs([session(user, 0) for user in range(4)])
    for server in servers:
        server.close()
    with pytest.raises(EngineError) as error:
        engine.choice_logprobs([session(user, 1) for user in range(4)])
    assert "hush" not in f"{error.value} {engine.report()} {engine!r}"


class TestSampled:
    @pytest.fixture
    def engine(self, servers) -> ServerEngine:
        return engine_of(servers[:1], estimate_from_samples=8)

    @staticmethod
    def answering(*texts: str) -> Any:
        def script(body: dict, headers: dict, count: int) -> tuple[int, bytes]:
            reply = completion({**body, "n": len(texts)})
            for choice, text in zip(reply["choices"], texts, strict=True):
                choice["message"]["content"] = text
            return 200, json.dumps(reply).encode()

        return script

    def test_answers_are_counted_and_smoothed(self, engine, servers) -> None:
        servers[0].script = self.answering("B", "[B] Heat", " b", "A.", "B]", "(C)", "Boo", "B")
        (score,) = engine.choice_logprobs([session(1, 0)])
        # 4 x B, 1 x A, 1 x C of 6 readable answers; K = 3.
        np.testing.assert_allclose(np.exp(score.logprobs), np.array([1.5, 4.5, 1.5]) / 7.5)
        assert engine.report()["unreadable_samples"] == 2
        assert servers[0].bodies[0]["n"] == 8
        assert "logprobs" not in servers[0].bodies[0]

    def test_it_is_marked(self, engine) -> None:
        assert engine.model_id == "m/server/sampled-8"
        assert engine.fingerprint.endswith("sampled-8")

    def test_no_readable_answer_is_an_error(self, engine, servers) -> None:
        servers[0].script = self.answering(*["I would rather not"] * 8)
        with pytest.raises(EngineError, match=r"user 1.*none of 8.*I would rather not"):
            engine.choice_logprobs([session(1, 0)])

    def test_the_error_of_a_server_without_logprobs_names_the_setting(self, servers) -> None:
        reply = completion({"messages": [{"content": ""}], "seed": 0, "n": 1})
        servers[0].script = lambda *_: (200, json.dumps(reply).encode())
        with pytest.raises(EngineError, match="estimate_from_samples"):
            engine_of(servers[:1]).choice_logprobs([session(1, 0)])
