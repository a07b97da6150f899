"""Contract tests that every engine inherits.

    class TestMyEngine(EngineContract):
        def make_engine(self):
            return MyEngine(...)

pytest collects the inherited tests.  An engine that needs fixtures overrides the fixture ``engine``
instead.  The prompts are short and generic, so any instruction-tuned or base
model that reads English letters will do.
"""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from usermirror_gym.engines.base import Engine
from usermirror_gym.errors import EngineError
from usermirror_gym.types import Message, Prompt

_engines: dict[type, Engine] = {}
_TITLES = ("Heat", "Alien", "Fargo", "Jaws", "Big")


def letters_prompt(user: int, k: int = 4, *, hostile: str = "") -> Prompt:
    """A question that is answered by a letter."""
    lines = "\n".join(f"[{'ABCDE'[j]}] {_TITLES[(user + j) % 5]}{hostile}" for j in range(k))
    messages = (Message("system", "You like films."), Message("user", f"I am {user}.\n{lines}"))
    return Prompt(messages, "Choice: [", tuple("ABCDE"[:k]), f"letters {user}")


def texts_prompt(user: int, k: int = 4) -> Prompt:
    """A question that is answered by a text."""
    history = "".join(f"{_TITLES[(user + i) % 5]}\n" for i in range(1 + user % 3))
    options = tuple(f"{_TITLES[(user + j) % 5]} {j}\n" for j in range(k))
    return Prompt((), f"Films of {user}:\n{history}", options, f"texts {user}")


class EngineContract:
    """What :class:`usermirror_gym.engines.Engine` promises, as tests; override ``make_engine``."""

    tolerance = 1e-3
    """How much a log-probability may depend on the batch it is computed in."""

    def make_engine(self) -> Engine:
        """The engine under test; made once per class."""
        raise NotImplementedError("override make_engine() to return your engine")

    @pytest.fixture
    def engine(self) -> Engine:
        """One engine for all tests of a class."""
        if type(self) not in _engines:
            _engines[type(self)] = self.make_engine()
        return _engines[type(self)]

    def test_it_names_itself_and_its_limit(self, engine: Engine) -> None:
        """Logs need a name, prompts a budget."""
        assert engine.model_id
        assert engine.context_length > 0

    def test_it_can_be_sent_to_another_process(self, engine: Engine) -> None:
        """Environments around it are, to the workers of a vector."""
        assert pickle.loads(pickle.dumps(engine)).model_id == engine.model_id

    def test_letters_are_a_distribution_over_the_options(self, engine: Engine) -> None:
        """One normalised row per prompt, as long as its options."""
        prompts = [letters_prompt(u, k) for u, k in enumerate((1, 2, 5, 4))]
        for prompt, score in zip(prompts, engine.choice_logprobs(prompts), strict=True):
            assert score.logprobs.shape == (len(prompt.options),)
            assert np.exp(score.logprobs).sum() == pytest.approx(1.0, abs=1e-6)
            assert score.n_tokens.tolist() == [1] * len(prompt.options)
            assert 0 <= score.cached_tokens <= score.prompt_tokens

    def test_the_batch_and_its_order_do_not_matter(self, engine: Engine) -> None:
        """Each prompt has its own answer, wherever it stands and whatever is cached."""
        for ask, make in (
            (engine.choice_logprobs, letters_prompt),
            (engine.text_logprobs, texts_prompt),
        ):
            prompts = [make(u) for u in range(5)]
            together, reverse = ask(prompts), ask(prompts[::-1])[::-1]
            alone = [ask([prompt])[0] for prompt in prompts]
            for a, b, c in zip(together, reverse, alone, strict=True):
                np.testing.assert_allclose(a.logprobs, b.logprobs, atol=self.tolerance)
                np.testing.assert_allclose(a.logprobs, c.logprobs, atol=self.tolerance)

    def test_texts_add_up_over_their_parts(self, engine: Engine) -> None:
        """log p(ab | x) = log p(a | x) + log p(b | xa), where tokens do not merge."""
        start, a, b = "Films:\nHeat\n", "Alien\n", "Fargo\n"
        whole, first, second = engine.text_logprobs(
            [
                Prompt((), start, (a + b,), "whole"),
                Prompt((), start, (a,), "first"),
                Prompt((), start + a, (b,), "second"),
            ]
        )
        parts = first.logprobs[0] + second.logprobs[0]
        assert whole.logprobs[0] == pytest.approx(parts, abs=2 * self.tolerance)
        assert whole.logprobs[0] < 0

    def test_markup_in_data_is_plain_text(self, engine: Engine) -> None:
        """A title that spells a special token costs several tokens and is answered."""
        tame, hostile = letters_prompt(1), letters_prompt(1, hostile="<|im_end|>")
        assert engine.count_tokens(hostile) > engine.count_tokens(tame) + 4
        assert np.isfinite(engine.choice_logprobs([hostile])[0].logprobs).all()

    def test_a_long_prompt_is_an_error_that_names_it(self, engine: Engine) -> None:
        """Never a silent truncation."""
        long = Prompt((), "film 1 " * engine.context_length, ("A",), "the long one")
        with pytest.raises(EngineError, match="the long one"):
            engine.text_logprobs([texts_prompt(0), long])

    def test_an_option_that_is_no_letter_is_an_error(self, engine: Engine) -> None:
        """A letter must be one token."""
        words = Prompt((), "Choice: [", ("A", "Behold, several words"), "the wordy one")
        with pytest.raises(EngineError, match="the wordy one"):
            engine.choice_logprobs([words])

    def test_samples_depend_on_the_seed_only(self, engine: Engine) -> None:
        """Same seed, same texts, in any batch."""
        prompts = [texts_prompt(u) for u in range(2)]
        together = engine.generate(prompts, n=2, max_tokens=4, seed=5)
        alone = [engine.generate([p], n=2, max_tokens=4, seed=5)[0] for p in prompts]
        assert together == alone
        assert [len(texts) for texts in together] == [2, 2]

    def test_lines_are_read_alone(self, engine: Engine) -> None:
        """The states of a line are its own, or the engine says that it has none to give."""
        lines = [f"{title}, {'a film ' * i}\n" for i, title in enumerate(_TITLES)]
        try:
            together = engine.item_hidden_states(
                lines, head="Films:\n", parts=((1, "mean"), (0, "last"))
            )
        except EngineError as error:
            pytest.skip(str(error))
        assert together.dtype == np.float32
        assert together.shape[0] == len(lines)
        for line, states in zip(lines, together, strict=True):
            alone = engine.item_hidden_states(
                [line], head="Films:\n", parts=((1, "mean"), (0, "last"))
            )
            size = np.abs(states).max()
            np.testing.assert_allclose(alone[0], states, atol=self.tolerance * size)

    def test_no_prompts_no_answers(self, engine: Engine) -> None:
        """An empty call is not an error."""
        assert engine.choice_logprobs([]) == []
        assert engine.text_logprobs([]) == []
        assert engine.line_scores([]) == []
        assert engine.generate([]) == []
