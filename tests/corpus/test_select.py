"""Selection: the best pair of a scene, quotas, every reason, and the baseline selectors."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usermirror_gym.corpus.selection.assessment import (
    NO_HIT,
    NO_MISS,
    NO_STRONG,
    NO_WEAK,
    Assessment,
    assess,
)
from usermirror_gym.corpus.selection.select import (
    BELOW_CUT,
    NO_SCORE,
    SCHEMA,
    SELECTORS,
    allocate,
    select,
)
from usermirror_gym.errors import ConfigError, DataError, UnknownNameError
from usermirror_gym.measures.uncertainty import Predictions

HIT, SURE_HIT = [0.7, 0.3], [1.0, 0.0]
MISS, SURE_MISS = [0.3, 0.7], [0.0, 1.0]


def scenes_table(ids, *, datasets=None, sizes=None, targets=None) -> pa.Table:
    """Only what selection reads."""
    sizes = sizes or [2] * len(ids)
    return pa.table(
        {
            "scene_id": pa.array(ids, pa.string()),
            "dataset": pa.array(datasets or ["films"] * len(ids), pa.string()),
            "slate": pa.array([list(range(1, k + 1)) for k in sizes], pa.list_(pa.int64())),
            "target": pa.array([0] * len(ids) if targets is None else targets, pa.int32()),
        }
    )


def judged(cases: dict[str, tuple[list, list]], **more) -> Assessment:
    """Scene id -> (weak rows, strong rows); the true option is the first, choices the likeliest."""
    ids = list(cases)
    weak = Predictions.of("weak", ids, [w for w, _ in cases.values()])
    strong = Predictions.of("strong", ids, [s for _, s in cases.values()])
    reading = more.pop("reading", "likeliest")
    return assess(scenes_table(ids, **more), weak, strong, reading=reading)


def rows_of(selection) -> dict[str, dict]:
    return {row["scene_id"]: row for row in selection.table.to_pylist()}


def graded(n: int, **more) -> Assessment:
    """n scenes that can all be kept; scene i is harder than scene i - 1."""
    ids = [f"s{i:03}" for i in range(n)]
    weak = [[[0.5 - 0.4 * (n - i) / n / 2, 0.5 + 0.4 * (n - i) / n / 2]] for i in range(n)]
    return judged({s: (w, [SURE_HIT]) for s, w in zip(ids, weak, strict=True)}, **more)


# --- The pair of a scene -----------------------------------------------------------------------


def test_chosen_is_the_surest_strong_hit_and_rejected_the_surest_miss_of_either() -> None:
    row = rows_of(select(judged({"s": ([SURE_HIT, MISS, SURE_MISS], [MISS, HIT, [0.9, 0.1], HIT])}),
                         size=1))["s"]  # fmt: skip
    assert (row["chosen"], row["chosen_option"]) == (2, 0)
    assert row["chosen_entropy"] == pytest.approx(0.469, abs=1e-3)
    assert (row["rejected"], row["rejected_by"], row["rejected_option"]) == (2, "weak", 1)
    assert row["rejected_entropy"] == 0


def test_a_surer_miss_of_the_strong_model_is_rejected_instead() -> None:
    row = rows_of(select(judged({"s": ([MISS], [HIT, SURE_MISS])}), size=1))["s"]
    assert (row["rejected"], row["rejected_by"], row["rejected_option"]) == (1, "strong", 1)


def test_equal_entropies_go_to_the_strong_model_then_to_the_earlier_rationale() -> None:
    row = rows_of(select(judged({"s": ([MISS, MISS], [HIT, HIT, MISS, MISS])}), size=1))["s"]
    assert (row["chosen"], row["rejected"], row["rejected_by"]) == (0, 2, "strong")


def test_rejected_option_is_what_was_chosen_not_the_likeliest() -> None:
    # The likeliest option is the true one, yet what was sampled is not.
    case = {f"s{i}": ([[0.6, 0.4]], [[0.6, 0.4]] * 3) for i in range(40)}
    kept = [r for r in select(judged(case, reading="sampled"), size=40).table.to_pylist()
            if r["kept"]]  # fmt: skip
    assert len(kept) > 20
    assert all(r["chosen_option"] == 0 and r["rejected_option"] == 1 for r in kept)


def test_none_of_these_can_be_the_right_answer() -> None:
    weak = Predictions.of("weak", ["s"], [[[0.8, 0.1, 0.1]]])
    strong = Predictions.of("strong", ["s"], [[[0.1, 0.1, 0.8]]])
    found = assess(scenes_table(["s"], targets=[2]), weak, strong, reading="likeliest")
    row = rows_of(select(found, size=1))["s"]
    assert row["kept"]
    assert (row["chosen_option"], row["rejected_option"], row["list_size"]) == (2, 0, 2)


# --- Reasons -----------------------------------------------------------------------------------


def test_every_scene_that_is_not_kept_has_its_reason() -> None:
    found = judged({
        "no strong": ([MISS], []), "no weak": ([None], [HIT]), "neither": ([], [None]),
        "no hit": ([HIT], [MISS]), "no miss": ([HIT], [SURE_HIT]),
        "easy": ([SURE_MISS], [HIT]), "hard": ([MISS], [SURE_HIT]),
    })  # fmt: skip
    selection = select(found, size=1)
    assert {s: r["reason"] for s, r in rows_of(selection).items()} == {
        "no strong": NO_STRONG, "no weak": NO_WEAK, "neither": NO_STRONG, "no hit": NO_HIT,
        "no miss": NO_MISS, "easy": BELOW_CUT, "hard": "",
    }  # fmt: skip
    assert selection.kept == ("hard",)
    assert selection.dropped() == {NO_STRONG: 2, NO_WEAK: 1, NO_HIT: 1, NO_MISS: 1, BELOW_CUT: 1}
    assert sum(selection.dropped().values()) + len(selection.kept) == 7


def test_the_table_keeps_its_schema_without_any_scene_or_rationale() -> None:
    for cases in ({}, {"a": ([], []), "b": ([], [])}):
        selection = select(judged(cases), size=5)
        assert selection.table.schema.equals(SCHEMA)
        assert selection.kept == ()
    assert selection.quotas == {("films", 2): 0}


# --- Quotas ------------------------------------------------------------------------------------


def test_quotas_by_largest_remainder() -> None:
    # 10 * (6, 3, 2) / 11 = 5.45, 2.73, 1.82: two are left over, for the larger remainders.
    sizes = {("a", 2): 6, ("b", 2): 3, ("c", 2): 2}
    assert allocate(sizes, sizes, 10) == {("a", 2): 5, ("b", 2): 3, ("c", 2): 2}


def test_what_a_poor_stratum_lacks_goes_to_the_others_in_proportion() -> None:
    sizes = {("a", 2): 100, ("b", 2): 100, ("c", 2): 200}
    room = {("a", 2): 4, ("b", 2): 100, ("c", 2): 200}
    assert allocate(sizes, room, 100) == {("a", 2): 4, ("b", 2): 32, ("c", 2): 64}


def test_a_stratum_without_any_able_scene_gets_nothing() -> None:
    sizes = {("a", 2): 10, ("b", 2): 10}
    assert allocate(sizes, {("b", 2): 3}, 8) == {("a", 2): 0, ("b", 2): 3}


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60)), min_size=1, max_size=8),
    st.integers(1, 300),
)
def test_quotas_are_exact_and_within_the_room(strata: list[tuple[int, int]], target: int) -> None:
    sizes = {(f"d{i}", 2): max(size, room) for i, (size, room) in enumerate(strata)}
    room = {(f"d{i}", 2): room for i, (_, room) in enumerate(strata)}
    quotas = allocate(sizes, room, target)
    assert sum(quotas.values()) == min(target, sum(room.values()))
    assert all(0 <= quotas[s] <= room[s] for s in sizes)
    # One common rate, from which no stratum with room left is a whole scene away.
    unfilled = [s for s in sizes if quotas[s] < room[s]]
    lowest = max((Fraction(quotas[s] - 1, sizes[s]) for s in unfilled), default=0)
    highest = min((Fraction(quotas[s] + 1, sizes[s]) for s in unfilled), default=1)
    assert lowest < highest


def test_strata_keep_their_shares_whatever_the_scores() -> None:
    # All the hardest scenes are in the small stratum.
    datasets = ["big"] * 75 + ["small"] * 25
    selection = select(graded(100, datasets=datasets), size=20)
    assert selection.quotas == {("big", 2): 15, ("small", 2): 5}
    kept = rows_of(selection)
    assert [s for s in kept if kept[s]["kept"]] == [
        f"s{i:03}" for i in [*range(60, 75), *range(95, 100)]
    ]


def test_list_lengths_are_strata_of_their_own() -> None:
    ids = ["a", "b", "c", "d"]
    weak = Predictions.of("weak", ids, [[[0, 1]], [[0, 1]], [[0, 0, 1]], [[0, 0, 1]]])
    strong = Predictions.of("strong", ids, [[[1, 0]], [[1, 0]], [[1, 0, 0]], [[1, 0, 0]]])
    found = assess(scenes_table(ids, sizes=[2, 2, 3, 3]), weak, strong, reading="likeliest")
    assert select(found, size=2).quotas == {("films", 2): 1, ("films", 3): 1}


def test_fewer_able_scenes_than_asked_for_are_all_kept() -> None:
    assert len(select(graded(5), size=100).kept) == 5


# --- Selectors ---------------------------------------------------------------------------------

CASES = {
    # Hit rates (weak, strong): all have a hit and a miss.
    "both right": ([HIT, HIT, HIT, MISS], [HIT, HIT, HIT, HIT]),
    "strong right": ([MISS, MISS, MISS, MISS], [HIT, HIT, HIT, HIT]),
    "both wrong": ([MISS, MISS, MISS, MISS], [HIT, MISS, MISS, MISS]),
}


@pytest.mark.parametrize(
    ("selector", "best", "worst"),
    [
        ("high_accuracy", {"both right", "strong right"}, "both wrong"),
        ("low_accuracy", {"both wrong"}, "strong right"),
        ("accuracy_difference", {"strong right"}, "both right"),
    ],
)
def test_accuracy_selectors(selector: str, best: set[str], worst: str) -> None:
    kept = select(judged(CASES), size=len(best), selector=selector).kept
    assert set(kept) == best
    assert worst not in kept


def test_difficulty_selects_what_the_strong_model_settles() -> None:
    found = judged({"settled": ([MISS], [SURE_HIT]), "both open": ([MISS], [HIT]),
                    "both sure": ([SURE_MISS], [SURE_HIT])})  # fmt: skip
    selection = select(found, size=1)
    assert selection.kept == ("settled",)
    assert rows_of(selection)["settled"]["score"] == pytest.approx(0.8813, abs=1e-4)


def test_random_depends_on_the_seed_alone() -> None:
    first, again, other = (
        select(graded(60), size=20, selector="random", seed=s).kept for s in (1, 1, 2)
    )
    assert first == again
    assert first != other
    # Not the hardest ones either: 20 of 60 at random hold about 7 of the top 20.
    assert len(set(first) & {f"s{i:03}" for i in range(40, 60)}) < 16


def test_ties_do_not_depend_on_the_order_of_the_scenes() -> None:
    ids = [f"s{i}" for i in range(30)]
    forward = judged({s: ([MISS], [HIT]) for s in ids})
    backward = judged({s: ([MISS], [HIT]) for s in reversed(ids)})
    kept = select(forward, size=10).kept
    assert set(kept) == set(select(backward, size=10).kept)
    assert set(kept) != set(ids[:10])
    assert set(kept) != set(select(forward, size=10, seed=1).kept)


def test_ifd_selector_takes_the_largest_below_one() -> None:
    found = judged(CASES).with_ifd(np.array([0.4, 0.9, 1.0]))
    selection = select(found, size=1, selector="ifd")
    assert selection.kept == ("strong right",)
    assert rows_of(selection)["both wrong"]["reason"] == NO_SCORE


def test_every_selector_keeps_only_pairs() -> None:
    found = judged(CASES | {"no hit": ([HIT], [MISS])}).with_ifd(np.array([0.1, 0.2, 0.3, 0.9]))
    for name in SELECTORS:
        selection = select(found, size=4, selector=name)
        assert set(selection.kept) == set(CASES), name


# --- Bad input ---------------------------------------------------------------------------------


def test_misspelt_names_suggest_the_right_one() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'difficulty'"):
        select(judged(CASES), size=1, selector="dificulty")
    with pytest.raises(UnknownNameError, match="Did you mean 'likeliest'"):
        judged(CASES, reading="likliest")


def test_settings_that_cannot_be_used() -> None:
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        select(judged(CASES), size=0)
    with pytest.raises(ConfigError, match="with_ifd"):
        select(judged(CASES), size=1, selector="ifd")
    with pytest.raises(DataError, match="IFD values for 3"):
        judged(CASES).with_ifd(np.ones(2))


def test_scenes_that_do_not_fit_their_predictions_are_named() -> None:
    p = Predictions.of("weak", ["a", "b"], [[HIT], [HIT]])
    strong = Predictions.of("strong", ["a", "b"], [[HIT], [HIT]])
    with pytest.raises(DataError, match=r"row 0 is scene 'b'"):
        assess(scenes_table(["b", "a"]), p, strong)
    with pytest.raises(DataError, match=r"'b' lists 4 items.*2 options"):
        assess(scenes_table(["a", "b"], sizes=[2, 4]), p, strong)
    with pytest.raises(DataError, match="'b' does not say what was chosen"):
        assess(scenes_table(["a", "b"], targets=[0, None]), p, strong)
    with pytest.raises(DataError, match="'a': the true option is number 2"):
        assess(scenes_table(["a", "b"], targets=[2, 0]), p, strong)
