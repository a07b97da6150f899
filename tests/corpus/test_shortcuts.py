"""A planted shortcut of each kind is found; lists without one look like chance."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from rich.console import Console

from usermirror_gym.corpus.checks import shortcuts
from usermirror_gym.corpus.checks.shortcuts import (
    MIXED,
    REAL,
    SAMPLED,
    ShortcutReport,
    ShortcutRow,
    shortcut_audit,
    shortcut_table,
)
from usermirror_gym.data import RecDataset
from usermirror_gym.errors import RunError
from usermirror_gym.measures.choice_models import hits
from usermirror_gym.scenes.table import SCHEMA

N_ITEMS, N_USERS, LATE = 200, 60, 2_000_000
Row = dict[str, Any]
Plant = Callable[[Row, np.random.Generator], None]


@pytest.fixture(scope="module")
def dataset() -> RecDataset:
    rng = np.random.default_rng(0)
    years = pd.array(rng.integers(1930, 2000, N_ITEMS), dtype="Int64")
    years[5] = pd.NA
    return RecDataset.from_tables(
        "toy", "movie",
        users=pd.DataFrame({"user_id": range(1, N_USERS + 1)}),
        items=pd.DataFrame({"item_id": range(1, N_ITEMS + 1), "title": "x", "year": years}),
        interactions=pd.DataFrame(
            {
                "user_id": np.repeat(range(1, N_USERS + 1), 20),
                # A user stays on one side of the catalog: what others took together tells a lot.
                "item_id": np.concatenate(
                    [1 + 100 * (u % 2) + rng.permutation(100)[:20] for u in range(1, N_USERS + 1)]
                ),
                "timestamp": rng.integers(0, LATE, 20 * N_USERS),
            }
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def popularity() -> np.ndarray:
    return np.r_[0, np.random.default_rng(1).permutation(N_ITEMS) + 1]


@pytest.fixture(scope="module")
def embedding() -> np.ndarray:
    vectors = np.random.default_rng(2).standard_normal((N_ITEMS + 1, 32))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def lists(n: int, seed: int, plant: Plant, *, k: int = 5, time: int = LATE) -> pa.Table:
    """``n`` lists of random items; ``plant`` changes a row, whose target is drawn before."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(n):
        user = int(rng.integers(1, N_USERS + 1))
        row: Row = {
            "user_id": user, "timestamp": time + number, "kind": "choice",
            "history": [int(i) for i in 1 + 100 * (user % 2) + rng.permutation(100)[:6]],
            "slate": [int(i) for i in rng.permutation(N_ITEMS)[:k] + 1],
            "target": int(rng.integers(k)), "samplers": (["uniform", "popularity"] * k)[:k],
            "notes": [""] * k, "options": ["text"] * k,
        }  # fmt: skip
        plant(row, rng)
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def nothing(row: Row, rng: np.random.Generator) -> None:
    pass


def never_last(row: Row, rng: np.random.Generator) -> None:
    row["target"] = int(rng.integers(len(row["slate"]) - 1))


def always_third(row: Row, rng: np.random.Generator) -> None:
    if rng.random() < 0.5:
        row["target"] = 2


def longest_text(row: Row, rng: np.random.Generator) -> None:
    if rng.random() < 0.5:
        row["options"][row["target"]] = "a longer text"


def odd_audience(row: Row, rng: np.random.Generator) -> None:
    """The choice is the only item of the list that the others' users do not take."""
    if rng.random() < 0.75:
        side = int(rng.integers(2))
        row["slate"] = [int(i) for i in 1 + 100 * side + rng.permutation(100)[:5]]
        row["slate"][row["target"]] = int(101 - 100 * side + rng.integers(100))


def noted(row: Row, rng: np.random.Generator) -> None:
    if rng.random() < 0.5:
        row["notes"][row["target"]] = "2 friends listened"


def pointed(value: np.ndarray, best: Callable[[np.ndarray], int]) -> Plant:
    """In half of the lists the choice is the one that ``best`` finds among the values."""

    def plant(row: Row, rng: np.random.Generator) -> None:
        if rng.random() < 0.5:
            row["target"] = int(best(value[row["slate"]]))

    return plant


def audit(
    dataset: RecDataset, popularity: np.ndarray, plant: Plant, embedding: np.ndarray | None = None
) -> ShortcutReport:
    train = lists(600, 1, plant, time=1000)
    return shortcut_audit(train, lists(500, 2, plant), dataset, popularity, embedding)


@pytest.fixture
def no_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of other choosers: trees take most of the time of an audit."""

    def fit(*args: Any) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        return lambda features, mask: np.zeros(mask.shape)

    monkeypatch.setattr(shortcuts, "fit_trees", fit)


@pytest.fixture
def two_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer fits of trees."""
    monkeypatch.setattr(shortcuts, "_FOLDS", 2)


def row_of(report: ShortcutReport, name: str, kind: str = SAMPLED) -> ShortcutRow:
    return next(row for row in report.rows if (row.name, row.lists) == (name, kind))


@pytest.mark.usefixtures("two_folds")
def test_lists_without_a_shortcut_look_like_chance(
    dataset: RecDataset, popularity: np.ndarray, embedding: np.ndarray
) -> None:
    report = audit(dataset, popularity, nothing, embedding)
    assert {row.chance for row in report.rows} == {0.2}
    for row in report.rows:
        assert row.low <= 0.2 <= row.high, row
        assert not row.marked


def middle(values: np.ndarray) -> int:
    return int(np.argsort(values)[len(values) // 2])


@pytest.mark.usefixtures("two_folds")
@pytest.mark.parametrize(
    ("plant", "names"),
    [
        (always_third, ["position, best place", "position, learned"]),
        ("most popular", ["popularity, highest", "popularity, learned"]),
        ("least popular", ["popularity, lowest", "popularity, learned"]),
        ("middle popular", ["popularity, learned"]),
        ("newest", []),
        ("alike", []),
        (odd_audience, []),
        (longest_text, []),
        (noted, []),
    ],
)
def test_a_planted_shortcut_is_found(
    plant: Plant | str,
    names: list[str],
    dataset: RecDataset,
    popularity: np.ndarray,
    embedding: np.ndarray,
) -> None:
    year = np.r_[0, dataset.items["year"].fillna(0).to_numpy(np.int64)]
    planted = {
        "most popular": pointed(popularity, np.argmax),
        "least popular": pointed(popularity, np.argmin),
        "middle popular": pointed(popularity, middle),
        "newest": pointed(year, np.argmax),
        "alike": alike(embedding),
    }
    report = audit(
        dataset, popularity, planted[plant] if isinstance(plant, str) else plant, embedding
    )
    # Half of the lists give 0.5 + 0.5 * 0.2, three quarters 0.8.
    for name in [*names, "list, logit", "list, trees", "list, trees, other users"]:
        row = row_of(report, name)
        assert row.marked, row
        assert 0.35 < row.low <= row.accuracy <= row.high < 0.85, row
    for other in {"position, learned", "popularity, learned"} - set(names):
        assert not row_of(report, other).marked


def alike(embedding: np.ndarray) -> Plant:
    """The reference generator's fault: one item of the list is a neighbour of the choice."""

    def plant(row: Row, rng: np.random.Generator) -> None:
        if rng.random() < 0.75:
            target = row["slate"][row["target"]]
            near = np.argsort(-embedding @ embedding[target])
            neighbour = next(int(i) for i in near if i and i not in row["slate"])
            row["slate"][row["target"] - 1] = neighbour

    return plant


@pytest.mark.usefixtures("no_trees")
def test_a_choice_that_is_never_last_is_found(dataset: RecDataset, popularity: np.ndarray) -> None:
    report = shortcut_audit(
        lists(800, 1, never_last, time=1000), lists(1200, 2, never_last), dataset, popularity, None
    )
    row = row_of(report, "position, learned")
    assert row.low > row.chance


@pytest.mark.usefixtures("no_trees")
def test_what_the_history_tells_is_not_called_a_shortcut(
    dataset: RecDataset, popularity: np.ndarray
) -> None:
    def same_side(row: Row, rng: np.random.Generator) -> None:
        side = row["user_id"] % 2
        others = [int(i) for i in 1 + 100 * (1 - side) + rng.permutation(100)[:4]]
        row["slate"] = others
        row["slate"].insert(row["target"], int(1 + 100 * side + rng.integers(100)))

    report = audit(dataset, popularity, same_side)
    reference = row_of(report, "history, items of other users")
    assert reference.low > 0.6
    assert reference.reads_history
    assert not reference.marked
    assert not row_of(report, "popularity, highest").marked
    assert row_of(report, "history and list, logit").accuracy > 0.6


@pytest.mark.usefixtures("no_trees")
def test_own_later_choices_do_not_help_the_reference(popularity: np.ndarray) -> None:
    """Users who share nothing with anybody: their own rows alone could tell the train choices."""
    items = np.arange(1, N_ITEMS + 1)
    alone = RecDataset.from_tables(
        "alone", "movie",
        users=pd.DataFrame({"user_id": range(1, 21)}),
        items=pd.DataFrame({"item_id": items, "title": "x"}),
        interactions=pd.DataFrame(
            {"user_id": np.repeat(range(1, 21), 10), "item_id": items, "timestamp": items}
        ),
    )  # fmt: skip

    def own(row: Row, rng: np.random.Generator) -> None:
        row["user_id"] = int(rng.integers(1, 21))
        mine = [int(i) for i in 10 * (row["user_id"] - 1) + 1 + rng.permutation(10)]
        row["history"] = mine[:5]
        row["slate"][row["target"]] = mine[5]

    report = audit(alone, popularity, own)
    row = row_of(report, "history, items of other users")
    assert row.accuracy == pytest.approx(0.2)


def test_ties_are_shared() -> None:
    scores = np.array([[1.0, 1.0, 0.0], [2.0, 1.0, 3.0], [0.0, 0.0, 9.0], [0.0, 0.0, 0.0]])
    mask = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 1]], bool)
    assert hits(scores, mask, np.array([1, 0, 0, 2])).tolist() == [
        0.5,
        0,
        0.5,
        pytest.approx(1 / 3),
    ]


@pytest.mark.usefixtures("no_trees")
def test_equal_popularity_gives_exactly_chance_whatever_the_order(dataset: RecDataset) -> None:
    def first(row: Row, rng: np.random.Generator) -> None:
        row["target"] = 0

    report = audit(dataset, np.ones(N_ITEMS + 1, np.int64), first)
    assert row_of(report, "popularity, highest").accuracy == pytest.approx(0.2)
    assert row_of(report, "popularity, lowest").accuracy == pytest.approx(0.2)
    assert row_of(report, "position, best place").accuracy == 1


@pytest.mark.usefixtures("two_folds")
def test_lists_of_several_lengths_have_their_own_chance(
    dataset: RecDataset, popularity: np.ndarray
) -> None:
    train = lists(300, 1, nothing, k=12, time=1000)
    evaluation = pa.concat_tables([lists(200, 2, nothing, k=2), lists(200, 3, nothing, k=5)])
    report = shortcut_audit(train, evaluation, dataset, popularity, None)
    assert row_of(report, "list, logit").chance == pytest.approx((1 / 2 + 1 / 5) / 2)
    for row in report.rows:
        if row.lists == SAMPLED:
            assert row.low <= row.chance <= row.high, row


@pytest.mark.usefixtures("no_trees")
def test_removed_scenes_are_counted_and_left_out(
    dataset: RecDataset, popularity: np.ndarray
) -> None:
    def sometimes_removed(row: Row, rng: np.random.Generator) -> None:
        if row["timestamp"] % 4 == 0:
            row["kind"], row["target"] = "removed", len(row["slate"])

    report = audit(dataset, popularity, sometimes_removed)
    assert report.left_out == 125
    assert report.n_train == 450
    assert row_of(report, "list, logit").n == 375


@pytest.mark.usefixtures("no_trees")
def test_kinds_of_lists_have_their_own_rows(dataset: RecDataset, popularity: np.ndarray) -> None:
    def kinds(row: Row, rng: np.random.Generator) -> None:
        draw = rng.random()
        if draw < 0.3:
            row["samplers"] = ["uniform"] * 5
        elif draw < 0.32:
            row["samplers"] = ["popularity"] * 5
        elif draw < 0.6:
            row["kind"], row["samplers"] = "impression", ["log"] * 5

    report = audit(dataset, popularity, kinds)
    n = {row.lists: row.n for row in report.rows}
    assert set(n) == {SAMPLED, MIXED, REAL, "uniform", "popularity + uniform"}
    assert n[SAMPLED] + n[REAL] == 500
    assert n[MIXED] == n["popularity + uniform"]


@pytest.mark.usefixtures("two_folds")
def test_same_seed_same_rows(dataset: RecDataset, popularity: np.ndarray) -> None:
    first, second = (audit(dataset, popularity, nothing).rows for _ in range(2))
    assert first == second


def test_without_a_right_item_nothing_is_claimed(
    dataset: RecDataset, popularity: np.ndarray
) -> None:
    def removed(row: Row, rng: np.random.Generator) -> None:
        row["kind"], row["target"] = "removed", len(row["slate"])

    some = lists(10, 0, nothing)
    none = lists(10, 0, removed)
    for train, evaluation in ((some, none), (none, some)):
        with pytest.raises(RunError, match="cannot be measured"):
            shortcut_audit(train, evaluation, dataset, popularity, None)


@pytest.mark.usefixtures("no_trees")
def test_table_says_what_was_left_out_and_marks_shortcuts(
    dataset: RecDataset, popularity: np.ndarray
) -> None:
    report = audit(dataset, popularity, pointed(popularity, np.argmax))
    console = Console(file=StringIO(), width=100)
    console.print(shortcut_table(report))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    line = next(line for line in text.splitlines() if "popularity, highest" in line)
    assert line.count("!") == 2
    assert "0 evaluation scenes" in text
    assert "popularity + uniform" in text
