"""What comes from somebody else: bounds of JSON and YAML, names, texts, secrets."""

from __future__ import annotations

import time
from typing import Any

import pytest
from markupsafe import Markup

from usermirror_gym.foreign import (
    MAX_DEPTH,
    MAX_YAML_VALUES,
    file_name,
    for_html,
    for_terminal,
    masked,
    parse_json,
    parse_yaml,
)

ALIASES = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 12))


@pytest.mark.parametrize("parse", [parse_json, parse_yaml])
@pytest.mark.parametrize("depth", [MAX_DEPTH + 2, 100_000])
def test_what_is_nested_too_deeply_ends_with_an_error(parse: Any, depth: int) -> None:
    assert parse("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    with pytest.raises(ValueError, match=f"deeper than {MAX_DEPTH} levels"):
        parse("[" * depth + "]" * depth)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("&a [*a]", r"part of itself \(line 1\)"),
        ("a: &a {b: *a}", "part of itself"),
        (ALIASES, f"more than {MAX_YAML_VALUES:,} values"),
        ("[1, 2]: 3", "unhashable key"),
        ("? {a: 1}\n: 2", "unhashable key"),
        ("d: 2024-13-45", "month must be in 1..12"),
        ("a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        ("a: [", "expected the node content"),
        ("a: !!int x", "invalid literal"),
        ("a: !!bool x", "not of the kind that its tag says"),
        ("a: !!timestamp x", "not of the kind that its tag says"),
        (f"a: {'9' * 5000}", "a number of 5,000"),
        ("a: \x00", "special characters"),
        ("<<: 1", "expected a mapping"),
        ("--- 1\n--- 2", "single document"),
    ],
)
def test_yaml_that_cannot_be_used_is_a_value_error(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_yaml(text)


def test_yaml_and_json_as_they_should_be() -> None:
    text = "base: &b {x: 1}\nsame: *b\nmore: {<<: *b, y: [2, null]}\n1: one"
    base = {"x": 1}
    assert parse_yaml(text) == {
        "base": base,
        "same": base,
        "more": {**base, "y": [2, None]},
        1: "one",
    }
    assert parse_yaml("") is None
    assert parse_json(b'{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}


def test_a_json_number_of_any_length_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="digits"):
        parse_json("9" * 5000)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "../x", "/etc/x", "a\\b", "a\0b", "a\nb", "\x1b[31m", "x" * 300, ".x",
     "~x", "é" * 150, "a\u202eb", "a\udcffb"],
)  # fmt: skip
def test_names_that_are_no_names_of_files(name: str) -> None:
    assert not file_name(name)


@pytest.mark.parametrize("name", ["Pop", "SlateQ@run-1", "été", "a b", "x.y", "[red]", "x" * 200])
def test_names_of_files(name: str) -> None:
    assert file_name(name)


def test_terminals_obey_nothing() -> None:
    assert for_terminal("a\x1b[31mb\x07\r\x9b\u202e") == "a\\x1b[31mb\\x07\\r\\x9b\\u202e"
    assert for_terminal("two\nlines\tand – ±") == "two\nlines\tand – ±"
    assert for_terminal("a\udcffb") == "a\\udcffb"


def test_browsers_obey_nothing() -> None:
    assert for_html("<b a='1'>\x1b&") == "&lt;b a=&#39;1&#39;&gt;\\x1b&amp;"
    assert for_html(Markup("<b>")) == "<b>"


SECRET = "s3cr3t-marker"


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": f"http://user:{SECRET}@host:8000/v1"},
        {"base_url": f"http://{SECRET}@host/v1"},
        {"base_url": f"http://host/v1,https://u:{SECRET}@two/v1"},
        {"base_url": [f"http://u:a,{SECRET}@host", f"http://u:a/{SECRET}@host:1/v1"]},
        {"base_url": f"http://u:p#{SECRET}@host/v1"},
        {"base_url": f"http://u:p@{SECRET}@host/v1"},
        {"base_url": f"user:{SECRET}@host:8000/v1"},
        {"base_url": f"http://host/v1?key={SECRET}"},
        {"extra_body": {"api_key": SECRET, "deep": [{"authToken": SECRET}]}},
        {"extra_headers": {"Authorization": f"Bearer {SECRET}", "X-Api-Key": SECRET}},
        {"headers": {"X-Any": f"Bearer {SECRET}"}},
        {"credentials": {"who": "me", "what": SECRET}},
        {"anything": f"sk-{SECRET}-0123456789"},
        {"line": f"usermirror --set 'engine={{base_url: http://u:{SECRET}@h, x: 1}}'"},
        {"line": f"--set engine.api_key={SECRET} --users 4"},
        {"line": f'--set \'engine={{extra_body: {{"api_key": "{SECRET} x"}}}}\''},
        {"line": f"option={{'Authorization': 'Bearer {SECRET}'}}"},
        {"line": f"Authorization: Token {SECRET}"},
        {"headers": [["Authorization", f"Token {SECRET}"]]},
        {"access_key_id": SECRET, "auth_header": f"Token {SECRET}", "jwt": SECRET},
        {"any": f"github_pat_{SECRET.replace('-', '_')}0123456789"},
    ],
)
def test_secrets_are_masked(settings: Any) -> None:
    found = masked(settings)
    assert SECRET not in str(found)
    assert "***" in str(found)
    assert masked(found) == found


def test_a_number_can_be_a_password() -> None:
    assert masked({"password": 1234, "max_tokens": 5}) == {"password": "***", "max_tokens": 5}


def test_what_is_no_secret_stays() -> None:
    settings = {
        "base_url": "http://host:8000/v1", "two": "http://a:1/v1,http://b:2/v1", "users": 4,
        "key_variable": "OPENAI_API_KEY", "tokens": 0.5, "rationale_tokens": 160, "flag": True,
        "model": "openai:claude@20240620", "label": "SlateQ@run", "none": None, "text": "",
        "homepage": "https://host/path", "prompt": "Basic rules of the task: see a token.",
        "share": ("a", 0.5), "patience": 3, "dataset": "hf_datasets_2024/x.yaml",
        "agents": ["sk_ease_baselines/e", "runs/n_token=512/agent"], "sort_key": "year",
        "teacher": "runs/sk_llama_teacher/checkpoint", "eos_token": "</s>", "monkey": 3,
        "simulator": "hf-internal-testing/tiny-random-LlamaForCausalLM", "page": "https://h/a#b",
    }  # fmt: skip
    assert masked(settings) == settings


def test_a_text_is_masked_in_a_time_that_grows_with_its_length() -> None:
    begin = time.perf_counter()
    masked("x " + "a://" * 15_000)
    assert time.perf_counter() - begin < 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: " + ":".join("1" * 9_000), "a number of 17,999 characters"),
        ("a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 200)), "deeper"),
    ],
)
def test_yaml_that_takes_long_or_grows_deep_by_reference(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_yaml(text)
