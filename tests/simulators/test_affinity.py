"""The affinity readout: by hand, whatever the batch, and from the file the second time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import CheckpointError, ConfigError
from usermirror_gym.progress import Display
from usermirror_gym.scenes import PromptBuilder, PromptConfig, Scene, SceneBatch, domain_text
from usermirror_gym.scenes.scene import Turn
from usermirror_gym.simulators import AffinitySimulator, AffinityWeights, UserSimulator
from usermirror_gym.simulators.affinity import item_vectors
from usermirror_gym.simulators.affinity.affinity import newest_lines
from usermirror_gym.simulators.affinity.affinity_head import AffinityHead, LineMemory

SCENE = Scene(user_id=1, history=(1, 2, 3), ratings=(4.0,) * 3, ages=(60,) * 3, slate=(10, 11, 12))
SHORT = replace(SCENE, slate=(20, 3), history=(5,), ratings=(1.0,), ages=(9,))
NOBODY = replace(SCENE, history=(), ratings=(), ages=())
SESSION = replace(SCENE, turns=(Turn((30, 31, 32, 33), 31), Turn((34, 35), 0), Turn((36, 37), 36)))
WEIGHTS = AffinityWeights(1.5, 0.5, outside_utility=0.25)


def random_head(seed: int = 0, lines: int = 4, d: int = 3) -> AffinityHead:
    rng = np.random.default_rng(seed)
    parts = ((3, "mean"), (7, "last"))
    arrays = [rng.normal(size=shape) for shape in ((4,), (4, d), (4, d), (4,), (lines,))]
    arrays[2] = arrays[1] + 0.5 * arrays[2]  # so that some products are positive
    return AffinityHead(parts, *arrays)


@pytest.fixture
def builder(split: TimeSplit) -> PromptBuilder:
    return PromptBuilder(domain_text(split.dataset), PromptConfig(history_lines=4, drop_lines=2))


@pytest.fixture
def make(arithmetic, builder) -> Callable[..., AffinitySimulator]:
    def simulator(head: AffinityHead | None = None, weights=WEIGHTS, **settings):
        settings = {"engine": arithmetic(), "builder": builder, **settings}
        engine, words = settings.pop("engine"), settings.pop("builder")
        return AffinitySimulator(engine, words, head or random_head(), weights, **settings)

    return simulator


def by_hand(simulator: AffinitySimulator, memory: tuple[int, ...], slate: tuple[int, ...]):
    """Probabilities by the formulas; ``memory`` newest first."""
    head, prompt = simulator.head, simulator.builder.item_lines((*memory, *slate))
    assert prompt.answer_prefix == "Films watched, in order:\n"
    x = simulator.engine.item_hidden_states(
        prompt.options, head=prompt.answer_prefix, parts=head.parts
    )
    x = x.astype(float) - head.mean
    n = len(memory)
    lags = np.exp(head.lags[:n].astype(float))
    taste = np.zeros(head.d)
    for m in range(n):
        taste += lags[m] / lags.sum() * (x[m] @ head.history)
    w = simulator.weights
    affinities = [np.log(max(taste @ (o @ head.option), 0) + head.floor) * (n > 0) for o in x[n:]]
    appeals = x[n:] @ head.bias
    utilities = [w.affinity * a + w.item_bias * b for a, b in zip(affinities, appeals, strict=True)]
    utilities.append(-np.inf if w.outside_utility is None else w.outside_utility)
    mass = np.exp(utilities)
    return mass / mass.sum()


class TestChoice:
    def test_by_hand(self, make) -> None:
        simulator = make()
        probs = simulator.choose([SCENE, SHORT, NOBODY]).probs
        np.testing.assert_allclose(probs[0], by_hand(simulator, (3, 2, 1), SCENE.slate), rtol=1e-5)
        np.testing.assert_allclose(
            probs[1, [0, 1, 3]], by_hand(simulator, (5,), SHORT.slate), rtol=1e-5
        )
        assert probs[1, 2] == 0
        np.testing.assert_allclose(probs[2], by_hand(simulator, (), NOBODY.slate), rtol=1e-5)

    def test_forced_choice(self, make) -> None:
        simulator = make(weights=AffinityWeights(1.0, 1.0, None))
        probs = simulator.choose([SCENE]).probs
        assert probs[0, -1] == 0
        np.testing.assert_allclose(probs[0], by_hand(simulator, (3, 2, 1), SCENE.slate), rtol=1e-5)

    def test_without_memory_only_the_appeal_counts(self, make) -> None:
        scores = make().scores([NOBODY, SCENE])
        assert (scores.affinity[0] == 0).all()
        assert (scores.affinity[1] != 0).all()
        np.testing.assert_array_equal(scores.item_bias[0], scores.item_bias[1])

    def test_the_history_matters_and_its_order_too(self, make) -> None:
        own, other, turned = make().choose(
            [SCENE, replace(SCENE, history=(4, 5, 6)), replace(SCENE, history=(3, 2, 1))]
        ).probs  # fmt: skip
        assert np.abs(own - other).max() > 0.01
        assert np.abs(own - turned).max() > 0.01

    def test_what_was_chosen_before_does_not_speak_for_itself(self, make) -> None:
        simulator = make(replace(random_head(), lags=np.zeros(4)))  # each line has a third
        slate = (2, 10, 11)
        lines = simulator.builder.item_lines((*SCENE.history, *slate))
        states = simulator.engine.item_hidden_states(
            lines.options, head=lines.answer_prefix, parts=simulator.head.parts
        )
        vectors = simulator.head.vectors(states, lines.options)
        products = vectors.history[:3] @ vectors.option[3:].T
        assert products[1, 0] != 0
        products[1, 0] = 0
        found = simulator.scores([replace(SCENE, slate=slate)]).affinity[0]
        np.testing.assert_allclose(found, simulator.head.affinity(products.mean(axis=0)), rtol=1e-5)

    def test_what_is_remembered_counts_where_the_line_is_known(self, make) -> None:
        simulator = make()
        known = simulator.builder.item_lines((2, 11)).options
        memory = LineMemory.of(known, np.ones((2, 2)), np.full((2, 2), 9.0), np.array([0.0, 3.0]))
        remembering = make(replace(random_head(), memory=memory))
        plain, more = (s.scores([SCENE, NOBODY]) for s in (simulator, remembering))
        # Item 11 is in both lists; of the histories only the first has a line that is known.
        same = np.isclose(plain.affinity, more.affinity, rtol=1e-9)
        assert same.tolist() == [[True, False, True], [True] * 3]
        assert more.affinity[0, 1] > plain.affinity[0, 1]
        np.testing.assert_allclose(more.item_bias - plain.item_bias, [[0, 3, 0]] * 2, atol=1e-6)

    def test_a_permuted_list_has_permuted_probabilities(self, make) -> None:
        rng = np.random.default_rng(5)
        scene = replace(SCENE, slate=tuple(range(10, 40)))
        simulator = make()
        affinity, item_bias, _ = simulator.scores([scene])
        probs = simulator.choose([scene]).probs[0]
        for _ in range(5):
            order = rng.permutation(30)
            turned = replace(scene, slate=tuple(np.array(scene.slate)[order].tolist()))
            found = simulator.scores([turned])
            np.testing.assert_array_equal(found.affinity[0], affinity[0, order])
            np.testing.assert_array_equal(found.item_bias[0], item_bias[0, order])
            again = simulator.choose([turned]).probs[0]
            np.testing.assert_allclose(again, probs[[*order, 30]], rtol=1e-12)

    def test_the_batch_does_not_matter(self, make) -> None:
        scenes = [SCENE, SHORT, NOBODY, SESSION] * 3
        together = make().choose(scenes).probs
        alone = make()
        for scene, row in zip(scenes, together, strict=True):
            probs = alone.choose([scene]).probs[0]
            np.testing.assert_array_equal(np.append(row[: len(scene.slate)], row[-1]), probs)

    def test_scene_batches_and_scenes_are_the_same_question(self, make) -> None:
        simulator = make()
        assert isinstance(simulator, UserSimulator)
        scenes = [SCENE, SHORT, SESSION, NOBODY]
        listed, batched = simulator.choose(scenes).probs, simulator.choose(SceneBatch.of(scenes))
        assert listed.shape == (4, 4)
        assert batched.probs.shape == (4, 5)  # a list of an earlier turn has four items
        np.testing.assert_array_equal(batched.probs[:, [0, 1, 2, 4]], listed)
        assert (batched.probs[:, 3] == 0).all()

    def test_only_the_columns_that_matter_are_made(self, make) -> None:
        """Of a batch that an environment makes column by column."""
        scenes, asked = [SCENE, SESSION], []

        def load(name: str) -> np.ndarray:
            asked.append(name)
            return getattr(SceneBatch.of(scenes), name)

        simulator = make()
        probs = simulator.choose(SceneBatch.lazy(2, load)).probs
        np.testing.assert_array_equal(probs, simulator.choose(SceneBatch.of(scenes)).probs)
        assert set(asked) == {"slates", "history", "history_lengths", "turn_chosen", "turn_counts"}

    def test_no_scenes_no_answers(self, make) -> None:
        assert make().choose([]).probs.shape == (0, 1)

    def test_utilities_far_apart_do_not_overflow(self, make) -> None:
        probs = make(weights=AffinityWeights(1e5, 1e5, 0.0)).choose([SCENE]).probs
        assert probs.max() == pytest.approx(1)


class TestMemory:
    @pytest.mark.parametrize("form", ["scene", "session"])
    def test_choices_of_the_session_follow_the_history(self, make, builder, form) -> None:
        config = PromptConfig(form=form, history_lines=4, drop_lines=2, max_turns=2)
        simulator = make(builder=replace(builder, config=config))
        expected = by_hand(simulator, (36, 31, 3, 2), SESSION.slate)
        np.testing.assert_allclose(simulator.choose([SESSION]).probs[0], expected, rtol=1e-5)

    def test_newest_first_and_no_line_for_nothing_chosen(self) -> None:
        batch = SceneBatch.of([SESSION, SHORT, NOBODY])
        memory = newest_lines(batch, 6).tolist()
        assert memory == [[36, 31, 3, 2, 1, 0], [5, 0, 0, 0, 0, 0], [0] * 6]
        assert newest_lines(batch, 2).tolist() == [[36, 31], [5, 0], [0, 0]]

    def test_stale_entries_behind_the_lengths_are_not_read(self) -> None:
        """Environments hand over their live arrays."""
        batch = SceneBatch.of([SESSION, SHORT])
        batch.history[1, 1:], batch.turn_chosen[1] = 99, 98
        assert newest_lines(batch, 3).tolist() == [[36, 31, 3], [5, 0, 0]]

    def test_fewer_lines_than_the_head_knows(self, make, builder) -> None:
        config = PromptConfig(history_lines=2, drop_lines=1)
        simulator = make(builder=replace(builder, config=config))
        expected = by_hand(simulator, (3, 2), SCENE.slate)
        np.testing.assert_allclose(simulator.choose([SCENE]).probs[0], expected, rtol=1e-5)

    def test_more_lines_than_the_head_knows_are_refused(self, make, builder) -> None:
        config = PromptConfig(history_lines=5)
        with pytest.raises(ConfigError, match=r"history_lines is 5.* for 4 lines"):
            make(builder=replace(builder, config=config))


class TestReading:
    def test_a_line_is_read_once(self, make, arithmetic) -> None:
        engine = arithmetic()
        simulator = make(engine=engine)
        simulator.choose([SCENE, SHORT])
        assert len(engine.lines) == len(set(engine.lines)) == 8
        simulator.choose([SHORT, SCENE, replace(SCENE, slate=(3, 21))])
        assert len(engine.lines) == 9

    def test_tokens_are_those_of_new_lines_in_the_first_scene_that_shows_them(self, make) -> None:
        simulator = make()

        def cost(*items: int) -> int:
            asked = simulator.builder.item_lines(items)
            return sum(len(asked.answer_prefix) + len(line) for line in asked.options)

        batch = simulator.choose([SHORT, SCENE, SCENE])
        assert batch.prompt_tokens.tolist() == [cost(20, 3, 5), cost(10, 11, 12, 1, 2), 0]
        assert batch.cached_tokens.tolist() == [0, 0, 0]
        assert simulator.choose([SCENE]).prompt_tokens.tolist() == [0]

    def test_the_second_start_reads_nothing(self, make, arithmetic, tmp_path: Path) -> None:
        first = make(cache=tmp_path).choose([SCENE, SHORT])
        engine = arithmetic()
        again = make(engine=engine, cache=tmp_path).choose([SCENE, SHORT])
        assert engine.lines == []
        np.testing.assert_array_equal(again.probs, first.probs)
        assert again.prompt_tokens.tolist() == [0, 0]

    @pytest.mark.parametrize("other", ["engine", "head", "noun"])
    def test_another_engine_head_or_wording_reads_anew(
        self, make, arithmetic, split, builder, tmp_path: Path, other: str
    ) -> None:
        make(cache=tmp_path).choose([SCENE])
        engine, settings = arithmetic(), {}
        if other == "engine":
            engine.model_id = "arithmetic+adapter@123"
        elif other == "head":
            settings["head"] = random_head(1)
        else:
            words = domain_text(split.dataset)
            words.noun = "book"
            settings["builder"] = replace(builder, text=words)
        found = make(engine=engine, cache=tmp_path, **settings).choose([SCENE]).probs
        assert len(engine.lines) == 6
        assert len(list(tmp_path.glob("*.npz"))) == 2
        fresh = make(engine=arithmetic(), **settings).choose([SCENE]).probs
        np.testing.assert_array_equal(found, fresh)

    def test_new_lags_use_what_was_read(self, make, arithmetic, tmp_path: Path) -> None:
        make(cache=tmp_path).choose([SCENE])
        engine = arithmetic()
        head = replace(random_head(), lags=np.array([9.0, 0, 0, 0]))
        simulator = make(head, engine=engine, cache=tmp_path)
        probs = simulator.choose([SCENE]).probs
        assert engine.lines == []
        np.testing.assert_allclose(probs[0], by_hand(simulator, (3, 2, 1), SCENE.slate), rtol=1e-5)

    def test_edited_titles_are_other_lines(
        self, make, builder, split, arithmetic, tmp_path
    ) -> None:
        before = make(cache=tmp_path).choose([SCENE, SHORT]).probs
        data = split.dataset
        items = data.items.copy()
        items.loc[11, "title"] = "Film 11, the best of all"
        engine = arithmetic()
        words = replace(builder, text=domain_text(replace(data, items=items)))
        after = make(engine=engine, builder=words, cache=tmp_path).choose([SCENE, SHORT]).probs
        assert [line.startswith("Film 11, the best of all") for line in engine.lines] == [True]
        assert np.abs(after[0] - before[0]).max() > 1e-3
        np.testing.assert_array_equal(after[1], before[1])

    def test_items_that_read_alike_are_alike(self, make, builder, split) -> None:
        data = split.dataset
        items = data.items.copy()
        items.loc[12, ["title", "year"]] = items.loc[10, ["title", "year"]].to_numpy()
        words = replace(builder, text=domain_text(replace(data, items=items)))
        batch = make(builder=words).choose([SCENE])
        assert batch.probs[0, 0] == batch.probs[0, 2]

    def test_a_long_reading_shows_a_bar_unless_it_is_part_of_something(
        self, make, monkeypatch, capsys
    ) -> None:
        monkeypatch.setattr(item_vectors, "_LONG", 3)
        make().choose([SCENE])
        assert "reading items" in capsys.readouterr().err
        with Display(quiet=True).phase("other", 1, "things"):
            make().choose([SCENE])
        assert capsys.readouterr().err == ""

    def test_a_kill_loses_at_most_one_block(
        self, make, arithmetic, monkeypatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(item_vectors, "_BLOCK", 2)

        class Killed(arithmetic):
            def item_hidden_states(self, lines, **settings):
                if len(self.lines) >= 4:
                    raise KeyboardInterrupt
                return super().item_hidden_states(lines, **settings)

        with pytest.raises(KeyboardInterrupt):
            make(engine=Killed(), cache=tmp_path).choose([SCENE])
        engine = arithmetic()
        probs = make(engine=engine, cache=tmp_path).choose([SCENE]).probs
        assert len(engine.lines) <= 4
        np.testing.assert_array_equal(probs, make().choose([SCENE]).probs)

    def test_states_that_were_read_before_are_not_read_again(self, make, arithmetic) -> None:
        simulator, engine = make(), arithmetic()
        items = np.array([11, 10, 3, 2, 1])
        asked = simulator.builder.item_lines(tuple(items.tolist()))
        states = engine.item_hidden_states(
            asked.options, head=asked.answer_prefix, parts=simulator.head.parts
        )
        simulator.take_states(items, states)
        batch = simulator.choose([SCENE])
        assert simulator.engine.lines == list(simulator.builder.item_lines((12,)).options)
        np.testing.assert_array_equal(batch.probs, make().choose([SCENE]).probs)

    def test_the_head_of_another_model_is_refused(self, make) -> None:
        rng = np.random.default_rng(0)
        shapes = ((6,), (6, 3), (6, 3), (6,), (4,))
        head = AffinityHead(((1, "last"), (2, "last")), *(rng.normal(size=s) for s in shapes))
        with pytest.raises(
            CheckpointError, match="reads 6 numbers of a line, and this model gives 4"
        ):
            make(head).choose([SCENE])


def test_the_name_tells_heads_and_weights_apart(make) -> None:
    names = {
        make().name,
        make(random_head(1)).name,
        make(replace(random_head(), lags=np.zeros(4))).name,
        make(weights=AffinityWeights(1.5, 0.5, None)).name,
    }
    assert len(names) == 4
    assert all(name.startswith("affinity(arithmetic, session, head@") for name in names)
