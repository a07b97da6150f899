"""Answers come in order, are kept, and are never asked for twice nor taken from someone else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from usermirror_gym.errors import DataError, RunError
from usermirror_gym.fidelity.answers import answer, scene_digest, scenes_digest
from usermirror_gym.scenes import Scene, Turn
from usermirror_gym.simulators import ChoiceBatch


class Counting:
    """Likes large item ids; counts what it is asked."""

    name = "counting (v1)"

    def __init__(self, taste: float = 1.0) -> None:
        self.taste, self.asked = taste, 0
        self.batches: list[int] = []

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        self.asked += len(scenes)
        self.batches.append(len(scenes))
        probs = np.zeros((len(scenes), max(len(s.slate) for s in scenes) + 1))
        for row, scene in zip(probs, scenes, strict=True):
            row[: len(scene.slate)] = np.array(scene.slate) ** self.taste
            row[-1] = 3.0
        return ChoiceBatch(probs / probs.sum(axis=1, keepdims=True))


def scenes(n: int, first: int = 0) -> list[Scene]:
    """Lists of 2 to 4 items, users in no order."""
    return [
        Scene(1 + i * 7 % 5, (i,), (float("nan"),), (10,), tuple(range(1 + i, 3 + i + i % 3)),
              target=0, name=f"scene {i}")
        for i in range(first, first + n)
    ]  # fmt: skip


def test_rows_are_in_order_whatever_the_chunk() -> None:
    asked = scenes(23)
    expected = answer(Counting(), asked, chunk=100).probs
    assert expected.shape == (23, 5)
    two = asked[0].slate
    assert expected[0] == pytest.approx(np.array([*two, 0, 0, 3]) / (sum(two) + 3))
    for chunk in (1, 4, 23):
        np.testing.assert_allclose(answer(Counting(), asked, chunk=chunk).probs, expected)
    np.testing.assert_allclose(answer(Counting(), asked[::-1]).probs[::-1], expected)
    assert answer(Counting(), []).probs.shape == (0, 1)


def test_progress_tells_of_every_scene_once(tmp_path: Path) -> None:
    for _ in range(2):
        told: list[int] = []
        answer(Counting(), scenes(20), store=tmp_path, progress=told.append, chunk=6)
        assert sum(told) == 20


def test_a_store_asks_only_for_what_is_new(tmp_path: Path) -> None:
    first = Counting()
    before, seconds = answer(first, scenes(10), store=tmp_path)
    assert first.asked == 10
    again = Counting()
    after, then = answer(again, scenes(10)[::-1], store=tmp_path)
    np.testing.assert_array_equal(after[::-1], before)
    assert again.asked == 1  # one, to see that it still answers so
    assert then == pytest.approx(seconds)
    more = Counting()
    answer(more, scenes(14, first=2), store=tmp_path)
    assert more.asked == 1 + 6


def test_simulators_and_settings_are_kept_apart(tmp_path: Path) -> None:
    asked, other = scenes(4), Counting(taste=2.0)
    one = answer(Counting(), asked, store=tmp_path, settings={"temperature": 1}).probs
    two = answer(other, asked, store=tmp_path, settings={"temperature": 2}).probs
    assert other.asked == 4
    assert np.abs(one - two).max() > 0.02
    folders = sorted(path.name for path in tmp_path.iterdir())
    assert len(folders) == 2
    assert all(name.startswith("counting-v1-") for name in folders)


def test_answers_of_what_it_was_before_are_refused(tmp_path: Path) -> None:
    answer(Counting(), scenes(4), store=tmp_path)
    with pytest.raises(RunError, match=r"counting \(v1\)' gives now: for scene .*delete the fol"):
        answer(Counting(taste=2.0), scenes(4), store=tmp_path)


def test_a_damaged_store_is_named(tmp_path: Path) -> None:
    answer(Counting(), scenes(4), store=tmp_path)
    (file,) = tmp_path.rglob("*.npz")
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(RunError, match=rf"cannot read .*{file.name}.*Delete it"):
        answer(Counting(), scenes(4), store=tmp_path)


@pytest.mark.parametrize(
    "row", [[0.5, 0.5, 0.5], [1.2, -0.2, 0.0], [float("nan"), 0.5, 0.5], [0.1, 0.1, 0.1]]
)
def test_what_is_no_distribution_is_refused_with_the_scene(row: list[float]) -> None:
    class Wrong:
        name = "wrong"

        def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
            return ChoiceBatch(np.array([row] * len(scenes)))

    with pytest.raises(DataError, match=r"scene 0: simulator 'wrong' answered \["):
        answer(Wrong(), scenes(1))


def test_a_wrong_shape_is_refused() -> None:
    class Short:
        name = "short"

        def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
            return ChoiceBatch(np.ones((1, 3)) / 3)

    with pytest.raises(DataError, match=r"array of shape \(1, 3\); it must be \(2, 4\)"):
        answer(Short(), scenes(2))


def test_probability_behind_a_short_list_is_refused() -> None:
    class Padded:
        name = "padded"

        def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
            return ChoiceBatch(np.full((len(scenes), 4), 0.25))

    with pytest.raises(DataError, match="scene 0: simulator 'padded'"):
        answer(Padded(), scenes(2))  # the first list has two items, the second three


def test_every_part_of_a_scene_counts() -> None:
    (scene,) = scenes(1)
    others = [
        replace(scene, **change)
        for change in (
            {"user_id": 9}, {"history": (8,)}, {"ratings": (3.0,)}, {"ages": (11,)},
            {"slate": scene.slate[::-1]}, {"behaviours": ("twice",)}, {"notes": ("new", "")},
            {"turns": (Turn((1, 2), 0),)}, {"name": "other"},
        )
    ]  # fmt: skip
    assert len({scene_digest(s) for s in [scene, *others]}) == len(others) + 1
    assert scene_digest(replace(scene, target=1)) == scene_digest(scene)
    assert scenes_digest([replace(scene, target=1)]) != scenes_digest([scene])
    assert scenes_digest([scene, others[0]]) != scenes_digest([others[0], scene])


SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {folder!r})
import test_answers as t

class Slow(t.Counting):
    def choose(self, scenes):
        time.sleep(0.05)
        return super().choose(scenes)

t.answer(Slow(), t.scenes(200), store=Path(sys.argv[1]), chunk=4)
"""


def test_killed_in_the_middle_it_goes_on(tmp_path: Path) -> None:
    script = SCRIPT.format(folder=str(Path(__file__).parent))
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    deadline = time.monotonic() + 120
    while len(list(tmp_path.rglob("*.npz"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = 4 * len(list(tmp_path.rglob("*.npz")))
    assert 12 <= kept < 200
    rest = Counting()
    found = answer(rest, scenes(200), store=tmp_path).probs
    assert rest.asked == 200 - kept + 1
    np.testing.assert_array_equal(found, answer(Counting(), scenes(200)).probs)
