"""``usermirror evaluate`` as a person meets it."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from usermirror_gym.cli import app
from usermirror_gym.cli.evaluate import evaluate
from usermirror_gym.fidelity import scenes as fidelity_scenes
from usermirror_gym.fidelity.run import EvaluateConfig
from usermirror_gym.testing.data import tiny_split


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["evaluate", *arguments])


def plain(result: Result) -> str:
    return " ".join(result.output.split())


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("USERMIRROR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scenes(here: Path) -> str:
    data = tiny_split(n_users=60, n_items=60).dataset
    data.items.reset_index().to_csv(here / "films.csv", index=False)
    data.interactions.to_csv(here / "log.csv", index=False)
    (here / "mine.yaml").write_text(
        "name: mine\ndomain: movie\n"
        "interactions: {file: log.csv, user: user_id, item: item_id, time: timestamp}\n"
        "items: {file: films.csv, item: item_id, title: title, texts: [genres], numbers: [year]}\n"
    )
    return "mine.yaml"


def small(scenes: str) -> tuple[str, ...]:
    return ("--scenes", scenes, "--count", "20", "--checks", "4", "--no-classic")


def test_a_card_is_printed_and_written(scenes: str, here: Path) -> None:
    result = call("--simulator", "popularity", *small(scenes), "--out", "card")
    assert result.exit_code == 0, result.output
    assert "popularity on 20 real choices of mine" in result.output
    assert "- On 20 real choices it names the right item" in result.output
    for name in ("card.html", "card.md", "card.json"):
        assert f"card/{name}" in result.output
        assert (here / "card" / name).is_file()
    assert json.loads((here / "card" / "card.json").read_text())["scenes"]["with_target"] == 20


def test_simulators_and_cards_are_compared(scenes: str, here: Path) -> None:
    assert call("--simulator", "popularity", *small(scenes), "--out", "card").exit_code == 0
    result = call("--compare", "card", "uniform", *small(scenes))
    assert result.exit_code == 0, result.output
    assert "popularity against uniform" in result.output
    assert "runs/evaluate/compare/compare.html" in result.output
    assert (here / "runs/evaluate/uniform-mine.yaml/card.json").is_file()
    comparison = json.loads((here / "runs/evaluate/compare/compare.json").read_text())
    assert [pair["scenes"] for pair in comparison["paired"]] == [20]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--simulator", "popularty"), "Did you mean 'popularity'?"),
        (("--scenes", "ml-100"), "Did you mean 'ml-100k'?"),
        (("--count", "0"), "count must be at least 1, got 0"),
        (("popularity", "uniform"), "several with --compare"),
        (("--compare", "uniform"), "at least two different names, got uniform"),
        (("--simulator", "uniform", "--set", "outside"), "--set takes name=value"),
    ],
)
def test_mistakes_end_with_one_clear_line_and_status_1(
    arguments: tuple[str, ...], message: str, scenes: str, here: Path
) -> None:
    chosen = () if "--scenes" in arguments else small(scenes)
    result = call(*chosen, *arguments)
    assert result.exit_code == 1
    assert message in plain(result)
    assert "Traceback" not in result.output


def test_too_few_scenes_for_the_classic_choosers_are_said_with_the_cure(scenes: str) -> None:
    lines = Path("log.csv").read_text().splitlines()
    Path("log.csv").write_text("\n".join(lines[:150]) + "\n")
    arguments = [a for a in small(scenes) if a != "--no-classic"]
    result = call("--simulator", "uniform", *arguments, "--out", "card")
    assert result.exit_code == 1
    assert "--no-classic" in plain(result)


def test_the_command_and_the_library_have_the_same_defaults() -> None:
    options = inspect.signature(evaluate).parameters
    for field in dataclasses.fields(EvaluateConfig):
        if field.name != "options":  # --set, given as text
            assert options[field.name].default == getattr(EvaluateConfig(), field.name), field.name


@pytest.mark.slow
def test_the_language_model_gets_a_card(
    scenes: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("USERMIRROR_CACHE")  # where the weights are
    monkeypatch.setattr(fidelity_scenes, "cache_folder", lambda: here / "cache")
    call_of = ("--scenes", scenes, "--count", "6", "--checks", "1", "--no-classic", "--out", "card")
    result = call(*call_of)
    assert result.exit_code == 0, result.output
    card = json.loads((here / "card" / "card.json").read_text())
    assert "smollm2" in card["simulator"]["model"]
    assert card["simulator"]["options"]["readout"] == "affinity"
    assert card["base"] == "smollm2-likelihood (base)"
    assert card["order"]["duplicates_max_difference"] < 1e-3
    assert {probe["n"] for probe in card["probes"]} == {1}
