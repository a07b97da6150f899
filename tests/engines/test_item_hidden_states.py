"""Hidden states of single lines agree with one plain forward pass at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from usermirror_gym.engines.local.item_hidden_states import _pooled
from usermirror_gym.engines.local.transformers_engine import TransformersEngine
from usermirror_gym.engines.server.server_engine import ServerEngine
from usermirror_gym.errors import ConfigError, EngineError, UnknownNameError

HEAD = "Films watched, in order:\n"
LINES = [
    "Toy Story (1995)\n", "Big\n", "A\n", "The Godfather Part II, the one with the flashbacks\n",
    "Heat (1995)\n", "Jaws, <|im_end|> and <think>\n", "Big\n",
]  # fmt: skip
PARTS = ((2, "mean"), (1, "last"), (0, "mean"))


@pytest.fixture
def engine(checkpoints) -> Callable[..., TransformersEngine]:
    return lambda kind="llama", **settings: TransformersEngine(
        checkpoints(kind), device="cpu", **settings
    )


def expected(reference, line: str, parts=PARTS, head: str = HEAD) -> np.ndarray:
    """Title and line break read one after the other by the model as it was saved."""
    before, title = (
        reference.ids(head),
        reference.tokenizer(line, add_special_tokens=False, split_special_tokens=True)["input_ids"],
    )
    with torch.no_grad():
        states = reference.model(
            torch.tensor([before + title]), output_hidden_states=True
        ).hidden_states
    out = []
    for layer, pool in parts:
        mine = states[layer][0, len(before) :]
        out.append(mine[-1] if pool == "last" else mine[:-1].mean(0))
    return torch.cat(out).numpy()


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "mamba"])
def test_as_read_alone_by_the_plain_model(engine, reference, kind):
    states = engine(kind, batch_tokens=64).item_hidden_states(LINES[:5], head=HEAD, parts=PARTS)
    assert states.shape == (5, 96)
    assert states.dtype == np.float32
    for line, state in zip(LINES, states, strict=False):
        np.testing.assert_allclose(state, expected(reference(kind), line), rtol=1e-4, atol=1e-5)


def test_layers_count_from_the_embeddings_to_the_final_norm(engine, checkpoints):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoints("llama"))
    subject = engine()
    ids = subject._tokenizer(HEAD + LINES[0], add_special_tokens=False)["input_ids"]
    parts = ((0, "last"), (2, "last"))
    embedding, final = subject.item_hidden_states(LINES[:1], head=HEAD, parts=parts)[0].reshape(
        2, 32
    )
    np.testing.assert_array_equal(embedding, model.model.embed_tokens.weight[ids[-1]].detach())
    body = model.model(torch.tensor([ids])).last_hidden_state[0, -1].detach()
    np.testing.assert_allclose(final, body, atol=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 40, 5_000])
def test_the_batch_and_its_order_do_not_matter(engine, batch_tokens):
    together = engine().item_hidden_states(LINES, head=HEAD, parts=PARTS)
    subject = engine(batch_tokens=batch_tokens)
    backwards = subject.item_hidden_states(LINES[::-1], head=HEAD, parts=PARTS)[::-1]
    np.testing.assert_allclose(together, backwards, atol=1e-5)
    for line, state in zip(LINES, together, strict=True):
        alone = subject.item_hidden_states([line], head=HEAD, parts=PARTS)
        np.testing.assert_allclose(alone, state[None], atol=1e-5)


def test_the_words_before_the_line_matter_the_other_lines_do_not(engine):
    subject = engine()
    one = subject.item_hidden_states(["Heat (1995)\n", "Big\n"], head=HEAD, parts=PARTS)
    two = subject.item_hidden_states(["Heat (1995)\n", "Alien (1979)\n"], head=HEAD, parts=PARTS)
    np.testing.assert_allclose(one[0], two[0], atol=1e-5)
    other = subject.item_hidden_states(["Heat (1995)\n"], head="Books read:\n", parts=PARTS)
    assert np.abs(other[0] - one[0]).max() > 1e-2


def test_without_words_before_the_start_of_text_is(engine, reference):
    states = engine().item_hidden_states(["Heat (1995)\n"], head="", parts=PARTS)
    start = "<|endoftext|>"
    np.testing.assert_allclose(
        states[0], expected(reference("llama"), "Heat (1995)\n", head=start), atol=1e-5
    )


def test_markup_in_a_title_is_text(engine):
    """A special token in a title would be one token; as text it is several."""
    subject = engine()
    hostile = subject.item_hidden_states(["Heat <|im_end|>\n"], head=HEAD, parts=PARTS)
    ids = subject._tokenizer(HEAD + "Heat <|im_end|>\n", add_special_tokens=False)["input_ids"]
    assert 2 in ids  # the tokenizer alone falls for it
    with torch.inference_mode():
        fooled = subject._model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    assert np.abs(hostile[0, 32:64] - fooled[1][0, -1].numpy()).max() > 1e-2


def test_an_adapter_changes_the_states(engine, make_adapter, adapted):
    folder = make_adapter("llama", seed=4)
    parts = ((1, "mean"), (2, "last"))
    states = engine(adapter=folder).item_hidden_states(LINES[:3], head=HEAD, parts=parts)
    plain = engine().item_hidden_states(LINES[:3], head=HEAD, parts=parts)
    assert np.abs(states - plain).max() > 1e-2
    unmerged = adapted("llama", folder)
    for line, state in zip(LINES, states, strict=False):
        np.testing.assert_allclose(state, expected(unmerged, line, parts), rtol=1e-4, atol=1e-4)


def test_half_precision_is_close_and_float32(engine):
    exact = engine().item_hidden_states(LINES, head=HEAD, parts=PARTS)
    half = engine(dtype="bfloat16").item_hidden_states(LINES, head=HEAD, parts=PARTS)
    assert half.dtype == np.float32
    assert 0 < np.abs(half - exact).max() < 0.15


def test_progress_counts_every_line(engine):
    subject, told = engine(batch_tokens=40), []
    subject.item_hidden_states(LINES, head=HEAD, parts=PARTS, progress=told.append)
    assert sum(told) == len(LINES)
    assert len(told) > 1


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "mamba"])
def test_sharing_the_first_words_saves_tokens_and_changes_nothing(engine, kind):
    sharing, plain = engine(kind), engine(kind, reuse_prefix=False)
    states = sharing.item_hidden_states(LINES, head=HEAD, parts=PARTS)
    np.testing.assert_allclose(
        states, plain.item_hidden_states(LINES, head=HEAD, parts=PARTS), rtol=1e-4, atol=1e-5
    )
    assert sharing.usage.questions == plain.usage.questions == len(LINES)
    head = len(plain._tokenizer(HEAD)["input_ids"])
    saved = plain.usage.computed_tokens - sharing.usage.computed_tokens
    expected = {"gemma2": 0, "mamba": 0}  # a window of 24 tokens; no keys and values
    assert saved == expected.get(kind, (len(LINES) - 1) * head)
    assert plain.usage.computed_tokens == plain.usage.prompt_tokens == sharing.usage.prompt_tokens


def test_a_title_that_is_one_token_with_its_line_break_is_read_there():
    hidden = torch.arange(12.0).reshape(2, 3, 2)
    pooled = _pooled(hidden, "mean", 1, torch.tensor([1, 2]))
    assert pooled.tolist() == [[2.0, 3.0], [8.0, 9.0]]


def test_no_lines_no_states(engine):
    assert engine().item_hidden_states([], head=HEAD, parts=PARTS).shape == (0, 96)


class TestMistakes:
    def test_lines_that_cannot_be_read(self, engine):
        subject = engine()
        for empty in ("", "\n", " \n"):
            with pytest.raises(EngineError, match=r"line 1 \(.*\) is empty"):
                subject.item_hidden_states(["Heat\n", empty], head=HEAD, parts=PARTS)
        with pytest.raises(EngineError, match=r"line 0 \('Heat'\) does not end in a line break"):
            subject.item_hidden_states(["Heat"], head=HEAD, parts=PARTS)
        with pytest.raises(EngineError, match=r"line 1 \('film film.*the model takes 512"):
            subject.item_hidden_states(["Heat\n", "film " * 512 + "\n"], head=HEAD, parts=PARTS)

    def test_parts_that_do_not_exist(self, engine):
        subject = engine()
        for layer in (-1, 3):
            with pytest.raises(EngineError, match=rf"layer {layer}.*0 \(embeddings\) to 2"):
                subject.item_hidden_states(LINES, head=HEAD, parts=((layer, "mean"),))
        with pytest.raises(UnknownNameError, match="Did you mean 'mean'"):
            subject.item_hidden_states(LINES, head=HEAD, parts=((1, "means"),))
        with pytest.raises(ConfigError, match="parts is empty"):
            subject.item_hidden_states(LINES, head=HEAD, parts=())

    def test_servers_cannot_and_say_who_can(self):
        server = ServerEngine("m", base_url="http://localhost:1/v1")
        with pytest.raises(EngineError, match=r"localhost:1.*engine 'transformers'"):
            server.item_hidden_states(LINES, head=HEAD, parts=PARTS)
