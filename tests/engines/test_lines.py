"""The options readout agrees with one plain forward pass at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from usermirror_gym.engines.local.transformers_engine import TransformersEngine
from usermirror_gym.engines.server.server_engine import ServerEngine
from usermirror_gym.errors import CheckpointError, EngineError
from usermirror_gym.types import Prompt

ARCHITECTURES = ["llama", "gpt2", "gemma2", "mamba"]
HEAD = {
    "weight": torch.randn(32, generator=torch.Generator().manual_seed(3)),
    "bias": torch.tensor([0.7]),
}


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("head")
    save_file(HEAD, folder / "head.safetensors")
    return folder


@pytest.fixture
def engine(checkpoints, head) -> Callable[..., TransformersEngine]:
    return lambda kind="llama", **settings: TransformersEngine(
        checkpoints(kind), head=head, device="cpu", **settings
    )


def growing(prompts: list[Prompt]) -> list[Prompt]:
    """The next step of a session: the list stays, a choice and another list follow."""
    return [
        Prompt((), f"{p.answer_prefix}{''.join(p.options)}Chosen: Big\n", p.options[::-1], p.name)
        for p in prompts
    ]


def assert_agrees(scores, prompts, reference, tolerance=1e-4) -> None:
    for prompt, score in zip(prompts, scores, strict=True):
        expected = reference.lines(prompt, HEAD["weight"], HEAD["bias"])
        np.testing.assert_allclose(score.logprobs, expected, atol=tolerance, err_msg=prompt.name)
        assert np.exp(score.logprobs).sum() == pytest.approx(1)


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_batched_cached_and_growing(engine, reference, texts_prompts, kind, side):
    subject = engine(kind, padding_side=side, batch_tokens=300, row_tokens=120)
    for step in (0, 0, 1):  # cold, repeated, grown
        prompts = texts_prompts(step)
        assert_agrees(subject.line_scores(prompts), prompts, reference(kind))
    longer = growing(prompts)
    assert_agrees(subject.line_scores(longer), longer, reference(kind))


@pytest.mark.parametrize("settings", [
    {"cache_tokens": 0},
    {"cache_tokens": 90},
    {"reuse_prefix": False},
    {"batch_tokens": 1},
    {"batch_tokens": 5_000, "row_tokens": 5_000},
])  # fmt: skip
def test_settings_change_the_cost_not_the_answer(engine, reference, texts_prompts, settings):
    subject = engine(**settings)
    for prompts in (texts_prompts(0), texts_prompts(1), growing(texts_prompts(0))):
        assert_agrees(subject.line_scores(prompts), prompts, reference("llama"))


def test_the_readouts_do_not_disturb_each_other(engine, reference, texts_prompts):
    subject, prompts = engine(), texts_prompts()
    for _ in range(2):
        assert_agrees(subject.line_scores(prompts), prompts, reference("llama"))
        for prompt, score in zip(prompts, subject.text_logprobs(prompts), strict=True):
            np.testing.assert_allclose(score.logprobs, reference("llama").texts(prompt), atol=1e-4)


def test_a_later_line_sees_the_earlier_ones(engine):
    first, other = "Heat (1995)\n", "Alien (1979)\n"
    prompts = [Prompt((), "films:\n", (a, "Fargo (1996)\n"), a) for a in (first, other)]
    one, two = engine().line_scores(prompts)
    assert abs(np.subtract(*one.logprobs) - np.subtract(*two.logprobs)) > 1e-3


def test_a_session_pays_for_the_new_list_only(engine, texts_prompts):
    subject, prompts = engine(), texts_prompts()[:3]
    subject.line_scores(prompts)
    for score, prompt in zip(subject.line_scores(growing(prompts)), prompts, strict=True):
        assert score.cached_tokens >= subject.count_lines(prompt) - 1
        assert score.prompt_tokens == subject.count_lines(growing([prompt])[0])


def test_half_precision_is_close(engine, reference, texts_prompts):
    prompts = texts_prompts()
    for score, prompt in zip(engine(dtype="bfloat16").line_scores(prompts), prompts, strict=True):
        expected = reference("llama").lines(prompt, HEAD["weight"], HEAD["bias"])
        assert np.abs(np.exp(score.logprobs) - np.exp(expected)).max() < 0.15


def test_the_name_knows_the_head(engine, checkpoints, head):
    assert f"+{head.name}@" in engine().model_id


def test_adapter_and_head_of_one_folder_are_named_once(checkpoints, make_adapter, reference):
    folder = make_adapter("llama", seed=9)
    save_file(HEAD, folder / "head.safetensors")
    both = TransformersEngine(checkpoints("llama"), adapter=folder, head=folder, device="cpu")
    assert both.model_id.count(folder.name) == 1
    prompt = Prompt((), "films:\n", ("Heat\n", "Alien\n"), "one")
    plain = reference("llama").lines(prompt, HEAD["weight"], HEAD["bias"])
    assert np.abs(both.line_scores([prompt])[0].logprobs - plain).max() > 1e-3


class TestMistakes:
    def test_without_a_head(self, checkpoints):
        bare = TransformersEngine(checkpoints("llama"), device="cpu")
        assert bare.line_scores([]) == []
        with pytest.raises(EngineError, match=r"prompt 'p'.*no option head.*head=FOLDER"):
            bare.line_scores([Prompt((), "a", ("b",), "p")])

    def test_a_head_of_another_width(self, checkpoints, tmp_path):
        save_file({"weight": torch.ones(7), "bias": torch.ones(1)}, tmp_path / "head.safetensors")
        wrong = TransformersEngine(checkpoints("llama"), head=tmp_path, device="cpu")
        with pytest.raises(CheckpointError, match=r"needs weight \(32,\)"):
            wrong.line_scores([Prompt((), "a", ("b",), "p")])

    def test_lines_without_text_or_longer_than_the_context(self, engine):
        with pytest.raises(EngineError, match="option 1 of prompt 'p'"):
            engine().line_scores([Prompt((), "a", ("b", ""), "p")])
        with pytest.raises(EngineError, match="prompt 'p' has no options"):
            engine().line_scores([Prompt((), "a", (), "p")])
        fits_alone = tuple(["film " * 40 + "\n"] * 12)
        with pytest.raises(EngineError, match=r"prompt 'long' has .* the model takes 512"):
            engine().line_scores([Prompt((), "a", fits_alone, "long")])

    def test_servers_cannot_and_say_who_can(self):
        server = ServerEngine("m", base_url="http://localhost:1/v1")
        assert server.line_scores([]) == []
        prompt = Prompt((), "a" * 8, ("b" * 4, "c" * 4), "p")
        assert server.count_lines(prompt) > server.count_tokens(prompt)
        with pytest.raises(EngineError, match=r"prompt 'p'.*engine 'transformers'"):
            server.line_scores([prompt])
