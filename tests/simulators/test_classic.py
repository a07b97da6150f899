"""The yardsticks, the ratings, and simulators by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from usermirror_gym.configs import preset_names, read_preset
from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.scenes import Scene
from usermirror_gym.simulators import (
    BiasRatings,
    LettersSimulator,
    LikelihoodSimulator,
    PopularityChooser,
    UniformChooser,
    UserSimulator,
    available_simulators,
    make_simulator,
)


def scene(*slate: int) -> Scene:
    return Scene(user_id=1, history=(), ratings=(), ages=(), slate=slate)


def test_uniform_shares_what_none_of_these_leaves() -> None:
    probs = UniformChooser(outside=0.4).choose([scene(1, 2, 3), scene(4)]).probs
    np.testing.assert_allclose(probs, [[0.2, 0.2, 0.2, 0.4], [0.6, 0, 0, 0.4]])


def test_popularity_is_proportional_to_one_plus_counts_before_t0(split: TimeSplit) -> None:
    chooser = PopularityChooser(split, outside_quantile=0.5, slate_size=3)
    probs = chooser.choose([scene(1, 2, 3)]).probs[0]
    counts = 1.0 + split.popularity
    weights = np.append(counts[[1, 2, 3]], 3 * np.median(counts[1:]))
    np.testing.assert_allclose(probs, weights / weights.sum())


def test_a_share_outside_zero_to_one_is_an_error(split: TimeSplit) -> None:
    with pytest.raises(ConfigError, match=r"between 0 and 1, got 1\.5"):
        UniformChooser(outside=1.5)
    with pytest.raises(ConfigError, match="between 0 and 1, got -1"):
        PopularityChooser(split, outside_quantile=-1)


class TestRatings:
    def test_levels_order_and_mean(self, split: TimeSplit) -> None:
        model = BiasRatings(split)
        users = np.full(2000, 1)
        items = np.full(2000, 3)
        drawn = model.sample(users, items, np.random.default_rng(0).random(2000))
        assert set(drawn) <= set(model.levels)
        assert drawn.mean() == pytest.approx(float(model.expected(users, items)[0]), abs=0.15)
        lucky = model.sample(users[:2], items[:2], np.array([0.01, 0.99]))
        assert lucky[0] <= lucky[1]

    def test_only_ratings_before_t0_count(self, split: TimeSplit) -> None:
        model = BiasRatings(split)
        rated = set(split.before["item_id"])
        unrated = [i for i in range(1, split.dataset.n_items + 1) if i not in rated]
        assert unrated
        assert model.item_bias[unrated].tolist() == [0.0] * len(unrated)
        assert model.mean == pytest.approx(split.before["rating"].mean())

    def test_a_log_without_ratings_gives_none(self, split: TimeSplit) -> None:
        blank = split.dataset.interactions.assign(rating=np.nan)
        data = type(split.dataset)("x", "movie", split.dataset.users, split.dataset.items, blank)
        model = BiasRatings(TimeSplit(data, split.t0))
        assert np.isnan(model.sample(np.array([1]), np.array([1]), np.array([0.5]))).all()


class TestByName:
    def test_every_preset_is_valid_and_loads_no_weights(self, split: TimeSplit) -> None:
        # Of the items of ml-100k alone.
        surrogates = {"surrogate", "smollm2-ml100k-surrogate", "smollm2-session-surrogate"}
        assert surrogates <= set(available_simulators())
        for name in set(available_simulators()) - surrogates:
            assert isinstance(make_simulator(name, split), UserSimulator)

    def test_the_preset_decides_the_readout_and_options_override_it(self, split: TimeSplit) -> None:
        default = make_simulator("smollm2-likelihood", split, outside_utility=2.5, form="scene")
        assert isinstance(default, LikelihoodSimulator)
        assert default.weights.outside_utility == 2.5
        assert default.builder.config.form == "scene"
        assert default.weights.conditional_per_token == 1.0
        preset = read_preset("simulators", "smollm2-likelihood")
        assert default.weights.unconditional_per_token == preset["unconditional_per_token"]
        letters = make_simulator("smollm2-likelihood", split, readout="letters", permutations=3)
        assert isinstance(letters, LettersSimulator)
        forced = make_simulator("smollm2-likelihood", split, outside_option=False)
        assert isinstance(forced, LikelihoodSimulator)
        assert forced.weights.outside_utility is None

    def test_simulators_that_ask_alike_share_the_weights(self, split: TimeSplit) -> None:
        one, two = (make_simulator("smollm2-likelihood", split) for _ in range(2))
        letters = make_simulator("smollm2-letters", split)
        other = make_simulator("smollm2-letters", split, engine={"dtype": "bfloat16"})
        assert isinstance(one, LikelihoodSimulator)
        assert isinstance(two, LikelihoodSimulator)
        assert isinstance(letters, LettersSimulator)
        assert isinstance(other, LettersSimulator)
        assert one.engine is two.engine is letters.engine
        assert one.engine is not other.engine

    def test_a_folder_is_a_checkpoint_read_by_letters(
        self, split: TimeSplit, tmp_path: Path
    ) -> None:
        assert isinstance(make_simulator(str(tmp_path), split), LettersSimulator)

    def test_near_misses_suggest_the_right_name(self, split: TimeSplit) -> None:
        with pytest.raises(UnknownNameError, match="Did you mean 'smollm2-likelihood'"):
            make_simulator("smollm2-liklihood", split)
        with pytest.raises(UnknownNameError, match="Did you mean 'permutations'"):
            make_simulator("smollm2-letters", split, permutation=3)
        with pytest.raises(UnknownNameError, match="unknown simulator preset 'nothing'"):
            read_preset("simulators", "nothing")

    def test_unusable_values_say_which_and_why(self, split: TimeSplit) -> None:
        with pytest.raises(ConfigError, match=r"option 'tokens': .*number.*got 'big'"):
            make_simulator("smollm2-likelihood", split, tokens="big")
        with pytest.raises(ConfigError, match=r"option 'readout'.*'letters'"):
            make_simulator("smollm2-likelihood", split, readout="words")
        with pytest.raises(
            UnknownNameError, match=r"TransformersEngine setting 'precision'.*dtype"
        ):
            make_simulator("smollm2-letters", split, engine={"precision": "int8"})
        with pytest.raises(ConfigError, match=r"trained head \(head\.saf.*smollm2-135m-instruct"):
            make_simulator("smollm2-likelihood", split, readout="options")
        with pytest.raises(ConfigError, match=r"'uniform'.*unexpected keyword.*'scale'"):
            make_simulator("uniform", split, scale=2)

    def test_presets_are_found(self) -> None:
        assert {"smollm2-likelihood", "smollm2-letters"} <= set(preset_names("simulators"))
