"""Scenes that their data cannot be the source of are refused, with the first of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import RunError
from usermirror_gym.fidelity import scenes as fidelity_scenes
from usermirror_gym.fidelity.scenes import find_scenes
from usermirror_gym.progress import Display
from usermirror_gym.scenes import Rankers, ScenePlan, domain_text, draw_scenes
from usermirror_gym.scenes.table import SCHEMA
from usermirror_gym.scenes.words.render import scene_table
from usermirror_gym.testing.data import tiny_split

Rows = list[dict[str, Any]]


class Build:
    """A finished build whose scenes can be tampered with."""

    name = "tiny"

    def __init__(self) -> None:
        self.split: TimeSplit = tiny_split(n_users=40, n_items=40)
        t0, rankers = self.split.t0, Rankers(self.split)
        text = domain_text(self.split.dataset)
        self.tables = {
            name: scene_table(
                draw_scenes(rankers, ScenePlan(count=20), window), rankers, text, name
            )
            for name, window in (("train", (None, t0)), ("eval", (t0, None)))
        } | {"validation": SCHEMA.empty_table()}

    def scenes(self, name: str) -> pa.Table:
        return self.tables[name]

    def change(self, name: str, edit: Callable[[Rows], Any]) -> None:
        rows = self.tables[name].to_pylist()
        edit(rows)
        self.tables[name] = pa.Table.from_pylist(rows, SCHEMA)


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Build:
    made = Build()
    monkeypatch.setattr(fidelity_scenes, "_source_of_build", lambda folder, wanted: made)
    return made


def found(tmp_path: Path) -> fidelity_scenes.CardScenes:
    return find_scenes(str(tmp_path), count=10, display=Display(quiet=True))


def test_what_was_built_is_taken_as_it_is(build: Build, tmp_path: Path) -> None:
    scenes = found(tmp_path)
    assert scenes.evaluation.equals(build.tables["eval"].slice(0, 10))
    assert scenes.train.equals(build.tables["train"])


def put(column: str, value: Any, place: int | None = None) -> Callable[[Rows], None]:
    """Change the third scene."""

    def edit(rows: Rows) -> None:
        if place is None:
            rows[2][column] = value
        else:
            rows[2][column][place] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (put("slate", 99, 0), "an item that is not one of 40"),
        (put("slate", 0, 4), "an item that is not one of 40"),
        (put("history", -3, 0), "an item that is not one of 40"),
        (put("item_id", 41), "an item that is not one of 40"),
        (put("user_id", 41), "a user who is not one of 40"),
        (put("user_id", 0), "a user who is not one of 40"),
        (put("timestamp", 5), "not at or after T0"),
        (lambda rows: put("slate", rows[2]["slate"][1], 3)(rows), "an item twice in the list"),
    ],
)
def test_tampered_scenes_are_refused(
    build: Build, tmp_path: Path, edit: Callable[[Rows], Any], message: str
) -> None:
    first = build.tables["eval"]["scene_id"][2].as_py()
    build.change("eval", edit)
    with pytest.raises(RunError, match=rf"1 scenes are .*{message}.* the first is {first}; build"):
        found(tmp_path)


def test_train_scenes_after_t0_are_refused(build: Build, tmp_path: Path) -> None:
    build.change("train", put("timestamp", build.split.t0))
    with pytest.raises(RunError, match="1 scenes are not before T0"):
        found(tmp_path)


def test_a_choice_that_nobody_knows_the_item_of_is_none(build: Build, tmp_path: Path) -> None:
    """Real lists from which nothing was taken have item 0."""
    build.change("eval", lambda rows: rows[2].update(item_id=0, target=5))
    assert len(found(tmp_path).evaluation) == 11
