"""From scores to choices, and back from choices to weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad

from usermirror_gym.errors import ConfigError, DataError
from usermirror_gym.measures import choice_models
from usermirror_gym.simulators.readouts import utility
from usermirror_gym.simulators.readouts.utility import (
    AffinityWeights,
    ChoiceWeights,
    LikelihoodWeights,
    affinity_logprobs,
    choice_logprobs,
    fit_affinity,
    fit_choice,
    fit_likelihood,
    likelihood_logprobs,
)


def drawn(logprobs: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Chosen places; the length of a list is none of these."""
    noise = logprobs + rng.gumbel(size=logprobs.shape)
    places = noise.argmax(axis=1)
    return np.where(places == mask.shape[1], mask.sum(axis=1), places)


def scores(n: int, k: int, seed: int = 0, shortest: int | None = None):
    """Likelihoods as language models give them: the two parts and the length move together."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(4, 15, (n, k)).astype(float)
    uncond = -2.5 * tokens + rng.normal(0, 3, (n, k))
    cond = uncond + 8 + rng.normal(0, 3, (n, k))
    mask = np.arange(k) < rng.integers(shortest or k, k + 1, n)[:, None]
    return cond, uncond, tokens, mask, rng


def mean_loss(logprobs: np.ndarray, mask: np.ndarray, targets: np.ndarray) -> float:
    places = np.where(targets == mask.sum(axis=1), mask.shape[1], targets)
    return float(-logprobs[np.arange(len(targets)), places].mean())


TRUE = LikelihoodWeights(0.4, -0.3, 1.5, -0.5, 0.1, outside_utility=2.0)


class TestLikelihood:
    def test_by_hand(self) -> None:
        weights = LikelihoodWeights(2.0, -1.0, 4.0, 8.0, 0.5, outside_utility=1.0)
        one = np.array([[-6.0, -2.0]]), np.array([[-9.0, -4.0]]), np.array([[3.0, 2.0]])
        found = likelihood_logprobs(weights, *one, np.ones((1, 2), bool))
        utilities = np.array([-12 + 9 - 8 - 24 + 1.5, -4 + 4 - 4 - 16 + 1.0, 1.0])
        np.testing.assert_allclose(found[0], utilities - np.logaddexp.reduce(utilities))

    def test_padding_does_not_matter_and_has_no_chance(self) -> None:
        cond, uncond, tokens, mask, _ = scores(5, 4, shortest=2)
        cond[~mask], uncond[~mask], tokens[~mask] = np.nan, 99.0, 0.0
        found = likelihood_logprobs(TRUE, cond, uncond, tokens, mask)
        assert (found[:, :-1][~mask] == -np.inf).all()
        np.testing.assert_allclose(np.exp(found).sum(axis=1), 1)

    def test_none_offered_only_if_the_weights_say_so(self) -> None:
        cond, uncond, tokens, mask, _ = scores(3, 4)
        forced = LikelihoodWeights(outside_utility=None)
        assert (likelihood_logprobs(forced, cond, uncond, tokens, mask)[:, -1] == -np.inf).all()

    def test_fit_recovers_the_weights_of_simulated_choosers(self) -> None:
        cond, uncond, tokens, mask, rng = scores(60_000, 6, shortest=3)
        targets = drawn(likelihood_logprobs(TRUE, cond, uncond, tokens, mask), mask, rng)
        assert 0.05 < (targets == mask.sum(axis=1)).mean() < 0.95
        found = fit_likelihood(cond, uncond, tokens, mask, targets)
        np.testing.assert_allclose(found.coefficients, TRUE.coefficients, atol=0.25)
        true = likelihood_logprobs(TRUE, cond, uncond, tokens, mask)
        got = likelihood_logprobs(found, cond, uncond, tokens, mask)
        np.testing.assert_allclose(np.exp(got), np.exp(true), atol=0.04)

    def test_fit_is_no_worse_than_the_truth_on_its_own_scenes(self) -> None:
        cond, uncond, tokens, mask, rng = scores(500, 5)
        true = likelihood_logprobs(TRUE, cond, uncond, tokens, mask)
        targets = drawn(true, mask, rng)
        found = fit_likelihood(cond, uncond, tokens, mask, targets)
        got = likelihood_logprobs(found, cond, uncond, tokens, mask)
        assert mean_loss(got, mask, targets) < mean_loss(true, mask, targets)

    def test_the_order_of_options_and_scenes_changes_nothing(self) -> None:
        cond, uncond, tokens, mask, rng = scores(300, 5)
        targets = drawn(likelihood_logprobs(TRUE, cond, uncond, tokens, mask), mask, rng)
        none = targets == 5
        order = rng.permuted(np.tile(np.arange(5), (300, 1)), axis=1)
        turned = [np.take_along_axis(x, order, axis=1) for x in (cond, uncond, tokens)]
        places = np.where(none, 5, (order == targets[:, None]).argmax(axis=1))
        rows = rng.permutation(300)
        plain = fit_likelihood(cond, uncond, tokens, mask, targets)
        other = fit_likelihood(*(x[rows] for x in turned), mask, places[rows])
        np.testing.assert_allclose(other.coefficients, plain.coefficients, atol=1e-4)
        assert other.outside_utility == pytest.approx(plain.outside_utility, abs=1e-3)

    def test_units_of_the_scores_do_not_matter(self) -> None:
        """Features are scaled inside: bits instead of nats give the same choices."""
        cond, uncond, tokens, mask, rng = scores(400, 5)
        targets = drawn(likelihood_logprobs(TRUE, cond, uncond, tokens, mask), mask, rng)
        plain = fit_likelihood(cond, uncond, tokens, mask, targets)
        large = fit_likelihood(1e4 * cond, 1e4 * uncond, tokens, mask, targets)
        np.testing.assert_allclose(
            likelihood_logprobs(large, 1e4 * cond, 1e4 * uncond, tokens, mask),
            likelihood_logprobs(plain, cond, uncond, tokens, mask),
            atol=1e-3,
        )

    def test_outside_is_fitted_only_if_somebody_left(self) -> None:
        cond, uncond, tokens, mask, rng = scores(200, 5)
        stayed = rng.integers(0, 5, 200)
        assert fit_likelihood(cond, uncond, tokens, mask, stayed).outside_utility is None
        left = np.where(np.arange(200) < 80, 5, stayed)
        found = fit_likelihood(cond, uncond, tokens, mask, left)
        got = likelihood_logprobs(found, cond, uncond, tokens, mask)
        assert np.exp(got[:, -1]).mean() == pytest.approx(0.4, abs=0.01)

    def test_few_and_one_sided_choices_give_finite_weights(self) -> None:
        for n, targets in ((1, [2]), (1, [4]), (40, [0] * 40), (40, [4] * 40)):
            cond, uncond, tokens, mask, _ = scores(n, 4)
            found = fit_likelihood(cond, uncond, tokens, mask, np.array(targets))
            assert np.isfinite(found.coefficients).all()
            got = likelihood_logprobs(found, cond, uncond, tokens, mask)
            assert mean_loss(got, mask, np.array(targets)) < np.log(5)

    def test_separable_choices_do_not_run_away(self) -> None:
        cond, uncond, tokens, mask, _ = scores(100, 4)
        found = fit_likelihood(cond, uncond, tokens, mask, (cond - uncond).argmax(axis=1))
        assert np.abs(found.coefficients).max() < 100

    def test_features_that_do_not_vary_get_no_weight(self) -> None:
        cond, uncond, tokens, mask, rng = scores(50, 4)
        found = fit_likelihood(cond, 0 * uncond, 0 * tokens + 7, mask, rng.integers(0, 4, 50))
        assert found.unconditional == found.unconditional_per_token == found.tokens == 0

    @pytest.mark.parametrize("value", [-np.inf, np.nan])
    def test_scores_that_are_not_finite_are_named(self, value: float) -> None:
        cond, uncond, tokens, mask, _ = scores(3, 4)
        uncond[1, 2] = value
        with pytest.raises(DataError, match="uncond of scene 1, place 2"):
            fit_likelihood(cond, uncond, tokens, mask, np.zeros(3, int))

    @pytest.mark.parametrize(("target", "outside"), [(5, True), (-1, True), (4, False)])
    def test_targets_off_the_list_are_named(self, target: int, outside: bool) -> None:
        cond, uncond, tokens, mask, _ = scores(3, 4)
        targets = np.array([0, target, 0])
        with pytest.raises(DataError, match=f"target {target} of scene 1 is not on its list of 4"):
            fit_likelihood(cond, uncond, tokens, mask, targets, outside=outside)

    def test_shapes_are_checked(self) -> None:
        cond, uncond, tokens, mask, _ = scores(3, 4)
        with pytest.raises(DataError, match=r"n_tokens have shape \(3, 3\), expected \(3, 4\)"):
            fit_likelihood(cond, uncond, tokens[:, :3], mask, np.zeros(3, int))
        with pytest.raises(DataError, match="at least one scene"):
            fit_likelihood(cond[:0], uncond[:0], tokens[:0], mask[:0], np.zeros(0, int))
        mask[0, 1] = False
        with pytest.raises(DataError, match="gaps"):
            fit_likelihood(cond, uncond, tokens, mask, np.zeros(3, int))


class TestAffinity:
    TRUE = AffinityWeights(1.4, -0.6, outside_utility=4.0)

    def drawn(self, n: int, weights: AffinityWeights = TRUE):
        """Lists of two to five items and what users with these weights took from them."""
        rng = np.random.default_rng(n)
        affinity, appeal = rng.normal(2.0, 1.5, (n, 5)), rng.normal(-1.0, 1.0, (n, 5))
        mask = np.arange(5) < rng.integers(2, 6, n)[:, None]
        targets = drawn(affinity_logprobs(weights, affinity, appeal, mask), mask, rng)
        return affinity, appeal, mask, targets

    def test_by_hand(self) -> None:
        weights = AffinityWeights(2.0, 0.5, outside_utility=1.0)
        values = np.array([[1.0, -1.0, np.nan]]), np.array([[4.0, 2.0, np.inf]])
        found = affinity_logprobs(weights, *values, np.array([[True, True, False]]))
        utilities = np.array([4.0, -1.0, -np.inf, 1.0])
        np.testing.assert_allclose(found[0], utilities - np.logaddexp.reduce(utilities))
        forced = affinity_logprobs(
            AffinityWeights(2.0, 0.5, None), *values, np.array([[True, True, False]])
        )
        assert np.exp(forced[0, 2:]).tolist() == [0.0, 0.0]

    def test_whether_any_is_taken_by_hand(self) -> None:
        weights = AffinityWeights(2.0, 0.5, outside_utility=1.0, inclusive_value=0.5)
        values = np.array([[1.0, -1.0, np.nan]]), np.array([[4.0, 2.0, np.inf]])
        (found,) = np.exp(affinity_logprobs(weights, *values, np.array([[True, True, False]])))
        value = np.log(np.exp(0.5) + np.exp(-0.5))
        none = 1 / (1 + np.exp(value - 1.0))
        first = 1 / (1 + np.exp(-1.0 - 4.0))
        expected = [(1 - none) * first, (1 - none) * (1 - first), 0.0, none]
        np.testing.assert_allclose(found, expected, rtol=1e-12)

    @pytest.mark.parametrize("worth", [0.0, 0.7, 1.4])
    def test_fit_recovers_the_weights_of_simulated_choosers(self, worth: float) -> None:
        true = AffinityWeights(1.4, -0.6, 2.5, worth)
        found = fit_affinity(*self.drawn(40_000, true))
        np.testing.assert_allclose(found.coefficients, true.coefficients, atol=0.05)
        np.testing.assert_allclose(
            found.inclusive_value_coefficients, true.inclusive_value_coefficients, atol=0.1
        )
        assert found.outside_utility == pytest.approx(2.5, abs=0.2)

    def test_what_a_list_is_worth_does_not_change_which_item_is_taken(self) -> None:
        affinity, appeal, mask, _ = self.drawn(50)
        forced, free = (
            affinity_logprobs(AffinityWeights(1.4, -0.6, level, 0.3), affinity, appeal, mask)
            for level in (None, 2.0)
        )
        taken = np.logaddexp.reduce(free[:, :-1], axis=1, keepdims=True)
        np.testing.assert_allclose(np.where(mask, free[:, :-1] - taken, 0),
                                   np.where(mask, forced[:, :-1], 0), atol=1e-12)  # fmt: skip

    def test_users_without_memory_say_nothing_about_taste(self) -> None:
        affinity, appeal, mask, targets = self.drawn(400)
        found = fit_affinity(np.zeros_like(affinity), appeal, mask, targets)
        assert found.affinity == 0.0
        assert found.item_bias < 0

    def test_a_forced_choice_has_no_outside(self) -> None:
        found = fit_affinity(*self.drawn(300, AffinityWeights(1.0, 1.0, None)))
        assert found.outside_utility is None

    def test_mistakes_are_named(self) -> None:
        affinity, appeal, mask, targets = self.drawn(3)
        with pytest.raises(DataError, match="target 9 of scene 0"):
            fit_affinity(affinity, appeal, mask, np.array([9, 0, 0]))
        appeal[1, 0] = np.nan
        with pytest.raises(DataError, match="item_bias of scene 1, place 0 is nan"):
            fit_affinity(affinity, appeal, mask, targets)
        with pytest.raises(DataError, match="affinity have shape"):
            fit_affinity(affinity[:, :2], appeal, mask, targets)
        with pytest.raises(DataError, match="nobody took an item"):
            fit_affinity(affinity, np.zeros_like(affinity), mask, mask.sum(axis=1))


class TestChoice:
    def logprobs(self, n: int, k: int, seed: int = 0) -> np.ndarray:
        raw = np.random.default_rng(seed).normal(0, 2, (n, k + 1))
        return raw - np.logaddexp.reduce(raw, axis=1, keepdims=True)

    def test_by_hand(self) -> None:
        given_ = np.log([[0.5, 0.3, 0.2]])
        found = np.exp(choice_logprobs(ChoiceWeights(0.5, (0.0, np.log(2), np.log(3))), given_))
        expected = np.array([0.25, 0.18, 0.12])
        np.testing.assert_allclose(found[0], expected / expected.sum())

    def test_the_default_changes_nothing_and_impossible_options_stay_so(self) -> None:
        given_ = np.log([[0.5, 0.25, 0.25], [0.4, 0.6, 1.0]])
        given_[1, 2] = -np.inf
        np.testing.assert_allclose(choice_logprobs(ChoiceWeights(), given_), given_)

    def test_the_last_bias_is_that_of_none_of_these_on_lists_of_any_length(self) -> None:
        weights = ChoiceWeights(1.0, (0.1, 0.2, 0.3, 9.0))
        assert weights.bias(3).tolist() == [0.1, 0.2, 0.3, 9.0]
        assert weights.bias(2).tolist() == [0.1, 0.2, 9.0]
        assert weights.bias(5).tolist() == [0.1, 0.2, 0.3, 0, 0, 9.0]
        assert ChoiceWeights().bias(2).tolist() == [0, 0, 0]

    def test_fit_recovers_temperature_and_bias(self) -> None:
        given_ = self.logprobs(40_000, 4)
        mask = np.ones((40_000, 4), bool)
        true = ChoiceWeights(1.8, (0.5, -0.2, -0.3, 0.0, 0.7))
        rng = np.random.default_rng(1)
        targets = drawn(choice_logprobs(true, given_), mask, rng)
        found = fit_choice(given_, mask, targets)
        assert found.temperature == pytest.approx(1.8, rel=0.03)
        np.testing.assert_allclose(found.position_bias, true.position_bias, atol=0.06)
        assert sum(found.position_bias[:-1]) == pytest.approx(0, abs=1e-9)

    def test_temperature_alone(self) -> None:
        given_ = self.logprobs(5_000, 4)
        mask = np.ones((5_000, 4), bool)
        rng = np.random.default_rng(1)
        targets = drawn(choice_logprobs(ChoiceWeights(0.7), given_), mask, rng)
        found = fit_choice(given_, mask, targets, position_bias=False)
        assert found.position_bias == ()
        assert found.temperature == pytest.approx(0.7, rel=0.05)

    def test_calibrated_answers_are_left_alone(self) -> None:
        given_ = self.logprobs(40_000, 3)
        mask = np.ones((40_000, 3), bool)
        found = fit_choice(given_, mask, drawn(given_, mask, np.random.default_rng(2)))
        assert found.temperature == pytest.approx(1, abs=0.03)
        np.testing.assert_allclose(found.position_bias, 0, atol=0.05)

    def test_lists_of_different_length(self) -> None:
        given_ = self.logprobs(20_000, 5)
        rng = np.random.default_rng(3)
        mask = np.arange(5) < rng.integers(2, 6, 20_000)[:, None]
        given_[:, :-1][~mask] = -np.inf
        given_ -= np.logaddexp.reduce(given_, axis=1, keepdims=True)
        true = ChoiceWeights(1.5, (0.4, 0.2, 0.0, -0.2, -0.4, -0.5))
        found = fit_choice(given_, mask, drawn(choice_logprobs(true, given_), mask, rng))
        np.testing.assert_allclose(found.position_bias, true.position_bias, atol=0.15)

    def test_nobody_left_so_nothing_is_said_about_leaving(self) -> None:
        given_ = self.logprobs(300, 4)
        mask, rng = np.ones((300, 4), bool), np.random.default_rng(0)
        found = fit_choice(given_, mask, rng.integers(0, 4, 300))
        assert found.position_bias[-1] == 0

    def test_forced_choices(self) -> None:
        given_ = self.logprobs(300, 4)
        given_[:, -1] = -np.inf
        mask, rng = np.ones((300, 4), bool), np.random.default_rng(0)
        found = fit_choice(given_, mask, rng.integers(0, 4, 300))
        assert np.isfinite(found.position_bias).all()
        with pytest.raises(DataError, match="target 4 of scene 0"):
            fit_choice(given_, mask, np.full(300, 4))

    @pytest.mark.parametrize("targets", [[0] * 30, [4] * 30, [1]])
    def test_few_and_one_sided_choices_give_finite_weights(self, targets: list[int]) -> None:
        given_ = self.logprobs(len(targets), 4)
        found = fit_choice(given_, np.ones((len(targets), 4), bool), np.array(targets))
        assert 0 < found.temperature <= 100
        assert np.isfinite(found.position_bias).all()

    def test_answers_against_all_evidence_end_flat_not_upside_down(self) -> None:
        given_ = self.logprobs(500, 4)
        mask = np.ones((500, 4), bool)
        found = fit_choice(given_, mask, given_[:, :-1].argmin(axis=1), position_bias=False)
        assert found.temperature == pytest.approx(100)

    def test_an_impossible_option_is_named(self) -> None:
        given_ = self.logprobs(3, 4)
        given_[2, 1] = -np.inf
        with pytest.raises(DataError, match="logprobs of scene 2, place 1 is -inf"):
            fit_choice(given_, np.ones((3, 4), bool), np.zeros(3, int))
        with pytest.raises(DataError, match="last column"):
            fit_choice(given_[:, :-1], np.ones((3, 4), bool), np.zeros(3, int))

    @pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
    def test_unusable_weights(self, temperature: float) -> None:
        with pytest.raises(ConfigError, match="temperature must be a number above 0"):
            ChoiceWeights(temperature)
        with pytest.raises(ConfigError, match="position_bias"):
            ChoiceWeights(position_bias=(0.1,))


@pytest.mark.parametrize("with_none", [True, False])
def test_the_gradients_are_those_of_the_losses(monkeypatch, with_none: bool) -> None:
    cond, uncond, tokens, mask, rng = scores(50, 4, shortest=2)
    targets = rng.integers(0, mask.sum(axis=1) + with_none)
    seen = []
    real = choice_models.minimum

    def spy(loss, start, *more, **options):
        seen.append((loss, start))
        return real(loss, start, *more, **options)

    for module in (choice_models, utility):
        monkeypatch.setattr(module, "minimum", spy)
    weights = fit_likelihood(cond, uncond, tokens, mask, targets)
    fit_choice(likelihood_logprobs(
        weights if with_none else LikelihoodWeights(), cond, uncond, tokens, mask
    ), mask, targets)  # fmt: skip
    assert len(seen) == 2
    for loss, start in seen:
        at = start + rng.normal(0, 0.5, len(start))
        error = check_grad(lambda x, f=loss: f(x)[0], lambda x, f=loss: f(x)[1], at)
        assert error < 1e-5


@settings(max_examples=40)
@given(
    st.integers(1, 30),
    st.integers(1, 6),
    st.floats(1e-3, 1e3),
    st.integers(0, 1_000),
)
def test_fits_are_finite_whatever_the_scores(n: int, k: int, size: float, seed: int) -> None:
    cond, uncond, tokens, mask, rng = scores(n, k, seed, shortest=1)
    targets = rng.integers(0, mask.sum(axis=1) + 1)
    found = fit_likelihood(size * cond, size * uncond, tokens, mask, targets)
    got = likelihood_logprobs(found, size * cond, size * uncond, tokens, mask)
    np.testing.assert_allclose(np.exp(got).sum(axis=1), 1)
    assert np.isfinite(found.coefficients).all()
