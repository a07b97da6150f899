"""Uncertainty: hand-computed cases, the laws of entropy, draws that belong to a scene."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usermirror_gym.errors import DataError
from usermirror_gym.measures.uncertainty import (
    Predictions,
    aleatoric,
    difficulty,
    entropy,
    epistemic,
    hits,
    likeliest_choices,
    sampled_choices,
    total,
)


def one(rows, role: str = "weak", scene: str = "s") -> Predictions:
    return Predictions.of(role, [scene], [rows])


def parts(p: Predictions) -> tuple[float, float, float]:
    return total(p)[0], epistemic(p)[0], aleatoric(p)[0]


@st.composite
def distributions(draw, max_n: int = 6, max_k: int = 7) -> np.ndarray:
    """(n, K) rows that sum to 1; zeros and one-hot rows are common."""
    n, k = draw(st.integers(1, max_n)), draw(st.integers(1, max_k))
    weight = st.one_of(st.just(0), st.integers(1, 5), st.integers(1, 10**6))
    weights = draw(st.lists(st.lists(weight, min_size=k, max_size=k), min_size=n, max_size=n))
    rows = np.array(weights, float)
    rows[rows.sum(axis=1) == 0, draw(st.integers(0, k - 1))] = 1
    return rows / rows.sum(axis=1, keepdims=True)


# --- Hand-computed -----------------------------------------------------------------------------


def test_two_rationales_that_each_settle_it_differently() -> None:
    # Each thought leads to one choice for sure; which thought is open: one bit, all of it between.
    assert parts(one([[1, 0], [0, 1]])) == pytest.approx((1.0, 0.0, 1.0))


def test_two_rationales_that_both_settle_nothing() -> None:
    assert parts(one([[0.25] * 4, [0.25] * 4])) == pytest.approx((2.0, 2.0, 0.0))


def test_one_sure_and_one_open_rationale() -> None:
    # mean = (3/4, 1/4): H = 2 - 3/4 log2 3; the parts are 1/2 and the rest.
    whole = 2 - 0.75 * np.log2(3)
    p = one([[1, 0], [0.5, 0.5]])
    assert parts(p) == pytest.approx((whole, 0.5, whole - 0.5))
    assert entropy(p)[0] == pytest.approx([0, 1])


def test_difficulty_is_large_where_the_strong_model_settles_what_the_weak_leaves_open() -> None:
    ids = ["settled", "open", "reversed"]
    weak = Predictions.of("weak", ids, [[[0.5, 0.5]], [[0.5, 0.5]], [[1, 0]]])
    strong = Predictions.of("strong", ids, [[[1, 0]], [[0.5, 0.5]], [[0.5, 0.5]]])
    assert difficulty(weak, strong).tolist() == [1.0, 0.0, -1.0]


def test_missing_rationales_and_shorter_lists_do_not_count() -> None:
    p = Predictions.of("weak", ["a", "b", "c"], [[None, [0.5, 0.5], None], [[0.25] * 4], [None]])
    assert total(p)[:2].tolist() == [1.0, 2.0]
    assert epistemic(p)[:2].tolist() == [1.0, 2.0]
    assert np.isnan([total(p)[2], epistemic(p)[2], aleatoric(p)[2]]).all()
    assert np.isnan(entropy(p)).tolist() == [[True, False, True], [False, True, True], [True] * 3]
    assert np.isnan(difficulty(p, p)).tolist() == [False, False, True]


@pytest.mark.parametrize("rows", [[], [[]], [[None]]])
def test_no_rationale_at_all_is_nan_not_zero(rows) -> None:
    p = Predictions.of("weak", ["s"] * len(rows), rows)
    assert np.isnan(total(p)).all()
    assert len(sampled_choices(p)) == len(likeliest_choices(p)) == len(rows)
    assert not (sampled_choices(p) >= 0).any()
    assert not hits(p, likeliest_choices(p), [0] * len(rows)).any()


# --- Laws --------------------------------------------------------------------------------------


@given(distributions())
def test_parts_are_not_negative_and_add_up(rows: np.ndarray) -> None:
    whole, inner, between = parts(one(rows))
    assert between >= 0
    assert inner >= 0
    assert whole == pytest.approx(inner + between, abs=1e-12)
    assert whole <= np.log2(rows.shape[1]) + 1e-12


@given(distributions(), st.randoms(use_true_random=False))
def test_order_of_rationales_changes_nothing(rows: np.ndarray, random) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)
    assert parts(one(rows[order])) == pytest.approx(parts(one(rows)), abs=1e-12)


@given(distributions(), st.randoms(use_true_random=False))
def test_relabelling_options_moves_choices_and_leaves_entropies(rows: np.ndarray, random) -> None:
    order = list(range(rows.shape[1]))
    random.shuffle(order)
    before, after = one(rows), one(rows[:, order])
    assert entropy(after) == pytest.approx(entropy(before), abs=1e-12)
    assert parts(after) == pytest.approx(parts(before), abs=1e-12)
    unique = (rows == rows.max(axis=1, keepdims=True)).sum(axis=1) == 1
    moved = np.array(order)[likeliest_choices(after)[0]]
    assert (moved == likeliest_choices(before)[0])[unique].all()


@given(st.integers(1, 26), st.integers(1, 5))
def test_uniform_is_log2_k_and_one_hot_is_zero(k: int, n: int) -> None:
    assert parts(one([[1 / k] * k] * n)) == pytest.approx((np.log2(k), np.log2(k), 0), abs=1e-12)
    assert parts(one([[0.0] * (k - 1) + [1.0]] * n)) == (0, 0, 0)


@given(distributions(max_n=3), distributions(max_n=3))
def test_padding_for_a_longer_list_changes_nothing(a: np.ndarray, b: np.ndarray) -> None:
    both = Predictions.of("weak", ["a", "b"], [a, b])
    assert [total(both)[0], epistemic(both)[0]] == pytest.approx(parts(one(a))[:2], abs=1e-12)


# --- Choices -----------------------------------------------------------------------------------


def test_draws_belong_to_the_scene_not_to_its_place() -> None:
    rows = {f"scene {i}": [[0.3, 0.3, 0.4]] * 4 for i in range(50)}
    ids = list(rows)
    whole = sampled_choices(Predictions.of("weak", ids, [rows[i] for i in ids]), seed=3)
    backwards = sampled_choices(Predictions.of("weak", ids[::-1], [rows[i] for i in ids]), seed=3)
    assert (whole == backwards[::-1]).all()
    alone = sampled_choices(one(rows["scene 7"], scene="scene 7"), seed=3)
    assert (alone[0] == whole[7]).all()


def test_seeds_roles_and_scenes_draw_differently() -> None:
    rows = [[0.5, 0.5]] * 64
    drawn = [
        sampled_choices(one(rows), seed=0),
        sampled_choices(one(rows), seed=1),
        sampled_choices(one(rows, role="strong"), seed=0),
        sampled_choices(one(rows, scene="other"), seed=0),
    ]
    assert len({d.tobytes() for d in drawn}) == 4


def test_more_rationales_do_not_redraw_the_first_ones() -> None:
    few, many = sampled_choices(one([[0.5, 0.5]] * 5)), sampled_choices(one([[0.5, 0.5]] * 9))
    assert (many[0, :5] == few[0]).all()


def test_draws_follow_the_distribution() -> None:
    wanted = np.array([0.0, 0.1, 0.6, 0.0, 0.3, 0.0])
    counts = np.bincount(sampled_choices(one([wanted] * 20_000))[0], minlength=6) / 20_000
    # Four standard errors; impossible options are never drawn.
    assert (np.abs(counts - wanted) <= 4 * np.sqrt(wanted * (1 - wanted) / 20_000)).all()


@given(distributions(), st.integers(0, 2**63))
def test_impossible_options_are_never_drawn(rows: np.ndarray, seed: int) -> None:
    drawn = sampled_choices(one(rows), seed)[0]
    assert (rows[np.arange(len(rows)), drawn] > 0).all()


def test_hits_compare_with_the_true_option() -> None:
    p = Predictions.of("weak", ["a", "b"], [[[0.9, 0.1], None, [0.2, 0.8]], [[0, 0, 1.0]]])
    choices = likeliest_choices(p)
    assert choices.tolist() == [[0, -1, 1], [2, -1, -1]]
    assert hits(p, choices, [1, 2]).tolist() == [[False, False, True], [True, False, False]]


def test_first_of_equally_likely_options_is_the_likeliest() -> None:
    assert likeliest_choices(one([[0.2, 0.4, 0.4]])).tolist() == [[1]]


# --- Bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ([0.5, 0.6], "does not sum to 1"),
        ([0.0, 0.0], "does not sum to 1"),
        ([np.nan, 1.0], "not finite"),
        ([np.inf, 0.0], "not finite"),
        ([-0.1, 1.1], "negative"),
    ],
)
def test_a_row_that_is_no_distribution_is_named(row: list[float], fault: str) -> None:
    with pytest.raises(DataError, match=rf"'bad'.*rationale 1 .*{fault}"):
        Predictions.of("weak", ["good", "bad"], [[[1.0, 0.0]], [[0.5, 0.5], row]])


def test_sums_within_the_tolerance_are_made_one() -> None:
    p = one([[0.49998, 0.50007]])
    assert p.probs.sum() == pytest.approx(1, abs=1e-15)


def test_probability_in_the_padding_is_refused() -> None:
    with pytest.raises(DataError, match="beyond the last option"):
        Predictions("weak", ("s",), np.full((1, 1, 4), 0.25), np.ones((1, 1), bool), np.array([3]))


@pytest.mark.parametrize(
    ("ids", "rows", "message"),
    [
        (["a"], [[[1.0], [0.5, 0.5]]], r"'a'.*\[1, 2\] options"),
        (["a"], [[[]]], "at least one"),
        (["a", "a"], [[[1.0]], [[1.0]]], "'a' twice"),
        (["a"], [[[1.0]], [[1.0]]], "2 scenes for 1"),
    ],
)
def test_rows_that_do_not_fit_are_refused(ids, rows, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Predictions.of("weak", ids, rows)


@pytest.mark.parametrize("target", [-1, 2])
def test_a_target_outside_the_list_is_refused(target: int) -> None:
    p = one([[0.5, 0.5]])
    with pytest.raises(DataError, match=rf"'s'.*number {target}.*2 options"):
        hits(p, likeliest_choices(p), [target])


def test_difficulty_of_different_scenes_is_refused() -> None:
    a = Predictions.of("weak", ["a", "b"], [[[1.0]], [[1.0]]])
    swapped = Predictions.of("strong", ["b", "a"], [[[1.0]], [[1.0]]])
    with pytest.raises(DataError, match=r"row 0 is scene 'a'.*'b'"):
        difficulty(a, swapped)
    with pytest.raises(DataError, match=r"2 scenes.*1"):
        difficulty(a, one([[1.0]], role="strong"))
