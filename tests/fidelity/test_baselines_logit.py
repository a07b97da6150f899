"""The nested logit of the classic baselines."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usermirror_gym.errors import SceneError
from usermirror_gym.measures.choice_models import (
    Leaving,
    NestedLogit,
    fit_nested_logit,
    forced_log_loss,
    forced_log_probs,
)

WEIGHTS = np.array([1.0, -0.5])


def simulate(n: int = 4000, k: int = 4, seed: int = 0, leave: float = -0.5):
    """Choices of a conditional logit with a constant for none of these, on lists of 2 to k."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, k, 2))
    mask = np.arange(k) < rng.integers(2, k + 1, n)[:, None]
    utilities = np.column_stack([np.where(mask, x @ WEIGHTS, -np.inf), np.full(n, leave)])
    targets = (utilities + rng.gumbel(size=utilities.shape)).argmax(axis=1)
    return x, mask, targets


def test_probabilities_of_a_list_worked_out_by_hand():
    logit = NestedLogit((2.0,), (1.0,), (0.5,), Leaving(0.3, 0.1, 0.5))
    x = np.array([[[1.0], [1.25], [9.0]]])
    mask = np.array([[True, True, False]])
    # Utilities 2 * (x - 1) / 0.5 = 0 and 1; the third place is padding.
    shares = np.exp([0.0, 1.0]) / np.exp([0.0, 1.0]).sum()
    odds = 0.3 + 0.1 * np.log(2) - 0.5 * np.log(1 + np.e)
    none = 1 / (1 + np.exp(-odds))
    expected = [*(shares * (1 - none)), 0.0, none]
    assert logit.probs(x, mask)[0] == pytest.approx(expected, rel=1e-12)


def test_inclusive_weight_of_one_is_the_conditional_logit():
    x, mask, _ = simulate(50)
    logit = NestedLogit((1.0, -0.5), (0.0, 0.0), (1.0, 1.0), Leaving(-0.5))
    mass = np.column_stack([np.where(mask, np.exp(x @ WEIGHTS), 0), np.full(50, np.exp(-0.5))])
    expected = mass / mass.sum(axis=1, keepdims=True)
    assert logit.probs(x, mask) == pytest.approx(expected, abs=1e-12)


def test_the_weights_that_made_the_choices_are_found():
    x, mask, targets = simulate(8000)
    logit = fit_nested_logit(x, mask, targets)
    assert np.array(logit.weights) / logit.scale == pytest.approx(WEIGHTS, abs=0.08)
    assert logit.leaving is not None
    assert logit.leaving.inclusive == pytest.approx(1.0, abs=0.25)
    shift = float(np.array(logit.weights) @ (np.array(logit.centre) / logit.scale))
    assert logit.leaving.constant + logit.leaving.by_size * np.log(3) - shift == pytest.approx(
        -0.5, abs=0.2
    )


def test_the_fit_is_the_minimum_of_its_loss():
    x, mask, targets = simulate(300)
    logit = fit_nested_logit(x, mask, targets, ridge=2.0)
    held = targets < mask.shape[1]

    def loss(weights):
        moved = NestedLogit(tuple(weights), logit.centre, logit.scale)
        fit = forced_log_loss(moved.utilities(x), mask, targets) * held.sum()
        return fit + 2.0 / 2 * float(np.square(weights).sum())

    best = loss(np.array(logit.weights))
    for step in ([0.01, 0], [-0.01, 0], [0, 0.01], [0, -0.01]):
        assert loss(np.array(logit.weights) + step) > best


def test_choices_that_are_never_none_are_forced():
    x, mask, targets = simulate(200)
    held = targets < 4
    logit = fit_nested_logit(x[held], mask[held], targets[held])
    assert logit.leaving is None
    probs = logit.probs(x, mask)
    assert (probs[:, -1] == 0).all()
    assert probs.sum(axis=1) == pytest.approx(np.ones(200))


def test_gaps_constants_and_infinities_do_no_harm():
    x, mask, targets = simulate(300)
    wide = np.concatenate([x, np.ones((300, 4, 1)), np.full((300, 4, 1), np.nan)], axis=2)
    wide[5, 0, 0] = np.nan
    wide[6, 1, 1] = np.inf
    logit = fit_nested_logit(wide, mask, targets)
    assert logit.weights[2] == logit.weights[3] == 0.0
    assert np.isfinite(logit.probs(wide, mask)).all()


def test_a_list_without_items_takes_none():
    logit = NestedLogit((1.0,), (0.0,), (1.0,), None)
    assert logit.probs(np.zeros((1, 2, 1)), np.zeros((1, 2), bool)).tolist() == [[0.0, 0.0, 1.0]]


def test_without_a_held_choice_the_error_counts_the_lists():
    x, mask, _ = simulate(7)
    with pytest.raises(SceneError, match="none of 7"):
        fit_nested_logit(x, mask, np.full(7, 4))


def test_plain_types_there_and_back():
    x, mask, targets = simulate(200)
    for keep in (slice(None), targets < 4):
        logit = fit_nested_logit(x[keep], mask[keep], targets[keep])
        assert NestedLogit.from_json(json.loads(json.dumps(logit.to_json()))) == logit


@given(st.permutations(range(4)), st.integers(0, 100))
def test_options_in_another_order_keep_their_probabilities(order, seed):
    x, mask, _ = simulate(5, seed=seed)
    logit = NestedLogit((1.0, -0.5), (0.1, 0.0), (2.0, 1.0), Leaving(0.2, 0.3, 0.8))
    moved = logit.probs(x[:, order], mask[:, order])
    assert moved == pytest.approx(logit.probs(x, mask)[:, [*order, 4]], abs=1e-12)


def test_forced_log_loss_ignores_lists_without_the_choice():
    utilities = np.log(np.array([[3.0, 1.0], [1.0, 1.0]]))
    mask = np.ones((2, 2), bool)
    assert forced_log_loss(utilities, mask, np.array([0, 2])) == pytest.approx(-np.log(0.75))
    assert np.exp(forced_log_probs(utilities, mask))[0] == pytest.approx([0.75, 0.25])
