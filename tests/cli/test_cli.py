"""The command line as a person meets it."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from usermirror_gym.benchmark.run import BenchmarkConfig
from usermirror_gym.cli import app
from usermirror_gym.cli.main import benchmark


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_an_episode_is_printed_readably() -> None:
    result = call("episode", "--simulator", "popularity", "--steps", "2", "--user", "1")
    assert result.exit_code == 0
    assert "User 1" in result.output
    assert "occupation technician" in result.output
    assert "none of these" in result.output
    assert "Chosen: " in result.output
    assert "return" in result.output
    assert "\x1b[" not in result.output  # no colour codes where there is no terminal


def test_the_same_seed_prints_the_same_episode() -> None:
    arguments = ("episode", "--simulator", "popularity", "--agent", "Random", "--steps", "3")
    assert call(*arguments, "--seed", "4").output == call(*arguments, "--seed", "4").output
    assert call(*arguments, "--seed", "4").output != call(*arguments, "--seed", "5").output


def test_list_names_everything_that_can_be_named() -> None:
    output = call("list").output
    for name in ("ml-100k", "smollm2-likelihood", "LightGCN", "Oracle"):
        assert name in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("episode", "--simulator", "popularty"), "Did you mean 'popularity'?"),
        (("episode", "--agent", "lightgc"), "Did you mean 'LightGCN'?"),
        (
            ("episode", "--simulator", "popularity", "--user", "9999"),
            "user id 9999 is not in 1..943",
        ),
        (("episode", "--dataset", "ml-10k"), "Did you mean 'ml-100k'?"),
        (("episode", "--dataset", "ml-1m"), "ml-1m needs the folder"),
        (("episode", "--simulator", "uniform", "--set", "outside"), "--set takes name=value"),
        (("episode", "--simulator", "uniform", "--set", "outside=7"), "between 0 and 1, got 7"),
        (("benchmark", "--users", "0"), "users must be at least 1"),
    ],
)
def test_mistakes_end_with_one_clear_line_and_status_1(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_the_command_and_the_library_have_the_same_defaults() -> None:
    options = inspect.signature(benchmark).parameters
    for field in dataclasses.fields(BenchmarkConfig):
        if field.name == "simulator_options":  # --set, given as text
            continue
        library = getattr(BenchmarkConfig(), field.name)
        shown = options[field.name].default
        assert shown == (",".join(library) if field.name == "agents" else library), field.name


def test_engines_are_listed_with_what_they_lack() -> None:
    output = " ".join(call("engines").output.split())
    for name in ("transformers", "vllm", "server", "affinity", "usermirror-gym[vllm]"):
        assert name in output
    assert "--engine auto takes transformers" in output


def test_an_engine_is_chosen_by_name() -> None:
    unknown = call("episode", "--engine", "vlm")
    assert unknown.exit_code == 1
    assert "Did you mean 'vllm'?" in unknown.output
    twice = call("episode", "--engine", "vllm", "--set", "engine={kind: transformers}")
    assert twice.exit_code == 1
    assert "do not go together" in " ".join(twice.output.split())
