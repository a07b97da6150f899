"""Answers that do not depend on earlier calls, for runs that are resumed."""

from __future__ import annotations

import numpy as np

from usermirror_gym.engines.choosing import load_engine


def test_after_forgetting_everything_is_computed_again_to_the_last_bit(
    checkpoints, letters_prompts
) -> None:
    engine = load_engine(str(checkpoints("llama")), device="cpu")
    engine.forget()  # nothing is loaded yet
    prompts = letters_prompts()

    def ask() -> tuple[np.ndarray, int]:
        before = engine.usage.computed_tokens
        scores = engine.choice_logprobs(prompts)
        return np.concatenate([s.logprobs for s in scores]), engine.usage.computed_tokens - before

    first, computed = ask()
    assert ask()[1] < computed
    engine.choice_logprobs(letters_prompts(step=2))
    engine.forget()
    again, computed_again = ask()
    np.testing.assert_array_equal(again, first)
    assert computed_again == computed
