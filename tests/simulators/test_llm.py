"""How scores of an engine become choice probabilities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import ConfigError, SceneError
from usermirror_gym.scenes import PromptBuilder, PromptConfig, Scene, SceneBatch, domain_text
from usermirror_gym.simulators import (
    ChoiceWeights,
    LettersSimulator,
    LikelihoodSimulator,
    LikelihoodWeights,
    OptionsSimulator,
    UserSimulator,
)
from usermirror_gym.simulators.readouts.utility import fit_choice

SCENE = Scene(user_id=1, history=(1, 2, 3), ratings=(4.0,) * 3, ages=(60,) * 3, slate=(10, 11, 12))
SHORT = replace(SCENE, slate=(20, 21))


@pytest.fixture
def builder(split: TimeSplit) -> PromptBuilder:
    return PromptBuilder(domain_text(split.dataset))


class TestLetters:
    def test_reads_the_letters_in_the_order_shown(self, arithmetic, builder) -> None:
        probs = LettersSimulator(arithmetic(), builder).choose([SCENE]).probs
        weights = np.array([1, 1 / 2, 1 / 3, 1 / 4])
        np.testing.assert_allclose(probs, [weights / weights.sum()])

    def test_all_permutations_even_out_a_pure_liking_for_letters(self, arithmetic, builder) -> None:
        engine = arithmetic()
        probs = LettersSimulator(engine, builder, permutations=4).choose([SCENE]).probs
        np.testing.assert_allclose(probs, np.full((1, 4), 0.25))
        assert len(engine.asked) == 4

    def test_more_permutations_than_options_ask_each_order_once(self, arithmetic, builder) -> None:
        engine = arithmetic()
        LettersSimulator(engine, builder, permutations=50).choose([SCENE])
        assert len(engine.asked) == 4

    def test_lists_of_different_length_share_a_batch(self, arithmetic, builder) -> None:
        batch = LettersSimulator(arithmetic(), builder).choose([SHORT, SCENE])
        assert batch.probs.shape == (2, 4)
        assert batch.probs[0, 2] == 0  # no third item
        weights = np.array([1, 1 / 2, 1 / 3])
        np.testing.assert_allclose(batch.probs[0, [0, 1, 3]], weights / weights.sum())
        np.testing.assert_allclose(batch.probs.sum(axis=1), 1)

    def test_forced_choice_gives_nothing_to_none_of_these(self, arithmetic, split) -> None:
        builder = PromptBuilder(domain_text(split.dataset), PromptConfig(outside_option=False))
        probs = LettersSimulator(arithmetic(), builder, permutations=3).choose([SCENE]).probs
        np.testing.assert_allclose(probs, [[1 / 3, 1 / 3, 1 / 3, 0]])

    def test_reports_tokens_summed_over_permutations(self, arithmetic, builder) -> None:
        batch = LettersSimulator(arithmetic(), builder, permutations=2).choose([SCENE, SHORT])
        assert batch.prompt_tokens.tolist() == [80, 80]
        assert batch.cached_tokens.tolist() == [20, 20]

    def test_temperature_and_bias_correct_the_average(self, arithmetic, builder) -> None:
        plain = LettersSimulator(arithmetic(), builder, permutations=2)
        weights = ChoiceWeights(2.0, (0.5, 0.0, -0.5, 1.0))
        found = LettersSimulator(arithmetic(), builder, permutations=2, weights=weights)
        expected = plain.choose([SCENE]).probs ** 0.5 * np.exp([0.5, 0, -0.5, 1.0])
        np.testing.assert_allclose(found.choose([SCENE]).probs, expected / expected.sum())
        np.testing.assert_allclose(np.exp(found.logprobs([SCENE])), plain.choose([SCENE]).probs)

    def test_the_last_bias_is_for_none_of_these_on_short_lists_too(
        self, arithmetic, builder
    ) -> None:
        weights = ChoiceWeights(1.0, (0.0, 0.0, 0.0, 1.0))
        probs = (
            LettersSimulator(arithmetic(), builder, weights=weights).choose([SHORT, SCENE]).probs
        )
        expected = np.array([1, 1 / 2, 1 / 3 * np.e])
        np.testing.assert_allclose(probs[0, [0, 1, 3]], expected / expected.sum())
        assert probs[0, 2] == 0

    def test_a_fitted_bias_undoes_a_liking_for_letters(self, arithmetic, builder) -> None:
        """The engine likes early letters whatever they stand for; the users do not."""
        scenes = [replace(SCENE, slate=(10 + i, 20 + i, 30 + i)) for i in range(20)] * 20
        simulator = LettersSimulator(arithmetic(), builder)
        logprobs = simulator.logprobs(scenes)
        targets = np.arange(400) % 4
        simulator.weights = fit_choice(logprobs, np.ones((400, 3), bool), targets)
        np.testing.assert_allclose(simulator.choose(scenes[:3]).probs, 0.25, atol=0.01)

    def test_rejects_no_permutations(self, arithmetic, builder) -> None:
        with pytest.raises(ConfigError, match="permutations must be at least 1, got 0"):
            LettersSimulator(arithmetic(), builder, permutations=0)


class TestOptions:
    """The stand-in likes early lines, as an untrained head may."""

    def test_reads_the_lines_in_the_order_shown(self, arithmetic, builder) -> None:
        probs = OptionsSimulator(arithmetic(), builder).choose([SCENE, SHORT]).probs
        weights = np.array([1, 1 / 2, 1 / 3, 1 / 4])
        np.testing.assert_allclose(probs[0], weights / weights.sum())
        np.testing.assert_allclose(probs[1, [0, 1, 3]], weights[:3] / weights[:3].sum())

    def test_all_permutations_even_out_items_and_leave_none_of_these_last(
        self, arithmetic, builder
    ) -> None:
        engine = arithmetic()
        probs = OptionsSimulator(engine, builder, permutations=3).choose([SCENE]).probs
        np.testing.assert_allclose(probs[0, :3], probs[0, 0])
        assert probs[0, 3] == pytest.approx(0.25 / (1 + 1 / 2 + 1 / 3 + 1 / 4))
        assert [p.options[-1] for p in engine.asked] == ["none of these\n"] * 3
        assert len({p.options[0] for p in engine.asked}) == 3

    def test_forced_choice(self, arithmetic, split) -> None:
        builder = PromptBuilder(domain_text(split.dataset), PromptConfig(outside_option=False))
        probs = OptionsSimulator(arithmetic(), builder, permutations=3).choose([SCENE]).probs
        np.testing.assert_allclose(probs, [[1 / 3, 1 / 3, 1 / 3, 0]])

    def test_takes_lists_longer_than_the_alphabet(self, arithmetic, builder) -> None:
        scene = replace(SCENE, slate=tuple(range(10, 40)))
        assert OptionsSimulator(arithmetic(), builder).choose([scene]).probs.shape == (1, 31)

    def test_the_whole_list_has_to_fit(self, arithmetic, builder) -> None:
        whole = arithmetic().count_lines(builder.lines(SCENE))
        engine = arithmetic(context_length=whole - 1)
        OptionsSimulator(engine, builder).choose([SCENE])
        assert engine.asked[0] == builder.lines(SCENE, (0, 1, 2), skip=1)
        with pytest.raises(SceneError, match="without any history"):
            OptionsSimulator(arithmetic(context_length=60), builder).choose([SCENE])


class TestLikelihood:
    def simulator(self, engine, builder, **weights) -> LikelihoodSimulator:
        return LikelihoodSimulator(engine, builder, LikelihoodWeights(**weights))

    def test_conditional_logit_by_hand(self, arithmetic, builder) -> None:
        """A film and its line end are 15 characters; the taste adds 5 to one of them."""
        engine = arithmetic(taste="Film 11")
        simulator = self.simulator(
            engine,
            builder,
            conditional_per_token=3.0,
            unconditional_per_token=-3.0,
            outside_utility=0.5,
        )
        utility = np.array([0, 3.0 * 5 / 15, 0, 0.5])  # the lengths cancel out
        expected = np.exp(utility) / np.exp(utility).sum()
        np.testing.assert_allclose(simulator.choose([SCENE]).probs, [expected])

    def test_summed_instead_of_per_token(self, arithmetic, builder) -> None:
        engine = arithmetic(taste="Film 11")
        simulator = self.simulator(
            engine, builder, conditional=1.0, conditional_per_token=0.0,
            unconditional_per_token=0.0, outside_utility=-9,
        )  # fmt: skip
        utility = np.array([-15, -10, -15, -9])
        expected = np.exp(utility) / np.exp(utility).sum()
        np.testing.assert_allclose(simulator.choose([SCENE]).probs, [expected])

    def test_the_order_of_the_list_does_not_matter(self, arithmetic, builder) -> None:
        simulator = self.simulator(arithmetic(taste="Film 11"), builder)
        turned = simulator.choose([replace(SCENE, slate=(12, 11, 10))]).probs
        np.testing.assert_allclose(turned[:, [2, 1, 0, 3]], simulator.choose([SCENE]).probs)

    def test_each_item_is_asked_without_context_only_once(self, arithmetic, builder) -> None:
        engine = arithmetic()
        simulator = self.simulator(engine, builder)
        simulator.choose([SCENE, SHORT])
        simulator.choose([SCENE, replace(SCENE, slate=(10, 30))])
        alone = [p.options for p in engine.asked if p.name == "items without context"]
        assert [len(options) for options in alone] == [5, 1]

    def test_forced_choice(self, arithmetic, builder) -> None:
        probs = self.simulator(arithmetic(), builder, outside_utility=None).choose([SCENE]).probs
        assert probs[0, -1] == 0

    def test_takes_lists_longer_than_the_alphabet(self, arithmetic, builder) -> None:
        scene = replace(SCENE, slate=tuple(range(10, 40)))
        assert self.simulator(arithmetic(), builder).choose([scene]).probs.shape == (1, 31)

    def test_utilities_far_apart_do_not_overflow(self, arithmetic, builder) -> None:
        simulator = self.simulator(
            arithmetic(taste="Film 11"), builder, conditional=1e4, unconditional=-1e4
        )
        assert simulator.choose([SCENE]).probs[0, 1] == pytest.approx(1)


def test_scene_batches_and_scenes_are_the_same_question(arithmetic, builder) -> None:
    for simulator in (
        LettersSimulator(arithmetic(), builder),
        LikelihoodSimulator(arithmetic(), builder, LikelihoodWeights()),
        OptionsSimulator(arithmetic(), builder, permutations=2),
    ):
        assert isinstance(simulator, UserSimulator)
        probs = simulator.choose(SceneBatch.of([SCENE, SHORT])).probs
        np.testing.assert_array_equal(probs, simulator.choose([SCENE, SHORT]).probs)


class TestContext:
    """A history that does not fit loses its oldest lines; a list that does not fit is an error."""

    long = replace(SCENE, history=tuple(range(1, 9)), ratings=(3.0,) * 8, ages=(9,) * 8)

    def test_the_oldest_lines_go_first(self, arithmetic, builder) -> None:
        full = arithmetic().count_tokens(builder.likelihood(self.long))
        engine = arithmetic(context_length=full - 1)
        LikelihoodSimulator(engine, builder, LikelihoodWeights()).choose([self.long])
        prompt = engine.asked[0]
        assert "Film 1 (" not in prompt.answer_prefix
        assert "Film 2 (" in prompt.answer_prefix
        assert engine.count_tokens(prompt) <= engine.context_length

    def test_the_error_names_the_scene(self, arithmetic, builder) -> None:
        scene = replace(self.long, name="scene 7")
        simulator = LettersSimulator(arithmetic(context_length=100), builder)
        with pytest.raises(SceneError, match=r"scene 7: .* tokens without any history.* holds 100"):
            simulator.choose([scene])
