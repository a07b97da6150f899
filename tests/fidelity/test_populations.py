"""Whose choices are scored apart, and what their own history is worth there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.fidelity.fidelity_example import block, example_card
from tests.fidelity.test_slices import UNIFORM, row, table
from usermirror_gym.data import TimeSplit
from usermirror_gym.fidelity.card import fidelity_card
from usermirror_gym.fidelity.checks import criteria, sentences
from usermirror_gym.fidelity.checks.base import CardSizes
from usermirror_gym.fidelity.checks.populations import Populations, populations
from usermirror_gym.fidelity.pages import figures, render_markdown
from usermirror_gym.fidelity.scenes import CardScenes, find_scenes
from usermirror_gym.progress import Display
from usermirror_gym.scenes import Scene
from usermirror_gym.simulators import ChoiceBatch, UniformChooser

LIST = ([1, 2], 0, ["log", UNIFORM])


@pytest.fixture
def scenes() -> pa.Table:
    """User u has u interactions before T0; item i was taken 7 - i times, items 7 and 8 never."""
    return table(
        row(*LIST, user_id=6, history=[3, 4], ages=[90_000, 5]),
        row(*LIST, user_id=5, history=[3, 4], ages=[9_000, 60]),
        row(*LIST, user_id=5, history=[4], ages=[3_600]),
        row([8, 2], 0, ["log", UNIFORM], user_id=6, history=[4], ages=[86_400]),
        row(*LIST, user_id=4, history=[4], ages=[86_400]),  # too few for a session
        row(*LIST, user_id=6, history=[4], ages=[-1]),  # nobody knows how long ago
        row(*LIST, user_id=6),  # no history at all
        row([1, 2], 2, [UNIFORM, UNIFORM], user_id=6, history=[4], ages=[5]),  # without its item
    )


def test_who_is_where(scenes: pa.Table, split: TimeSplit) -> None:
    found = {name: np.flatnonzero(m).tolist() for name, m in populations(scenes, split).items()}
    assert found == {
        "all users": [0, 1, 2, 3, 4, 5, 6],
        "environment users": [0, 1, 2, 3, 5, 6],
        "environment users, near": [0],
        "environment users, far": [2, 3],
        "environment users, a day and more": [3],
        "items with 1 to 20": [0, 1, 2, 4, 5, 6],
        "items with none": [3],
    }
    assert list(populations(scenes, None)) == ["all users"]


class Clever:
    """Knows what is taken where the newest line is one that it has for its own."""

    name = "clever"

    def choose(self, scenes: list[Scene]) -> ChoiceBatch:
        probs = np.zeros((len(scenes), 6))
        for line, scene in zip(probs, scenes, strict=True):
            line[: len(scene.slate)] = 0.9 / len(scene.slate)
            if scene.history and scene.history[-1] % 7 == scene.user_id % 7:
                line[: len(scene.slate)] = 0.1 / len(scene.slate)
                line[scene.target] += 0.8
            line[-1] = 0.1
        return ChoiceBatch(probs / probs.sum(axis=1, keepdims=True))


@pytest.fixture(scope="module")
def data() -> CardScenes:
    return find_scenes("ml-100k", count=400, seed=0, display=Display(quiet=True))


SMALL = CardSizes(order=2, permutations=1, repeats=1, ladder=2, text_attacks=0, n_resamples=100)


def test_a_card_tells_near_from_far_for_everybody(data: CardScenes) -> None:
    card = fidelity_card(Clever(), data, baselines={"Pop": UniformChooser()}, sizes=SMALL)
    rows = {c["name"]: {r["name"]: r for r in c["populations"]} for c in card["choosers"]}
    mine, other = rows["clever"], rows["Pop"]
    assert list(mine) == list(other)
    everybody, forced = mine["all users"], card["choosers"][0]["overall"]["forced"]
    assert everybody["accuracy"]["mean"] == pytest.approx(forced["accuracy"]["mean"])
    # The history check asks the same question of all lists.
    for metric, gap in card["history"].items():
        assert everybody["own_history"][metric]["mean"] == pytest.approx(gap["mean"])
    assert everybody["own_history"]["log_loss"]["mean"] < 0.02
    near, far = mine["environment users, near"], mine["environment users, far"]
    # Paired, where both answered the same lists.
    for which in mine.keys() & other.keys():
        gap = other[which]["difference"]["log_loss"]["mean"]
        losses = (rows[which]["log_loss"]["mean"] for rows in (mine, other))
        assert gap == pytest.approx(next(losses) - next(losses))
    assert near["difference"] is None
    assert near["n"] + far["n"] <= mine["environment users"]["n"] < everybody["n"]
    assert other["all users"]["own_history"]["accuracy"]["mean"] == 0  # it reads no history
    controls = [c for c in card["choosers"] if c["kind"] == "control"]
    assert all(r["own_history"] is None for c in controls for r in c["populations"])
    first, *_ = sentences(card)
    assert first.startswith(f"On users that the environment plays: near ({near['n']:,} lists")
    said = " ".join(sentences(card))
    assert f"near ({near['n']:,} lists" in said
    page = render_markdown(card | {"bars": criteria(card), "verdict": [said]})
    titles = [line for line in page.splitlines() if line.startswith("## ")]
    assert titles.index("## Environment users, near and far") == titles.index("## In words") + 1
    assert "| items with none" in page


def scored(name: str, n: int, gain: bool = True) -> dict[str, Any]:
    return {
        "name": name, "n": n, "users": n, "few": n < 30, "accuracy": block(0.402),
        "log_loss": block(1.41),
        "own_history": {"accuracy": block(0.031), "log_loss": block(-0.07)} if gain else None,
    }  # fmt: skip


def test_the_card_says_first_how_it_does_near_and_far() -> None:
    card = example_card()
    rows = [scored("environment users", 99), scored("environment users, near", 60)]
    card["choosers"][0]["populations"] = [*rows, scored("environment users, far", 1_040, False)]
    near = ("environment users, near (60 lists)", "40.2 %, 1.410 nats")
    worth = ("own minus swapped, near", "+3.1 points, -0.070 nats")
    expected = [near, ("environment users, far (1,040 lists)", "40.2 %, 1.410 nats"), worth]
    assert figures(card)[:4] == [*expected, ("real choices", "2,000")]
    assert ("own minus swapped history, all", "+13.1 points, -0.201 nats") in figures(card)
    lines = [line for line in render_markdown(card).splitlines() if line.startswith("- **")]
    assert lines[0] == "- **40.2 %, 1.410 nats** environment users, near (60 lists)"
    (near_and_far, _) = Populations().tables(card)
    assert near_and_far is not None
    assert near_and_far.columns[2:] == [
        f"{which}: {what}"
        for which in ("near", "far")
        for what in ("accuracy %", "log-loss", "difference", "own history, points",
                     "own history, nats")
    ]  # fmt: skip
    cells = [cell.text for cell in near_and_far.rows[0]]
    assert cells[4:7] == ["–", "+3.1 [+1.1, +5.1]", "-0.070 [-0.090, -0.050]"]
    assert cells[10:] == ["–"] * 2  # not asked with another's
    # Nobody was asked about a later sitting: the card does not hide it.
    card["choosers"][0]["populations"] = rows
    assert figures(card)[:3] == [near, ("environment users, far", "no lists"), worth]
    assert "nats; far no lists. Near, the last line" in sentences(card)[0]
    (near_alone, _) = Populations().tables(card)
    assert near_alone is not None
    assert [cell.text for cell in near_alone.rows[0]][7:] == ["–"] * 5
    assert near_alone.note.endswith("another user's of any length.")
    card["scenes"]["swapped_as_long"] = 1.0
    assert "another user's of the same length" in render_markdown(card)
    del card["choosers"][0]["populations"]
    assert figures(card)[0] == ("real choices", "2,000")


def test_a_card_of_an_earlier_version_has_no_such_part(data: CardScenes) -> None:
    card = fidelity_card(Clever(), data, sizes=SMALL)
    for chooser in card["choosers"]:
        del chooser["populations"]
    check = Populations()
    assert check.sentences(card) == []
    assert check.tables(card) == [None, None]
