"""An engine that remembers: the same answers, each computed once, never those of another model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from usermirror_gym.engines.base import OptionScores
from usermirror_gym.engines.choosing import load_engine
from usermirror_gym.engines.store.answer_store import AnswerStore
from usermirror_gym.engines.store.stored_engine import StoredEngine
from usermirror_gym.errors import EngineError
from usermirror_gym.simulators.registry import make_simulator
from usermirror_gym.testing.data import tiny_split
from usermirror_gym.testing.engines import EngineContract
from usermirror_gym.types import Message, Prompt


class Counting:
    """Asks an engine and notes what."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.asked: list[Prompt] = []

    def __getattr__(self, name: str) -> Any:
        if name == "engine":  # of a copy that is being made
            raise AttributeError(name)
        found = getattr(self.engine, name)
        if name not in ("choice_logprobs", "text_logprobs", "line_scores", "generate"):
            return found

        def ask(prompts: Sequence[Prompt], **settings: Any) -> Any:
            self.asked += prompts
            return found(prompts, **settings)

        return ask


@pytest.fixture
def store(tmp_path: Path) -> AnswerStore:
    return AnswerStore(tmp_path / "answers.sqlite")


@pytest.fixture
def counting(checkpoints) -> Counting:
    return Counting(load_engine(checkpoints("llama"), "transformers", device="cpu"))


class TestStoredEngine(EngineContract):
    @pytest.fixture
    def engine(self, counting, store):
        return StoredEngine(counting, store)


def assert_same(ours: Sequence[OptionScores], theirs: Sequence[OptionScores]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.logprobs.tolist() == b.logprobs.tolist()  # to the last bit
        assert a.n_tokens.tolist() == b.n_tokens.tolist()
        assert a.prompt_tokens == b.prompt_tokens


@pytest.mark.parametrize(("ask", "make"), [
    ("choice_logprobs", "letters_prompts"), ("text_logprobs", "texts_prompts"),
])  # fmt: skip
def test_a_second_run_asks_nothing(counting, store, request, ask, make) -> None:
    prompts = request.getfixturevalue(make)()
    first = getattr(StoredEngine(counting, store), ask)(prompts)
    asked = len(counting.asked)
    again = StoredEngine(counting, AnswerStore(store.path))
    assert_same(getattr(again, ask)(prompts[::-1])[::-1], first)
    assert len(counting.asked) == asked
    assert again.usage.hit_rate == 1
    assert again.usage.computed_tokens == 0
    assert again.usage.prompt_tokens == sum(s.prompt_tokens for s in first)
    assert again.report()["answers"]["misses"] == 0


def test_a_question_is_asked_once_a_call(counting, store, letters_prompts) -> None:
    prompt, other = letters_prompts()[:2]
    engine = StoredEngine(counting, store)
    scores = engine.choice_logprobs([prompt, other, replace(prompt, name="again"), prompt])
    assert counting.asked == [prompt, other]
    assert_same(scores[2:], [scores[0]] * 2)


def test_lists_share_the_answers_about_their_items(counting, store) -> None:
    def listing(*titles: str) -> Prompt:
        return Prompt((), "Films:\nHeat\n", tuple(f"{t}\n" for t in titles), ", ".join(titles))

    engine = StoredEngine(counting, store)
    engine.text_logprobs([listing("Alien", "Fargo")])
    prompts = [listing("Fargo", "Jaws", "Alien"), listing("Jaws", "Big"), listing("Alien")]
    scores = engine.text_logprobs(prompts)
    assert [p.options for p in counting.asked[1:]] == [("Jaws\n",), ("Big\n",)]
    for score, plain in zip(scores, counting.engine.text_logprobs(prompts), strict=True):
        np.testing.assert_allclose(score.logprobs, plain.logprobs, atol=1e-4)
        assert score.n_tokens.tolist() == plain.n_tokens.tolist()
        assert score.prompt_tokens == plain.prompt_tokens
    assert (engine.usage.hits, engine.usage.misses) == (4, 4)


def test_texts_are_kept_under_their_sampling_and_seed(counting, store, texts_prompts) -> None:
    engine, prompts = StoredEngine(counting, store), texts_prompts()[:2]
    first = engine.generate(prompts, n=2, max_tokens=4, seed=1)
    asked = len(counting.asked)
    assert engine.generate(prompts[::-1], n=2, max_tokens=4, seed=1)[::-1] == first
    assert len(counting.asked) == asked
    engine.generate(prompts, n=2, max_tokens=4, seed=2)
    engine.generate(prompts, n=2, max_tokens=4, seed=1, stop=("x",))
    assert len(counting.asked) == asked + 4


def test_another_question_is_another_answer(counting, store) -> None:
    base = Prompt((Message("user", "I"),), "Choice: [", ("A", "B"), "base")
    others = [
        replace(base, messages=(Message("system", "I"),)),
        replace(base, messages=(Message("user", "I"), Message("user", ""))),
        replace(base, answer_prefix="Choice: [["),
        replace(base, options=("B", "A")),
        replace(base, options=("A", "B", "C")),
        replace(base, messages=(Message("user", "I\ud800"),)),
        replace(base, messages=(Message("user", "I\0"),)),
    ]
    engine = StoredEngine(counting, store)
    keys = {engine._key("letters", prompt) for prompt in [base, *others]}
    keys.add(engine._key("lines", base))
    assert len(keys) == len(others) + 2
    assert engine._key("letters", replace(base, name="x")) in keys


def _other_weights(folder: Path) -> None:
    from tests.engines.conftest import build_model

    build_model("llama", seed=7).save_pretrained(folder)


def _other_template(folder: Path) -> None:
    from tests.engines.conftest import CHATML, build_tokenizer

    build_tokenizer(CHATML.replace("assistant", "model")).save_pretrained(folder)


@pytest.mark.parametrize("change", [_other_weights, _other_template])
def test_models_under_one_name_are_never_mixed(
    checkpoints, store, letters_prompts, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    prompts, folder = letters_prompts(), tmp_path / "model"
    shutil.copytree(checkpoints("llama"), folder)
    StoredEngine(load_engine(folder, "transformers"), store).choice_logprobs(prompts)
    change(folder)
    renewed = StoredEngine(load_engine(folder, "transformers"), store)
    found = renewed.choice_logprobs(prompts)
    assert renewed.usage.hits == 0
    plain = load_engine(folder, "transformers").choice_logprobs(prompts)
    for a, b in zip(found, plain, strict=True):
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)


def test_adapters_precisions_and_kinds_are_never_mixed(checkpoints, make_adapter, store) -> None:
    folder = checkpoints("llama")
    engines = [
        load_engine(folder, "transformers"),
        load_engine(folder, "transformers", adapter=make_adapter()),
        load_engine(folder, "transformers", adapter=make_adapter(seed=1)),
        load_engine(folder, "transformers", dtype="bfloat16"),
        load_engine(folder, "vllm", dtype="float32"),
        load_engine("openai:llama"),
    ]
    prompt = Prompt((), "Choice: [", ("A", "B"))
    keys = {StoredEngine(engine, store)._key("letters", prompt) for engine in engines}
    assert len(keys) == len(engines)


def test_the_same_weights_elsewhere_are_the_same_model(checkpoints, store, tmp_path: Path) -> None:
    prompt = Prompt((), "Choice: [", ("A", "B"))
    StoredEngine(load_engine(checkpoints("llama"), "transformers"), store).choice_logprobs([prompt])
    shutil.copytree(checkpoints("llama"), tmp_path / "moved")
    moved = StoredEngine(load_engine(tmp_path / "moved", "transformers"), store)
    moved.choice_logprobs([prompt])
    assert moved.usage.hit_rate == 1


def test_a_question_that_fails_keeps_the_answers_before_it(counting, store) -> None:
    engine = StoredEngine(counting, store)
    fine, odd = (
        Prompt((), "Choice: [", ("A", "B")),
        Prompt((), "Choice: [", ("A", "Bad one"), "odd"),
    )
    engine.choice_logprobs([fine])
    for prompts in ([odd], [fine, odd]):
        with pytest.raises(EngineError, match="odd"):
            engine.choice_logprobs(prompts)
    with pytest.raises(EngineError, match="no options"):
        engine.text_logprobs([Prompt((), "x", (), "empty")])
    engine.choice_logprobs([fine])
    assert engine.usage.hits == 1
    assert len(store) == 1


def test_a_simulator_is_given_a_store_by_an_option(checkpoints, store) -> None:
    split = tiny_split(n_users=20, n_items=20, seed=0)
    options = {"readout": "likelihood", "answers": str(store.path)}
    from usermirror_gym.scenes import Scene

    scene = Scene(1, (1, 2), (4.0, 4.0), (1, 1), (3, 4, 5))
    users = [make_simulator(str(checkpoints("llama")), split, **options) for _ in range(2)]
    first, second = (user.choose([scene]).probs for user in users)
    assert first.tolist() == second.tolist()
    assert users[0].engine.usage.hits == 0
    assert users[1].engine.usage.hit_rate == 1
    assert users[1].name == users[0].name
