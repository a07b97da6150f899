"""Every example of CONTRIBUTING.md runs, and what it adds is really used."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.docs.pages import ROOT, blocks, sections
from usermirror_gym.benchmark.metrics import CATALOGUE_METRICS, EPISODE_METRICS, METRICS
from usermirror_gym.cli import app
from usermirror_gym.data import SOURCES
from usermirror_gym.fidelity.checks import CHECKS
from usermirror_gym.files import read_json, read_jsonl

SECTIONS = sections((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
KINDS = {
    "A data set", "A reward", "A session model", "An agent", "A metric", "A check", "An engine",
}  # fmt: skip


def write_files(section: str, folder: Path) -> list[str]:
    """The section's titled blocks as files; their names."""
    files = [block for block in blocks(SECTIONS[section]) if block.title]
    for block in files:
        (folder / block.title).write_text(block.content, encoding="utf-8")
    return [block.title for block in files]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder from which modules are imported, and forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    registries: tuple[dict[str, Any], ...]
    registries = (SOURCES, METRICS, EPISODE_METRICS, CATALOGUE_METRICS)
    before, checks = [dict(registry) for registry in registries], list(CHECKS)
    yield tmp_path
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)
    CHECKS[:] = checks
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


def run(section: str, folder: Path) -> dict[str, Any]:
    """Do what a section says; the names that its programs leave behind."""
    write_files(section, folder)
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(SECTIONS[section]):
        if block.kind == "python" and not block.title:
            exec(compile(block.content, f"CONTRIBUTING.md, {section}", "exec"), names)
        if block.kind == "bash":
            for line in block.content.replace("\\\n", " ").splitlines():
                command, *arguments = shlex.split(line, comments=True)
                assert command == "usermirror"
                result = CliRunner().invoke(app, arguments)
                assert result.exit_code == 0, result.output
    return names


def test_there_is_a_section_for_everything_that_can_be_added() -> None:
    others = {"Set up, and check", "Where things are decided", "Adding things"}
    assert set(SECTIONS) - others == KINDS


def test_every_target_of_make_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in blocks(SECTIONS["Set up, and check"])[0].content.splitlines():
        assert f"\n{line.split()[1]}:" in makefile


def test_a_data_set(here: Path) -> None:
    names = run("A data set", here)
    canteen = names["canteen"]
    assert (canteen.n_users, canteen.n_items, len(canteen.interactions)) == (20, 40, 200)
    assert canteen.titles[1].startswith("Dish ")
    steps = read_jsonl(here / "runs/canteen/episodes.jsonl")
    assert {step["agent"] for step in steps} == {"Random", "Pop"}
    assert {item for step in steps for item in step["slate"]} <= set(range(41))
    assert read_json(here / "runs/canteen/run.json")["dataset"] == "canteen"


def test_a_reward(here: Path) -> None:
    names = run("A reward", here)
    info = names["info"]
    assert info["rewards"] == {"liked": float(info["rating"] >= 4)}
    steps = read_jsonl(here / "runs/liked/episodes.jsonl")
    liked = [float((step["rating"] or 0) >= 4) for step in steps]
    assert 0 < sum(liked) < len(liked)
    assert [step["reward"] for step in steps] == liked
    for step in read_jsonl(here / "runs/both/episodes.jsonl"):
        assert step["reward"] == step["rewards"]["click"] + 0.5 * ((step["rating"] or 0) >= 4)


def test_a_session_model(here: Path) -> None:
    names = run("A session model", here)
    lengths = names["lengths"]
    assert lengths[0.0] == 20
    assert lengths[0.0] > lengths[0.5] > lengths[1.0] >= 1
    steps = read_jsonl(here / "runs/hazard/episodes.jsonl")
    last = {(step["agent"], step["episode"]): step for step in steps}.values()
    # Patience, the model of the command line by default, lets nobody go before the third list.
    assert any(step["terminated"] and step["step"] < 2 for step in last)


def test_an_agent(here: Path) -> None:
    run("An agent", here)
    steps = read_jsonl(here / "runs/trend/episodes.jsonl")
    shown = {
        name: [step["slate"] for step in steps if step["agent"] == name]
        for name in ("Pop", "Trend")
    }
    assert shown["Trend"]
    assert shown["Trend"] != shown["Pop"]
    results = read_json(here / "runs/trend/results.json")
    assert [agent["name"] for agent in results["agents"]] == ["Pop", "Trend"]


def test_a_metric(here: Path) -> None:
    names = run("A metric", here)
    steps = read_jsonl(here / "runs/first_click/episodes.jsonl")
    for agent in names["results"]["agents"]:
        first: dict[int, int] = {}
        for step in steps:
            if step["agent"] == agent["name"] and step["item"]:
                first.setdefault(step["episode"], step["step"] + 1)
        assert agent["metrics"]["first_click"]["mean"] == pytest.approx(np.mean([*first.values()]))
    assert "First click" in (here / "runs/first_click/report.html").read_text("utf-8")


def test_a_check(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERMIRROR_CACHE", str(here / "cache"))
    write_files("A data set", here)
    names = run("A check", here)
    card = names["card"]
    assert 0 < card["certainty"]["low"] < card["certainty"]["high"] < 0.9
    (criterion,) = (c for c in card["bars"] if c["name"].startswith("the likeliest item"))
    assert criterion["met"]
    assert any(said.startswith("Its likeliest item") for said in card["verdict"])
    page = (here / "runs/certainty/card.md").read_text("utf-8")
    assert "## Certainty" in page


def test_an_engine(here: Path) -> None:
    names = run("An engine", here)
    info = names["info"]
    assert info["probabilities"].shape == (6,)
    assert info["probabilities"].sum() == pytest.approx(1.0)
    # An earlier letter is likelier, whatever it stands for.
    assert (np.diff(info["probabilities"]) < 0).all()
    assert info["prompt_tokens"] > 100
    assert "characters" in names["simulator"].name


def test_the_contract_tests_of_the_page_pass(here: Path) -> None:
    files = [name for section in KINDS for name in write_files(section, here)]
    tests = [name for name in files if name.startswith("test_")]
    assert sorted(tests) == ["test_characters.py", "test_trend.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=here, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout
