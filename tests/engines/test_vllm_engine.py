"""vLLM in process answers like transformers.  Needs vLLM: ``make test-vllm``."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from usermirror_gym.engines import DEFAULT_CHECKPOINT, resolve_checkpoint
from usermirror_gym.engines.choosing import load_engine
from usermirror_gym.engines.local.transformers_engine import TransformersEngine
from usermirror_gym.errors import CheckpointError, EngineError
from usermirror_gym.testing.engines import EngineContract
from usermirror_gym.types import Message, Prompt

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]
TOLERANCE = 1e-3
"""Absolute, on probabilities."""
TITLES = ["Heat", "Alien", "Fargo", "Jaws", "Big", "Ran", "The Cube", "Brazil"]
WITHOUT_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}"
    "{% endif %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def weights() -> Path:
    return resolve_checkpoint(DEFAULT_CHECKPOINT)


@pytest.fixture(scope="module")
def vllm_engine(weights: Path) -> Any:
    return load_engine(weights, kind="vllm", context_length=1024)


@pytest.fixture(scope="module")
def engine(weights: Path) -> TransformersEngine:
    return TransformersEngine(weights, device="cpu")


class TestVLLMEngine(EngineContract):
    tolerance = 2e-3

    @pytest.fixture
    def engine(self, vllm_engine):
        return vllm_engine


def question(user: int, slate: int, *, films: int = 20, prefix: str = "Behavior: [") -> Prompt:
    history = "\n".join(f"{TITLES[(user * 3 + i * i) % 8]} ({1950 + i})" for i in range(films))
    lines = "\n".join(f"[{'ABCDE'[j]}] {TITLES[(slate + j) % 8]}" for j in range(5))
    return Prompt(
        (Message("system", "You like films."), Message("user", f"I watched\n{history}\n\n{lines}")),
        prefix, tuple("ABCDE"), f"user {user}, slate {slate}",
    )  # fmt: skip


def texts(user: int, slate: int) -> Prompt:
    history = "".join(f"{TITLES[(user * 3 + i * i) % 8]} ({1950 + i})\n" for i in range(50))
    options = tuple(f"{TITLES[(slate + j) % 8]} (1989)\n" for j in range(4))
    return Prompt((), f"Films of {user}:\n{history}", options, f"user {user}, slate {slate}")


def assert_same_choices(ours: list[Any], theirs: list[Any]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert np.exp(a.logprobs).sum() == pytest.approx(1, abs=1e-9)
        np.testing.assert_allclose(np.exp(a.logprobs), np.exp(b.logprobs), atol=TOLERANCE)


def test_letters_are_those_of_transformers(vllm_engine, engine):
    prompts = [question(u, s) for s in range(4) for u in range(4)]
    assert_same_choices(vllm_engine.choice_logprobs(prompts), engine.choice_logprobs(prompts))
    spaced = [replace(question(u, 0, prefix="I choose"), options=(" A", " B", " C"))
              for u in range(3)]  # fmt: skip
    assert_same_choices(vllm_engine.choice_logprobs(spaced), engine.choice_logprobs(spaced))


def test_vllm_itself_normalises_over_the_letters(vllm_engine):
    """What it tells must come from behind the mask; the engine normalises in any case."""
    prompt = question(0, 0)
    ids = vllm_engine._encoder.encode(prompt)
    from usermirror_gym.engines.local import vllm_engine as module

    letters = tuple(option[0] for option in ids.options)
    (out,) = vllm_engine._ask([ids.prefix], [module._letters(letters)])
    told = module._letter_values(out, letters, ids)
    assert np.exp(told).sum() == pytest.approx(1, abs=1e-4)


def test_shared_beginnings_come_from_the_cache(vllm_engine):
    prompts = [question(7, s, films=40) for s in range(4)]
    vllm_engine.choice_logprobs(prompts[:1])
    scores = vllm_engine.choice_logprobs(prompts[1:])
    assert all(s.cached_tokens >= 128 for s in scores)


def test_texts_are_those_of_transformers_whatever_is_cached(vllm_engine, engine):
    prompts = [texts(u, s) for u in range(3) for s in range(2)]
    theirs = engine.text_logprobs(prompts)
    assert vllm_engine._reads_tails  # this version takes prefixes from the cache
    for _ in range(3):  # the third time everything is in the cache
        ours = vllm_engine.text_logprobs(prompts)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a.logprobs, b.logprobs, atol=2e-3)
            assert a.n_tokens.tolist() == b.n_tokens.tolist()
    assert sum(s.cached_tokens for s in ours) > 0


def test_a_text_that_is_in_the_cache_as_a_whole_is_computed_anew(vllm_engine, engine):
    ids = vllm_engine._encoder.encode(texts(0, 0)).prefix
    blocks = 128 * (len(ids) // 128)
    option = vllm_engine._tokenizer.decode(ids[blocks - 3 : blocks])
    start = vllm_engine._tokenizer.decode(ids[: blocks - 3])
    longer = Prompt((), start + option, (" and so on",), "fills the cache")
    asked = Prompt((), start, (option,), "ends where a block ends")
    vllm_engine.text_logprobs([longer])
    for _ in range(2):
        (ours,), (theirs,) = (e.text_logprobs([asked]) for e in (vllm_engine, engine))
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=2e-3)


def test_prompts_at_the_limit(vllm_engine, engine):
    room = vllm_engine.context_length
    filler = "film " * 2000

    def of_length(n: int) -> Prompt:
        bare = Prompt((), "", ("A", "B"), "the long one")
        low, high = 1, len(filler)
        while low < high:
            middle = (low + high + 1) // 2
            fits = vllm_engine.count_tokens(replace(bare, answer_prefix=filler[:middle])) <= n
            low, high = (middle, high) if fits else (low, middle - 1)
        return replace(bare, answer_prefix=filler[:low])

    full = of_length(room)
    assert vllm_engine.count_tokens(full) == room
    assert_same_choices(vllm_engine.choice_logprobs([full]), engine.choice_logprobs([full]))
    with pytest.raises(EngineError, match="the long one"):
        vllm_engine.choice_logprobs([of_length(room + 1)])


def test_templates_without_a_system_role(weights, tmp_path):
    folder = variant(weights, tmp_path / "without-system", chat_template=WITHOUT_SYSTEM)
    prompts = [question(u, 1) for u in range(3)]
    ours = load_engine(folder, kind="vllm", context_length=1024)
    assert_same_choices(
        ours.choice_logprobs(prompts), TransformersEngine(folder).choice_logprobs(prompts)
    )


def test_adapters_and_heads(weights, tmp_path):
    adapter, head = trained_parts(weights, tmp_path)
    parts = {"adapter": adapter, "head": head}
    ours = load_engine(weights, kind="vllm", context_length=1024, **parts)
    theirs = TransformersEngine(weights, device="cpu", **parts)
    plain = TransformersEngine(weights, device="cpu")
    prompts = [question(u, 2) for u in range(3)]
    found = theirs.choice_logprobs(prompts)
    assert_same_choices(ours.choice_logprobs(prompts), found)
    changed = [np.exp(a.logprobs) - np.exp(b.logprobs)
               for a, b in zip(found, plain.choice_logprobs(prompts), strict=True)]  # fmt: skip
    assert np.abs(changed).max() > 10 * TOLERANCE  # the adapter matters
    lines = [texts(u, 1) for u in range(3)]
    assert_same_choices(ours.line_scores(lines), theirs.line_scores(lines))
    assert ours.model_id == f"{theirs.model_id}/vllm"


def test_what_vllm_cannot_do_names_what_can(vllm_engine):
    with pytest.raises(EngineError, match="'transformers' for the affinity readout"):
        vllm_engine.item_hidden_states(["Heat\n"], head="", parts=((1, "mean"),))
    with pytest.raises(EngineError, match="no option head"):
        vllm_engine.line_scores([texts(0, 0)])


def test_weights_that_vllm_cannot_load(tmp_path, weights):
    folder = variant(weights, tmp_path / "odd", architectures=["NobodyKnowsForCausalLM"],
                     model_type="nobody-knows")  # fmt: skip
    with pytest.raises(CheckpointError, match="transformers"):
        load_engine(folder, kind="vllm").choice_logprobs([question(0, 0)])


def variant(weights: Path, folder: Path, chat_template: str | None = None, **config: Any) -> Path:
    """The same weights under another chat template or configuration."""
    folder.mkdir()
    for path in weights.iterdir():
        (folder / path.name).symlink_to(path)
    if config:
        content = json.loads((weights / "config.json").read_text()) | config
        (folder / "config.json").unlink()
        (folder / "config.json").write_text(json.dumps(content))
    if chat_template is not None:
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        (folder / "chat_template.jinja").write_text(chat_template)
        settings = json.loads((weights / "tokenizer_config.json").read_text())
        settings.pop("chat_template", None)
        (folder / "tokenizer_config.json").unlink()
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def trained_parts(weights: Path, folder: Path) -> tuple[Path, Path]:
    """A LoRA adapter and an option head with random numbers."""
    import peft
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
    size = model.config.hidden_size
    settings = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    wrapped = peft.get_peft_model(model, settings)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data = 0.02 * torch.randn(parameter.shape, generator=generator)
    wrapped.save_pretrained(folder / "adapter", save_embedding_layers=False)
    (folder / "head").mkdir()
    weight = torch.randn(size, generator=generator) / size
    save_file({"weight": weight, "bias": torch.zeros(1)}, folder / "head" / "head.safetensors")
    return folder / "adapter", folder / "head"
