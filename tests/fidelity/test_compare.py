"""Several cards side by side, and paired differences on the scenes that both answered."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from usermirror_gym.errors import ConfigError, RunError
from usermirror_gym.fidelity.compare import (
    SCORES,
    Entry,
    card_table,
    compare,
    comparison_tables,
    read_entries,
    write_comparison,
    write_scores,
)
from usermirror_gym.fidelity.pages import write_card
from usermirror_gym.measures.bootstrap import UserBootstrap

spec = importlib.util.spec_from_file_location(
    "fidelity_example_compare", Path(__file__).with_name("fidelity_example.py")
)
assert spec is not None
assert spec.loader is not None
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)
RNG = np.random.default_rng(0)
BASE = np.column_stack([RNG.random(120) < 0.5, RNG.random(120)])
USERS = np.arange(120) // 6


def scenes(start: int, stop: int) -> list[str]:
    return [f"scene {i}" for i in range(start, stop)]


def make(name: str, *, shift: float = 0.0, first: int = 0) -> tuple[dict[str, Any], tuple]:
    """A card whose simulator has this name, and its scores, each worse by ``shift`` nats."""
    card = example.example_card(((name, "simulator", 0.4, 1.3 + shift), *example.CHOOSERS[1:4]))
    users = USERS[first:].tolist()
    return card, (scenes(first, 120), users, BASE[first:] + np.array([0, shift]))


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    out = []
    for name, shift, first in (("good", 0.0, 0), ("bad", 0.25, 0), ("third", 0.25, 40)):
        card, scores = make(name, shift=shift, first=first)
        write_scores(tmp_path / name / SCORES, *scores)
        # The pages are not needed here.
        (tmp_path / name / "card.json").write_text(json.dumps(card))
        out.append(tmp_path / name)
    return out


def test_pairs_are_compared_on_the_scenes_they_share(folders: list[Path]) -> None:
    comparison = compare(read_entries(folders))
    assert [row["name"] for row in comparison["cards"]] == ["good", "bad", "third"]
    pairs = {(p["chooser"], p["against"]): p for p in comparison["paired"]}
    assert {key: pair["scenes"] for key, pair in pairs.items()} == {
        ("good", "bad"): 120, ("good", "third"): 80, ("bad", "third"): 80,
    }  # fmt: skip
    assert pairs["good", "bad"]["log_loss"]["mean"] == pytest.approx(-0.25)
    assert pairs["bad", "third"]["log_loss"]["mean"] == pytest.approx(0)
    # The same loss everywhere has no spread between users, hence no interval.
    assert pairs["good", "bad"]["log_loss"]["low"] is None
    json.dumps(comparison, allow_nan=False)


def test_intervals_are_those_of_the_user_bootstrap(tmp_path: Path) -> None:
    other = BASE + RNG.normal(0, 0.3, BASE.shape)
    for name, values in (("a", BASE), ("b", other)):
        write_scores(tmp_path / name / SCORES, scenes(0, 120), USERS.tolist(), values)
        (tmp_path / name / "card.json").write_text(json.dumps(make(name)[0]))
    (pair,) = compare(read_entries([tmp_path / "a", tmp_path / "b"]), seed=3)["paired"]
    # The order in which scenes were written does not matter to the means.
    expected = UserBootstrap(USERS, seed=3).intervals(BASE - other)
    for metric, interval in zip(("accuracy", "log_loss"), expected, strict=True):
        assert pair[metric] == pytest.approx(interval._asdict())


def test_scores_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    values = BASE.copy()
    values[7] = np.nan
    write_scores(tmp_path / SCORES, scenes(0, 120), USERS.tolist(), values)
    (tmp_path / "card.json").write_text(json.dumps(make("a")[0]))
    (entry,) = read_entries([tmp_path])
    assert entry.scores is not None
    assert len(entry.scores) == 119
    assert "scene 7" not in set(entry.scores["scene"])


def test_cards_without_a_common_scene_are_said_to_have_none(
    folders: list[Path], tmp_path: Path
) -> None:
    (folders[1] / SCORES).unlink()
    comparison = compare(read_entries(folders))
    assert comparison["apart"] == [["good", "bad"], ["bad", "third"]]
    _, markdown, _ = write_comparison(comparison, tmp_path / "out")
    assert "No scene in common" in markdown.read_text()


def test_one_table_and_one_page(folders: list[Path], tmp_path: Path) -> None:
    comparison = compare(read_entries(folders))
    html, markdown, data = write_comparison(comparison, tmp_path / "out")
    assert json.loads(data.read_text()) == comparison
    for path in (html, markdown):
        text = path.read_text("utf-8").rpartition("<main>")[2]
        assert text.index("good") < text.index("third")
        assert "Paired differences" in text
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for table in comparison_tables(comparison):
        console.print(table)
    shown = console.export_text()
    assert "good against bad" in shown
    assert "[38.0, 42.0]" in shown
    assert max(map(len, shown.splitlines())) <= 120


def test_whose_histories_were_swapped_at_any_length_is_said(folders: list[Path]) -> None:
    card = json.loads((folders[0] / "card.json").read_text())
    card["scenes"]["swapped_as_long"] = 1.0
    (folders[0] / "card.json").write_text(json.dumps(card))
    table = card_table(compare(read_entries(folders)))
    assert table is not None
    assert table.note.endswith("in cards of earlier versions: bad, third.")
    alone = card_table({"cards": compare(read_entries(folders))["cards"][:1]})
    assert alone is not None
    assert "earlier versions" not in alone.note


def test_equal_names_are_told_apart_by_their_folders(folders: list[Path]) -> None:
    card = json.loads((folders[1] / "card.json").read_text())
    card["simulator"]["name"] = "good"
    (folders[1] / "card.json").write_text(json.dumps(card))
    assert [e.name for e in read_entries(folders)] == ["good (good)", "good (bad)", "third"]


def test_mistakes_are_errors(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least two cards, got 1"):
        compare(read_entries(folders[:1]))
    card, _ = make("same")
    with pytest.raises(ConfigError, match="named twice: same"):
        compare([Entry("same", card), Entry("same", card)])
    with pytest.raises(RunError, match="there is no"):
        read_entries([tmp_path / "nowhere"])
    (folders[0] / SCORES).write_bytes(b"PAR1 no")
    with pytest.raises(RunError, match="cannot read"):
        read_entries(folders)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>|[x](javascript:1)"
    entries = [Entry(n, make(n)[0]) for n in (name, "b")]
    html, markdown, _ = write_comparison(compare(entries), tmp_path)
    assert "<script" not in html.read_text()
    assert "<script" not in markdown.read_text()
    assert "[x](" not in markdown.read_text()


def test_a_written_card_can_be_compared(tmp_path: Path) -> None:
    card, _ = make("a")
    write_card(card, tmp_path / "a")
    assert read_entries([tmp_path / "a" / "card.json"])[0].name == "a"
