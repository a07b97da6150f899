"""Scores of probabilities against choices: by hand, as scikit-learn has them, in any order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss

from usermirror_gym.errors import SceneError
from usermirror_gym.measures.choice_scores import (
    METRICS,
    ObservedChoices,
    forced,
    likeliest,
    outside_scores,
    scores_given_click,
)
from usermirror_gym.scenes import Scene, Turn


def scene(slate: tuple[int, ...], target: int | None, user: int = 1, **more) -> Scene:
    return Scene(user, (), (), (), slate, target=target, **more)


def drawn(seed: int, s: int = 40, k: int = 5) -> tuple[np.ndarray, ObservedChoices]:
    """Random answers to lists of 2 to ``k`` items, some without the true one."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, k + 1, s)
    sizes[0] = k
    shown = np.arange(k) < sizes[:, None]
    probs = rng.gamma(0.5, size=(s, k + 1)) * np.column_stack([shown, np.ones(s)])
    probs /= probs.sum(axis=1, keepdims=True)
    targets = (rng.random(s) * (sizes + 1)).astype(np.int64)
    targets = np.where(targets == sizes, k, targets)
    return probs, ObservedChoices(rng.integers(1, 9, s), shown, targets)


def test_by_hand() -> None:
    choices = ObservedChoices.of([scene((1, 2), 0), scene((3, 4), 1), scene((5, 6), 2)])
    probs = np.array([[0.4, 0.1, 0.5], [0.25, 0.25, 0.5], [0.3, 0.3, 0.4]])
    # accuracy, expected accuracy, log-loss, Brier; a tie counts as half
    expected = [[1, 0.8, -np.log(0.8), 0.04 + 0.04], [0.5, 0.5, np.log(2), 0.25 + 0.25]]
    found = scores_given_click(probs, choices)
    np.testing.assert_allclose(found[:2], expected)
    assert np.isnan(found[2]).all()  # the true item was removed: there is no right answer here
    with_outside = [
        [0, 0.4, -np.log(0.4), 0.36 + 0.01 + 0.25],
        [0, 0.25, -np.log(0.25), 0.0625 + 0.5625 + 0.25],
        [1, 0.4, -np.log(0.4), 0.09 + 0.09 + 0.36],
    ]
    np.testing.assert_allclose(outside_scores(probs, choices), with_outside)


def test_as_scikit_learn_has_it() -> None:
    probs, choices = drawn(0)
    scores = outside_scores(probs, choices)
    labels = np.arange(6)
    hot = choices.targets[:, None] == labels
    by_name = dict(zip(METRICS, scores.mean(axis=0), strict=True))
    assert by_name["log_loss"] == pytest.approx(log_loss(choices.targets, probs, labels=labels))
    brier = sum(brier_score_loss(hot[:, j], probs[:, j]) for j in labels)
    assert by_name["brier"] == pytest.approx(brier)
    assert by_name["accuracy"] == pytest.approx((probs.argmax(1) == choices.targets).mean())


def test_lists_of_different_lengths_share_a_last_column() -> None:
    choices = ObservedChoices.of([scene((1, 2, 3), 3), scene((4,), 1), scene((5, 6), 1)])
    assert choices.targets.tolist() == [3, 3, 1]
    assert choices.contains_choice.tolist() == [False, False, True]
    assert choices.shown.tolist() == [[True] * 3, [True, False, False], [True, True, False]]
    earlier = scene((4,), 0, turns=(Turn((1, 2, 3), 1),))
    assert ObservedChoices.of([earlier]).shown.shape == (
        1,
        1,
    )  # earlier lists do not widen this one


def test_no_probability_is_not_an_infinite_loss() -> None:
    choices = ObservedChoices.of([scene((1, 2), 0), scene((1, 2), 2)])
    never = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert scores_given_click(never, choices)[0, 2] == pytest.approx(-np.log(1e-12))
    assert outside_scores(never, choices)[1].tolist() == pytest.approx([0, 0, -np.log(1e-12), 2])


def test_who_always_leaves_is_even_among_the_items() -> None:
    shown = np.array([[True, True, False]])
    assert forced(np.array([[0.0, 0.0, 0.0, 1.0]]), shown).tolist() == [[0.5, 0.5, 0.0]]
    tiny = np.array([[1e-300, 3e-300, 0.0, 1.0]])
    np.testing.assert_allclose(forced(tiny, shown), [[0.25, 0.75, 0.0]])


def test_padding_is_never_the_likeliest() -> None:
    assert likeliest(np.zeros((1, 3)), np.array([[True, True, False]])).tolist() == [[0.5, 0.5, 0]]


def test_a_choice_that_nobody_knows_is_refused() -> None:
    with pytest.raises(SceneError, match=r"1 scenes have no target, the first is odd"):
        ObservedChoices.of([scene((1, 2), 0), scene((1, 2), None, name="odd")])


@given(st.integers(0, 10**6))
def test_the_order_of_scenes_and_options_does_not_matter(seed: int) -> None:
    probs, choices = drawn(seed)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(choices))
    shuffled = ObservedChoices(choices.users[rows], choices.shown[rows], choices.targets[rows])
    columns = rng.permutation(choices.shown.shape[1])  # the same relabelling of every list
    places = np.append(np.argsort(columns), choices.shown.shape[1])
    relabelled = ObservedChoices(choices.users, choices.shown[:, columns], places[choices.targets])
    for score in (scores_given_click, outside_scores):
        expected = score(probs, choices)
        np.testing.assert_array_equal(score(probs[rows], shuffled), expected[rows])
        moved = np.column_stack([probs[:, columns], probs[:, -1]])
        np.testing.assert_allclose(score(moved, relabelled), expected)


@given(st.integers(0, 10**6))
def test_scores_stay_in_their_ranges(seed: int) -> None:
    probs, choices = drawn(seed)
    scores = outside_scores(probs, choices)
    assert (scores >= 0).all()
    assert (scores[:, [0, 1]] <= 1).all()
    assert (scores[:, 3] <= 2).all()
    best = np.zeros_like(probs)
    best[np.arange(len(probs)), choices.targets] = 1
    assert outside_scores(best, choices) == pytest.approx(np.tile([1, 1, 0, 0], (len(probs), 1)))
