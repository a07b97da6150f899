"""Every fast path answers like one plain forward pass at a time."""

from __future__ import annotations

import numpy as np
import pytest

from usermirror_gym.engines.local.transformers_engine import TransformersEngine
from usermirror_gym.types import Prompt

TOLERANCE = 1e-4  # natural logs, float32; sums over up to a dozen tokens
ARCHITECTURES = ["llama", "gpt2", "gemma2", "mamba"]


@pytest.fixture
def engine(checkpoints):
    return lambda kind="llama", **settings: TransformersEngine(
        checkpoints(kind), device="cpu", **settings
    )


def assert_agrees(scores, prompts, answer, tolerance=TOLERANCE):
    assert len(scores) == len(prompts)
    for score, prompt in zip(scores, prompts, strict=True):
        np.testing.assert_allclose(
            score.logprobs, answer(prompt), atol=tolerance, rtol=0, err_msg=prompt.name
        )


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_letters_batched_cached_and_growing(engine, reference, letters_prompts, kind, side):
    subject = engine(kind, padding_side=side, batch_tokens=300, row_tokens=120)
    for step in (0, 0, 1, 2):  # cold, repeated, grown twice
        prompts = letters_prompts(step)
        scores = subject.choice_logprobs(prompts)
        assert_agrees(scores, prompts, reference(kind).letters)
        assert all(abs(np.exp(s.logprobs).sum() - 1) < 1e-9 for s in scores)


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_texts_batched_cached_and_growing(engine, reference, texts_prompts, kind, side):
    subject = engine(kind, padding_side=side, batch_tokens=300, row_tokens=120)
    for step in (0, 0, 1, 2):
        prompts = texts_prompts(step)
        assert_agrees(subject.text_logprobs(prompts), prompts, reference(kind).texts)


@pytest.mark.parametrize("settings", [
    {"cache_tokens": 0},
    {"cache_tokens": 90},
    {"reuse_prefix": False},
    {"batch_tokens": 1},
    {"batch_tokens": 5_000, "row_tokens": 5_000},
    {"row_tokens": 1},
])  # fmt: skip
def test_settings_change_the_cost_not_the_answer(
    engine, reference, letters_prompts, texts_prompts, settings
):
    subject = engine(**settings)
    for step in (0, 1, 0):
        letters, texts = letters_prompts(step), texts_prompts(step)
        assert_agrees(subject.choice_logprobs(letters), letters, reference("llama").letters)
        assert_agrees(subject.text_logprobs(texts), texts, reference("llama").texts)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_bfloat16_is_close(engine, reference, letters_prompts, kind):
    prompts = letters_prompts()
    subject = engine(kind, dtype="bfloat16")
    assert subject.tree_attention
    errors = [
        np.abs(np.exp(score.logprobs) - np.exp(reference(kind).letters(prompt))).max()
        for score, prompt in zip(subject.choice_logprobs(prompts), prompts, strict=True)
    ]
    assert max(errors) < 0.1  # probabilities
    assert np.mean(errors) < 0.03


@pytest.mark.parametrize(("kind", "exact"), [
    ("llama", True), ("gpt2", True), ("gemma2", True), ("mamba", False),
])  # fmt: skip
def test_architectures_without_exact_tree_attention_are_found(engine, kind, exact):
    assert engine(kind).tree_attention is exact


def test_a_body_that_ignores_masks_is_found(engine, reference, texts_prompts):
    subject = engine()
    body = subject._model.base_model
    forward = body.forward
    body.forward = lambda attention_mask=None, **kw: forward(
        attention_mask=attention_mask
        if attention_mask is None or attention_mask.ndim < 4
        else None,
        **kw,
    )
    assert not subject.tree_attention
    prompts = texts_prompts()
    assert_agrees(subject.text_logprobs(prompts), prompts, reference("llama").texts)


def test_one_option_and_equal_prompts(engine, reference):
    once = Prompt((), "films of 1\nHeat", (" (1995)",), "once")
    prompts = [once, Prompt((), "films of 1\nHeat", (" (1995)", " (1996)", "x"), "more"), once]
    assert_agrees(engine().text_logprobs(prompts), prompts, reference("llama").texts)
    single = Prompt((), "Behavior: [", ("A",), "single")
    assert engine().choice_logprobs([single])[0].logprobs == pytest.approx([0.0])
    assert engine().choice_logprobs([]) == []


@pytest.mark.slow
def test_real_smollm2_agrees():
    from usermirror_gym.engines import DEFAULT_CHECKPOINT, resolve_checkpoint
    from usermirror_gym.types import Message

    folder = resolve_checkpoint(DEFAULT_CHECKPOINT)
    # The reference of conftest, on the real weights.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    titles = [f"{t} ({1950 + i})" for i, t in enumerate(["Heat", "The Cube", "Alien", "Ran"] * 3)]
    prompts = [
        Prompt(
            (
                Message("system", "You are a film lover."),
                Message("user", "I watched:\n" + "\n".join(titles[: 6 + user])),
            ),
            "Next I watch: ",
            tuple(titles[slate : slate + 4]),
            f"{user}, {slate}",
        )
        for user in range(3)
        for slate in range(2)
    ]
    engine = TransformersEngine(folder, device="cpu")
    for _ in range(2):
        scores = engine.text_logprobs(prompts)
        for prompt, score in zip(prompts, scores, strict=True):
            text = tokenizer.apply_chat_template(
                [{"role": m.role, "content": m.content} for m in prompt.messages],
                tokenize=False,
                add_generation_prompt=True,
            )
            start = tokenizer(text, add_special_tokens=False)["input_ids"]
            start += tokenizer("Next I watch: ", add_special_tokens=False)["input_ids"]
            for option, found in zip(prompt.options, score.logprobs, strict=True):
                rest = tokenizer(option, add_special_tokens=False)["input_ids"]
                with torch.no_grad():
                    table = model(torch.tensor([start + rest])).logits[0].double().log_softmax(-1)
                places = range(len(start) - 1, len(start) + len(rest) - 1)
                wanted = sum(float(table[i, t]) for i, t in zip(places, rest, strict=True))
                assert found == pytest.approx(wanted, abs=2e-3)
    assert engine.tree_attention
    assert engine.context_length == 8192
