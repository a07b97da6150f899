"""A user who thinks in words: what is written, what is read behind it, what is averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from usermirror_gym.data import TimeSplit
from usermirror_gym.engines.base import OptionScores
from usermirror_gym.envs import SlateVectorEnv, make_world
from usermirror_gym.errors import ConfigError, SceneError
from usermirror_gym.scenes import PromptBuilder, PromptConfig, Scene, domain_text
from usermirror_gym.simulators import RationaleSimulator, Thinking, UserSimulator
from usermirror_gym.simulators.registry import make_simulator
from usermirror_gym.types import Prompt

SCENE = Scene(user_id=1, history=(1, 2, 3), ratings=(4.0,) * 3, ages=(60,) * 3, slate=(10, 11, 12))
SHORT = replace(SCENE, slate=(20, 21))


class Thinker:
    """Writes which letter it takes, and then takes it with .7; without a word all are alike."""

    model_id = "thinker"

    def __init__(self, thoughts: str = "AB", context_length: int = 100_000) -> None:
        self.thoughts, self.context_length = thoughts, context_length
        self.written: list[Prompt] = []
        self.read: list[Prompt] = []
        self.sampling: dict = {}

    def count_tokens(self, prompt: Prompt) -> int:
        return sum(len(m.content) for m in prompt.messages) + len(prompt.answer_prefix)

    def generate(self, prompts: Sequence[Prompt], *, n: int, **sampling) -> list[list[str]]:
        self.written += prompts
        self.sampling = sampling
        return [[self._thought(k) for k in range(n)] for _ in prompts]

    def _thought(self, k: int) -> str:
        letter = self.thoughts[k % len(self.thoughts)] if self.thoughts else ""
        return f"Stimulus: I want {letter}.\nKnowledge: none.\n\n" if letter else "  \n"

    def choice_logprobs(self, prompts: Sequence[Prompt]) -> list[OptionScores]:
        self.read += prompts
        return [self._scores(prompt) for prompt in prompts]

    def _scores(self, prompt: Prompt) -> OptionScores:
        k = len(prompt.options)
        wants = [f"I want {letter}." in prompt.answer_prefix for letter in prompt.options]
        probs = np.where(wants, 0.7, 0.3 / (k - 1)) if any(wants) else np.full(k, 1 / k)
        return OptionScores(np.log(probs), np.ones(k, np.int64), 50, 30)


@pytest.fixture
def builder(split: TimeSplit) -> PromptBuilder:
    return PromptBuilder(domain_text(split.dataset), PromptConfig(form="scene"))


def test_choices_are_read_behind_every_thought_and_averaged(builder) -> None:
    engine = Thinker("AB")
    batch = RationaleSimulator(engine, builder, Thinking(count=2)).choose([SCENE])
    np.testing.assert_allclose(batch.probs, [[0.4, 0.4, 0.1, 0.1]])
    assert batch.rationales == ("Stimulus: I want A.\nKnowledge: none.",)
    assert batch.prompt_tokens.tolist() == [100]
    for written, read in zip(engine.written * 2, engine.read, strict=True):
        assert read.messages == written.messages  # what was computed is in the cache
        assert read.answer_prefix.endswith("\nMy choice: [")
    assert "My choice:" in engine.sampling["stop"]


def test_lists_of_different_length_share_a_batch(builder) -> None:
    batch = RationaleSimulator(Thinker("B"), builder).choose([SHORT, SCENE])
    np.testing.assert_allclose(batch.probs, [[0.15, 0.7, 0, 0.15], [0.1, 0.7, 0.1, 0.1]])


def test_no_word_is_an_answer_without_reasons(builder) -> None:
    engine = Thinker("")
    batch = RationaleSimulator(engine, builder).choose([SCENE])
    np.testing.assert_allclose(batch.probs, np.full((1, 4), 0.25))
    assert batch.rationales == ("",)
    assert engine.read[0].answer_prefix == "My choice: ["


def test_room_is_kept_for_what_will_be_written(builder) -> None:
    whole = RationaleSimulator(Thinker(), builder)
    whole.choose([SCENE])
    needed = whole.engine.count_tokens(whole.engine.written[0])
    tight = Thinker(context_length=needed + 20)
    RationaleSimulator(tight, builder, Thinking(max_tokens=30)).choose([SCENE])
    assert tight.count_tokens(tight.written[0]) + 46 <= needed + 20
    assert tight.read[0].messages == tight.written[0].messages
    with pytest.raises(SceneError, match="kept free for its answer"):
        RationaleSimulator(Thinker(context_length=200), builder).choose([SCENE])


def test_an_environment_shows_the_words(split, builder) -> None:
    user: UserSimulator = RationaleSimulator(Thinker("C"), builder)
    env = SlateVectorEnv(2, make_world(split, simulator=user), slate_size=3)
    env.reset(seed=0)
    *_, info = env.step(np.array([[1, 2, 3], [4, 5, 6]]))
    assert info["rationales"].tolist() == ["Stimulus: I want C.\nKnowledge: none."] * 2
    np.testing.assert_allclose(info["probabilities"][:, 2], 0.7)


def test_names_tell_settings_apart(builder) -> None:
    names = {
        RationaleSimulator(Thinker(), builder, thinking).name
        for thinking in (Thinking(), Thinking(count=2), Thinking(max_tokens=9), Thinking(seed=1))
    }
    assert len(names) == 4


def test_it_is_asked_for_by_an_option(split, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")  # weights, as far as a name needs them
    folder = str(tmp_path)
    user = make_simulator(folder, split, form="scene", rationales=2, rationale_tokens=8)
    assert user.name.startswith("rationale(")
    with pytest.raises(ConfigError, match="go with readout 'letters'"):
        make_simulator(folder, split, rationales=1, readout="likelihood")
    with pytest.raises(ConfigError, match="permutations"):
        make_simulator(folder, split, rationales=1, permutations=3)
    with pytest.raises(ConfigError, match="rationales"):
        make_simulator(folder, split, rationales=-1)


def test_a_readout_without_letters_never_ignores_it(split) -> None:
    with pytest.raises(ConfigError, match="not with 'affinity'"):
        make_simulator("smollm2-ml100k", split, domain=None, rationales=1)
