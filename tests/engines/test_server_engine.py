"""The server engine against a stand-in server on this machine, well-behaved and not."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engines.stand_in import LETTERS, Reply, Server, completion
from usermirror_gym.engines.base import Generations, Sampling, generate_detailed
from usermirror_gym.engines.choosing import load_engine
from usermirror_gym.engines.server.chat_api import chat_body, counts_of
from usermirror_gym.engines.server.server_engine import ServerEngine
from usermirror_gym.errors import ConfigError, EngineError, MissingDependencyError
from usermirror_gym.testing.engines import EngineContract
from usermirror_gym.types import Message, Prompt

KEY = "sk-very-secret-0123456789"


def ask(text: str, **more: Any) -> Prompt:
    return Prompt((Message("user", text),), more.pop("prefix", ""), tuple("ABC"), text, **more)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    made = Server()
    yield made
    made.close()


@pytest.fixture
def engine(server: Server) -> ServerEngine:
    made = load_engine("openai:some/model", base_url=server.url, timeout=10)
    assert isinstance(made, ServerEngine)
    return made


class TestContract(EngineContract):
    """What a chat endpoint can keep of the contract."""

    # A chat endpoint scores no given texts, and takes no plain text.
    test_the_batch_and_its_order_do_not_matter = None
    test_texts_add_up_over_their_parts = None
    test_samples_depend_on_the_seed_only = None
    test_a_long_prompt_is_an_error_that_names_it = None
    # Markup in messages is the server's to keep apart; a count here is an estimate.
    test_markup_in_data_is_plain_text = None

    @pytest.fixture
    def engine(self, server: Server) -> ServerEngine:
        return ServerEngine("some/model", base_url=server.url)


def test_requests_have_the_documented_form(engine: ServerEngine, server: Server) -> None:
    prompt = Prompt((Message("system", "Be brief."), Message("user", "film?")), "", (), "p")
    engine.generate([prompt], n=2, temperature=0.7, top_p=0.9, max_tokens=33, stop=["\n"], seed=4)
    (body,) = server.bodies
    assert server.paths == {"/v1/chat/completions"}
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert 0 <= body.pop("seed") < 2**31
    assert body == {
        "model": "some/model", "n": 2, "temperature": 0.7, "top_p": 0.9, "max_tokens": 33,
        "stop": ["\n"],
        "messages": [
            {"role": "system", "content": "Be brief."}, {"role": "user", "content": "film?"},
        ],
    }  # fmt: skip


def test_a_begun_answer_is_a_last_message_to_be_continued(
    engine: ServerEngine, server: Server
) -> None:
    engine.generate([ask("film?", prefix="My choice: [")])
    (body,) = server.bodies
    assert body["messages"][-1] == {"role": "assistant", "content": "My choice: ["}
    assert body["continue_final_message"] is True
    assert body["add_generation_prompt"] is False


def test_fields_can_be_added_and_taken_away(server: Server) -> None:
    extra = {"max_tokens": None, "max_completion_tokens": 9}
    ServerEngine("m", base_url=server.url, extra_body=extra).generate([ask("x")])
    assert "max_tokens" not in server.bodies[0]
    assert server.bodies[0]["max_completion_tokens"] == 9


def test_order_is_kept_and_no_more_than_concurrency_are_asked_at_once(server: Server) -> None:
    def script(body: dict, headers: dict, count: int) -> None:
        time.sleep(0.02 * (5 - int(body["messages"][-1]["content"]) % 5))

    server.script = script
    engine = ServerEngine("m", base_url=server.url, concurrency=3)
    texts = engine.generate([ask(str(i)) for i in range(12)], n=2)
    assert [[t.split("/")[0] for t in two] for two in texts] == [[str(i)] * 2 for i in range(12)]
    assert server.most_busy == 3


def test_seeds_depend_on_seed_and_prompt_not_on_the_batch(engine: ServerEngine) -> None:
    prompts = [ask("a"), ask("b")]
    together = engine.generate(prompts, seed=5)
    assert together == [engine.generate([p], seed=5)[0] for p in prompts]
    assert together != engine.generate(prompts, seed=6)
    seeds = {text.split("/")[1] for (text,) in together}
    assert len(seeds) == 2


def test_usage_is_what_the_server_counted(engine: ServerEngine) -> None:
    (found,) = generate_detailed(engine, [ask("a")], Sampling(n=3))
    assert found.prompt_tokens == 50
    assert sum(found.completion_tokens) == 21
    assert len(found.completion_tokens) == 3


def test_tokens_of_several_texts_are_told_apart_by_length(
    engine: ServerEngine, server: Server
) -> None:
    def script(body: dict, headers: dict, count: int) -> Reply:
        reply = completion(body)
        reply["choices"][1]["message"]["content"] = "x" * 999
        reply["usage"]["completion_tokens"] = 101
        return 200, json.dumps(reply).encode()

    server.script = script
    (found,) = engine.generate_detailed([ask("a")], Sampling(n=2))
    assert sum(found.completion_tokens) == 101
    assert found.completion_tokens[1] > 90


@pytest.mark.parametrize("status", [429, 500, 503, 0])
def test_what_fails_for_a_moment_is_repeated(
    status: int, engine: ServerEngine, server: Server
) -> None:
    server.script = lambda body, headers, count: (status, b"{}") if count < 3 else None
    if status == 0:  # a lost connection tells no pause, and the library's own is half a second
        server.script = lambda body, headers, count: (0, b"") if count < 2 else None
    assert engine.generate([ask("a")])[0][0].startswith("a/")
    assert server.times["a"] == (2 if status == 0 else 3)


def test_what_fails_for_good_is_an_error_of_that_prompt_alone(
    engine: ServerEngine, server: Server
) -> None:
    def script(body: dict, headers: dict, count: int) -> Reply | None:
        if body["messages"][-1]["content"] == "bad":
            return 400, b'{"error": {"message": "too long for me"}}'
        return None

    server.script = script
    prompts = [ask("good"), ask("bad"), ask("fine")]
    found = engine.generate_detailed(prompts, Sampling())
    assert [f.error is None for f in found] == [True, False, True]
    assert server.times["bad"] == 1
    with pytest.raises(EngineError, match=r"prompt 'bad' at 127\.0\.0\.1:\d+: .*too long for me"):
        engine.generate(prompts)


def test_retries_are_bounded(server: Server) -> None:
    server.script = lambda *_: (500, b'{"error": "broken"}')
    engine = ServerEngine("m", base_url=server.url, max_retries=2)
    with pytest.raises(EngineError, match=r"prompt 'a'.*500"):
        engine.generate([ask("a")])
    assert server.times["a"] == 3


def test_a_server_that_does_not_answer_is_an_error_in_time(server: Server) -> None:
    server.script = lambda *_: time.sleep(3)  # type: ignore[func-returns-value]
    engine = ServerEngine("m", base_url=server.url, timeout=0.2, max_retries=0)
    begin = time.perf_counter()
    with pytest.raises(EngineError, match=r"prompt 'a'.*[Tt]ime"):
        engine.generate([ask("a")])
    assert time.perf_counter() - begin < 2.5


def test_a_server_that_is_not_there_is_an_error(engine: ServerEngine, server: Server) -> None:
    server.close()
    one_try = ServerEngine("m", base_url=server.url, max_retries=0)
    with pytest.raises(EngineError, match=r"prompt 'a' at 127\.0\.0\.1.*[Cc]onnect"):
        one_try.generate([ask("a")])


@pytest.mark.parametrize(
    "data",
    [
        b"{not json", b"", b"[]", b"null", b"{}", b'{"choices": []}', b'{"choices": null}',
        b'{"choices": [7]}', b'{"choices": [{}]}', b'{"choices": [{"message": {"content": 5}}]}',
        b'{"choices": [{"message": "x"}]}', b'{"error": "model is loading"}', b"\xff\xfe",
    ],
)  # fmt: skip
def test_garbage_is_an_error_that_names_the_prompt(
    data: bytes, engine: ServerEngine, server: Server
) -> None:
    server.script = lambda *_: (200, data)
    (found,) = engine.generate_detailed([ask("a")], Sampling())
    assert found.texts == ()
    assert found.error is not None
    assert "prompt 'a'" in found.error
    with pytest.raises(EngineError, match="prompt 'a'"):
        engine.choice_logprobs([ask("a")])


def test_odd_usage_is_no_error(engine: ServerEngine, server: Server) -> None:
    def script(body: dict, headers: dict, count: int) -> Reply:
        reply = completion(body) | {"usage": None if count == 1 else {"prompt_tokens": "many"}}
        return 200, json.dumps(reply).encode()

    server.script = script
    for _ in range(2):
        (found,) = engine.generate_detailed([ask("a")], Sampling())
        assert (found.error, found.prompt_tokens, found.completion_tokens) == (None, 0, (0,))


def test_fewer_texts_than_asked_for_is_an_error(engine: ServerEngine, server: Server) -> None:
    server.script = lambda body, *_: (200, json.dumps(completion({**body, "n": 1})).encode())
    with pytest.raises(EngineError, match=r"1 texts instead of 3.*n=1"):
        engine.generate([ask("a")], n=3)


def test_refusals_are_errors_and_silence_is_an_empty_text(
    engine: ServerEngine, server: Server
) -> None:
    def script(body: dict, headers: dict, count: int) -> Reply:
        reply = completion(body)
        choice = reply["choices"][0]
        choice["message"]["content"] = None
        if body["messages"][-1]["content"] == "refused":
            choice["message"]["refusal"] = "I cannot help with films."
        if body["messages"][-1]["content"] == "filtered":
            choice["finish_reason"] = "content_filter"
        return 200, json.dumps(reply).encode()

    server.script = script
    found = engine.generate_detailed([ask("refused"), ask("filtered"), ask("")], Sampling())
    assert [(f.error or "").rpartition(": ")[2] for f in found] == [
        "the server refused to answer.", "the server refused to answer.", "",
    ]  # fmt: skip
    assert found[2].texts == ("",)


def test_stop_strings_that_a_server_leaves_in_are_cut(engine: ServerEngine) -> None:
    assert engine.generate([ask("first stop second")], stop=["stop", "second"]) == [["first "]]


def test_letters_come_from_the_likeliest_first_tokens(engine: ServerEngine, server: Server) -> None:
    (score,) = engine.choice_logprobs([ask("film?", prefix="My choice: [")])
    wanted = np.array([LETTERS[letter] for letter in "ABC"])
    np.testing.assert_allclose(score.logprobs, wanted - np.log(np.exp(wanted).sum()))
    assert (score.prompt_tokens, score.cached_tokens) == (50, 16)
    body = server.bodies[0]
    assert (body["max_tokens"], body["n"], body["temperature"], body["top_p"]) == (1, 1, 1.0, 1.0)
    assert body["logprobs"] is True
    assert body["top_logprobs"] == 20


def test_a_letter_that_the_server_does_not_tell_is_an_error(engine: ServerEngine) -> None:
    prompt = Prompt((Message("user", "x"),), "My choice: [", ("A", "Y", "Z"), "many options")
    with pytest.raises(EngineError, match=r"'many options'.*'Y', 'Z' are not among the 7"):
        engine.choice_logprobs([prompt])


@pytest.mark.parametrize(
    "logprobs",
    [
        None, {}, {"content": None}, {"content": []}, {"content": [{"top_logprobs": []}]},
        {"content": [{"top_logprobs": [{"token": "A"}]}]},
        {"content": [{"top_logprobs": [{"token": "A", "logprob": None}]}]},
        {"content": [{"top_logprobs": [{"token": t, "logprob": "nan"} for t in "ABC"]}]},
    ],
)  # fmt: skip
def test_a_server_without_logprobs_cannot_predict(
    logprobs: Any, engine: ServerEngine, server: Server
) -> None:
    def script(body: dict, headers: dict, count: int) -> Reply:
        reply = completion(body)
        reply["choices"][0]["logprobs"] = logprobs
        return 200, json.dumps(reply).encode()

    server.script = script
    with pytest.raises(EngineError, match=r"prompt 'a'.*no log-probabilities.*transformers"):
        engine.choice_logprobs([ask("a")])


def test_given_texts_and_plain_text_are_not_for_chat_endpoints(
    engine: ServerEngine, server: Server
) -> None:
    with pytest.raises(EngineError, match="cannot score given texts"):
        engine.text_logprobs([ask("a")])
    plain = Prompt((), "Films:\n", ("A",), "the plain one")
    with pytest.raises(EngineError, match="'the plain one' is plain text"):
        engine.generate([plain])
    with pytest.raises(EngineError, match="'the plain one' is plain text"):
        chat_body(plain, "m", Sampling())
    assert server.bodies == []


def test_a_prompt_that_cannot_fit_is_not_sent(server: Server) -> None:
    engine = ServerEngine("m", base_url=server.url, context_length=100)
    long = Prompt((Message("user", "film " * 100),), "", ("A",), "the long one")
    with pytest.raises(EngineError, match="'the long one' needs about"):
        engine.generate([long], max_tokens=1)
    with pytest.raises(EngineError, match="'the long one' needs about"):
        engine.choice_logprobs([long])
    with pytest.raises(EngineError, match="needs about"):
        engine.generate([ask("short")], max_tokens=99)
    assert server.bodies == []


def test_counts_are_marked_as_estimates(engine: ServerEngine) -> None:
    assert engine.counts_are_estimates
    short, long = (Prompt((Message("user", "x" * k),), "", ("A",), "p") for k in (40, 440))
    assert engine.count_tokens(long) - engine.count_tokens(short) == 100


def test_the_key_is_nowhere_to_be_seen(
    engine: ServerEngine, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    def script(body: dict, headers: dict, count: int) -> Reply:
        complaint = f"bad header: {headers['authorization']}"
        kinds = {"400": (400, {"error": {"message": complaint}}), "200": (200, {"oops": complaint})}
        status, reply = kinds[body["messages"][-1]["content"]]
        return status, json.dumps(reply).encode()

    server.script = script
    with caplog.at_level(logging.DEBUG):
        found = engine.generate_detailed([ask("400"), ask("200")], Sampling())
        errors = [f.error or "" for f in found]
        with pytest.raises(EngineError) as caught:
            engine.generate([ask("400")])
    assert all("bad header" in error for error in errors)
    chain = [caught.value, caught.value.__cause__, caught.value.__context__]
    seen = [
        repr(engine),
        str(vars(engine)),
        engine.model_id,
        caplog.text,
        *errors,
        *map(repr, chain),
    ]
    assert not any(KEY in text for text in seen)


def test_an_address_with_a_password_is_not_shown(server: Server) -> None:
    server.script = lambda *_: (400, b"{}")
    url = server.url.replace("http://", "http://me:hunter2@")
    engine = ServerEngine("m", base_url=url)
    (found,) = engine.generate_detailed([ask("a")], Sampling())
    assert "hunter2" not in f"{engine!r} {engine.model_id} {found.error}"


def test_a_key_that_can_be_none_is_refused_unseen(
    engine: ServerEngine, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one\nsk-two")
    with pytest.raises(EngineError, match="OPENAI_API_KEY holds characters") as caught:
        engine.generate([ask("a")])
    assert "sk-" not in str(caught.value)
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    engine.generate([ask("a")])
    assert server.headers[-1]["authorization"] == f"Bearer {KEY}"


def test_openai_itself_wants_a_key_and_an_own_server_does_not(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    ServerEngine("m", base_url=server.url).generate([ask("a")])
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(EngineError, match="wants a key: set OPENAI_API_KEY"):
        ServerEngine("m").generate([ask("a")])
    monkeypatch.setenv("MY_KEY", "sk-mine")
    ServerEngine("m", base_url=server.url, key_variable="MY_KEY").generate([ask("a")])
    assert server.headers[-1]["authorization"] == "Bearer sk-mine"


def test_it_works_where_a_loop_is_running(engine: ServerEngine) -> None:
    async def notebook() -> list[list[str]]:
        return engine.generate([ask("a")])

    assert asyncio.run(notebook())[0][0].startswith("a/")


def test_without_the_package_the_error_names_the_extra(
    engine: ServerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingDependencyError, match=re.escape("usermirror-gym[server]")):
        engine.generate([ask("a")])


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"model": ""}, "model is empty"),
        ({"base_url": "localhost:8000"}, "base_url must begin with http"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"timeout": 0}, "timeout is 0"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"max_retries": -1}, "max_retries is -1"),
        ({"context_length": 0}, "context_length is 0"),
    ],
)
def test_settings_are_checked(bad: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ServerEngine(**({"model": "m"} | bad))


class _Plain:
    """An engine without accounts of its own."""

    def count_tokens(self, prompt: Prompt) -> int:
        return 1 + len(prompt.answer_prefix.split())

    def generate(self, prompts: list[Prompt], **_: Any) -> list[list[str]]:
        for prompt in prompts:
            if prompt.name == "bad":
                raise EngineError("prompt 'bad' broke")
        return [["one two", "three"] for _ in prompts]


def test_other_engines_are_counted_and_asked_alone_when_one_prompt_fails() -> None:
    found = generate_detailed(_Plain(), [ask("a"), ask("bad"), ask("c")], Sampling(n=2))  # type: ignore[arg-type]
    good = Generations(("one two", "three"), 1, (2, 1))
    assert found == [good, Generations((), error="prompt 'bad' broke"), good]


def test_rationales_through_a_server_end_to_end(
    engine: ServerEngine, server: Server, tmp_path: Path
) -> None:
    from usermirror_gym.corpus.rationales.plan import RationaleSettings
    from usermirror_gym.corpus.rationales.predictions import load_predictions, predict_choices
    from usermirror_gym.corpus.rationales.write import read_rationales, write_rationales
    from usermirror_gym.progress import Display
    from usermirror_gym.scenes.scene import Scene
    from usermirror_gym.scenes.words.prompt import PromptBuilder
    from usermirror_gym.scenes.words.template import domain_text
    from usermirror_gym.testing.data import tiny_split

    quiet, builder = Display(quiet=True), PromptBuilder(domain_text(tiny_split().dataset))
    scenes = [
        Scene(user_id=u, history=(1,), ratings=(4.0,), ages=(9,), slate=(7, 8), name=f"s{u}")
        for u in (1, 2)
    ]

    def script(body: dict, headers: dict, count: int) -> Reply | None:
        if body.get("logprobs"):
            return None
        # One text whatever is asked for, as some servers do.
        reply = completion({**body, "n": 1})
        text = "Stimulus: a.\nKnowledge: b.\nEvaluation: c.\nMy choice: [B]"
        reply["choices"][0]["message"]["content"] = text
        return 200, json.dumps(reply).encode()

    server.script = script
    settings = RationaleSettings(n=2, prompt_price=1.0, completion_price=1.0)
    path = tmp_path / "r.jsonl"
    summary = write_rationales(
        scenes, builder, engine, path, settings, role="strong", display=quiet
    )
    assert (summary.written, summary.failures) == (4, {"engine": 4})
    assert (summary.prompt_tokens, summary.completion_tokens) == (4 * 50, 4 * 7)
    found = read_rationales(path)
    predict_choices(scenes, builder, engine, found, tmp_path / "p.jsonl", display=quiet)
    rows = load_predictions(tmp_path / "p.jsonl", ["s1", "s2"], 2)
    assert np.shape(rows["strong"]) == (2, 2, 3)
    for file in tmp_path.iterdir():
        assert KEY not in file.read_text()


def test_whom_a_run_talks_to_is_said_once_before_the_first_question(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    address = server.url.replace("http://", "http://me:very-secret@")
    engine = ServerEngine("some/model", base_url=address)
    assert not caplog.messages
    server.script = lambda *_: said.append(list(caplog.messages))  # type: ignore[func-returns-value]
    said: list[list[str]] = []
    for _ in range(2):
        engine.generate([ask("a")])
    where = server.url.removeprefix("http://").removesuffix("/v1")
    assert said == [[f"asking the model 'some/model' at {where}"]] * 2
    assert caplog.records[0].levelno >= logging.WARNING  # shown on stderr by default


def test_counts_of_tokens_are_numbers_of_tokens() -> None:
    told = {"prompt_tokens": 9, "completion_tokens": 4}
    for cached, expected in ((3, 3), (10, 0), (True, 0), (-1, 0)):
        usage = told | {"prompt_tokens_details": {"cached_tokens": cached}}
        assert counts_of({"usage": usage}) == (9, expected, 4)
