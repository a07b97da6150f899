"""Texts and names: in terminals, pages and cards, as names of files, as settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import gymnasium as gym

from tests.conftest import build_split
from tests.hostile.case import Case, Place
from usermirror_gym.agents import RandomAgent
from usermirror_gym.benchmark import run as benchmark_run
from usermirror_gym.benchmark.run import BenchmarkConfig, read_run, run_benchmark
from usermirror_gym.cli.options import parse_settings
from usermirror_gym.configs import read_preset
from usermirror_gym.configs.settings import read_settings
from usermirror_gym.data import TimeSplit
from usermirror_gym.envs.render import Option, StepView, render_ansi, render_html
from usermirror_gym.report.tables import Cell, View, markdown_table

DEEP = "[" * 100_000 + "]" * 100_000
HOSTILE = "<script>x</script>|\x1b]0;owned\x1b[31m\u202e\n# [red]h"


def _nothing(place: Place) -> None:
    """The text stands in the program."""


def _view(text: str) -> StepView:
    options = (Option(text, text, 0.9, True), Option("none", "none", 0.1, False))
    return StepView(
        1, text, (text,), (text,), 2, past=text, options=options, rationale=text
    )  # fmt: skip


def _own_words() -> TimeSplit:
    """A data set whose titles are hostile, and the words of its own template."""
    split = build_split([f"{HOSTILE} {n}" for n in range(8)])
    short = "<script>x</script>"
    words = read_preset("domains", "movie") | {"past": short, "noun": short}
    return replace(split, dataset=replace(split.dataset, template=words))


def _rendered(mode: str) -> Callable[[Place], str]:
    def read(place: Place) -> str:
        env = gym.make(
            "UserMirror/Slate-v0", dataset=_own_words(), simulator="popularity", slate_size=2,
            render_mode=mode,
        )  # fmt: skip
        env.reset(seed=0)
        env.step([7, 8])
        return str(env.render())

    return read


def _harmless_page(place: Place, page: str) -> bool:
    return "<script" not in page and not any(code in page for code in "\x1b\u202e")


def _harmless_ansi(place: Place, text: str) -> bool:
    """Colours are ours; "31" is not among them."""
    return not any(code in text for code in ("\x1b]", "\x1b[31m", "\u202e")) and "red" in text


def _harmless_card(place: Place, text: str) -> bool:
    rows = text.splitlines()
    return len(rows) == 3 and "<" not in text and "\x1b" not in text and rows[2].count(" | ") == 1


def _settings(content: str) -> Callable[[Place], object]:
    return lambda place: (place.folder / "a.yaml").write_text(content)


def _read_settings(place: Place) -> Any:
    return read_settings("data", place.folder / "a.yaml")


def _called(name: str) -> Callable[[Place], Any]:
    """A benchmark in which an agent is called so."""

    def read(place: Place) -> Any:
        agent = RandomAgent(seed=0)
        agent.name = name
        config = BenchmarkConfig(
            agents=("Random",), simulator="popularity", users=2, steps=2, fidelity_scenes=0
        )
        with patch.object(benchmark_run, "make_agent", lambda *_, **__: agent):
            return run_benchmark(config, place.folder / "run")

    return read


def _run(content: str) -> Callable[[Place], object]:
    return lambda place: (place.folder / "run.json").write_text(content)


def _nothing_outside(place: Place, _: object) -> bool:
    here = [path.name for path in place.folder.parent.iterdir()]
    return here == [place.folder.name] and not any(place.folder.iterdir())


NAMES: dict[str, str] = {
    "leads out of the folder": "../marker", "is absolute": "/tmp/marker", "holds NUL": "a\0b",
    "has 300 characters": "x" * 300, "colours the terminal": "\x1b[31mx", "is hidden": ".x",
    "turns around": "a\u202eb", "is a folder": "..",
}  # fmt: skip

CASES = [
    *(
        Case(f"the name of an agent {what}", _nothing, _called(name), "no name for a file",
             gives=_nothing_outside)
        for what, name in NAMES.items()
    ),
    Case("a step in HTML: its texts", _nothing, lambda _: render_html(_view(HOSTILE)),
         gives=_harmless_page),
    Case("a step in HTML: titles of a data set", _nothing, _rendered("html"), gives=_harmless_page),
    Case("a step in a terminal: its texts", _nothing, lambda _: render_ansi(_view(HOSTILE)),
         gives=_harmless_ansi),
    Case("a step in a terminal: titles of a data set", _nothing, _rendered("ansi"),
         gives=_harmless_ansi),
    Case("a card in Markdown: a table of records", _nothing,
         lambda _: str(markdown_table(View("", ["a", "b"], [[Cell(HOSTILE), Cell("1")]]))),
         gives=_harmless_card),
    Case("a card in Markdown: a table of plain rows", _nothing,
         lambda _: str(markdown_table([{"a": HOSTILE, "b": 1}])), gives=_harmless_card),
    Case("settings nested deeply", _settings("a: " + DEEP), _read_settings, "nested deeper"),
    Case("settings that are part of themselves", _settings("a: &a [*a]"), _read_settings,
         "part of itself"),
    Case("settings with an object of Python",
         _settings("a: !!python/object/apply:os.mkdir [marker]"), _read_settings, "cannot read"),
    Case("settings with a list as a name", _settings("[1, 2]: x"), _read_settings, "unhashable"),
    Case("settings with a number as a name", _settings("1: x"), _read_settings, "texts as names"),
    Case("settings with a wrong date", _settings("a: 2024-13-45"), _read_settings, "month"),
    Case("settings with a wrong tag", _settings("a: !!bool x"), _read_settings, "its tag says"),
    Case("--set nested deeply", _nothing, lambda _: parse_settings([f"a={DEEP}"]), "is not YAML"),
    Case("--set with an object of Python", _nothing,
         lambda place: parse_settings([f"a=!!python/object/apply:os.mkdir [{place.marker}]"]),
         "is not YAML"),
    Case("run.json: a list", _run("[1]"), lambda place: read_run(place.folder),
         "does not hold the settings|must hold a mapping"),
    Case("run.json: nested deeply", _run(DEEP), lambda place: read_run(place.folder),
         "nested deeper"),
    Case("run.json: other types", _run('{"agents": 5, "users": [1]}'),
         lambda place: read_run(place.folder), "does not hold the settings"),
]  # fmt: skip
