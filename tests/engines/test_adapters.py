"""What was trained on top of base weights is loaded whole, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from usermirror_gym.engines.adapters import content_hash, load_head
from usermirror_gym.engines.choosing import load_engine
from usermirror_gym.engines.local.transformers_engine import TransformersEngine
from usermirror_gym.errors import CheckpointError


@pytest.fixture(scope="module")
def adapter(make_adapter) -> Path:
    return make_adapter("llama")


def changed(folder: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """A copy of an adapter whose weights are not what they were."""
    shutil.copytree(folder, target)
    weights = load_file(target / "adapter_model.safetensors")
    change(weights)
    save_file(weights, target / "adapter_model.safetensors", metadata={"format": "pt"})
    return target


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_answers_are_those_of_the_adapted_model(
    checkpoints, make_adapter, adapted, reference, letters_prompts, texts_prompts, kind
):
    folder = make_adapter(kind)
    engine = TransformersEngine(checkpoints(kind), adapter=folder, device="cpu")
    truth = adapted(kind, folder)
    letters, texts = letters_prompts()[:5], texts_prompts()[:5]
    for prompt, score in zip(letters, engine.choice_logprobs(letters), strict=True):
        np.testing.assert_allclose(score.logprobs, truth.letters(prompt), atol=2e-4)
        assert np.abs(score.logprobs - reference(kind).letters(prompt)).max() > 0.01
    for prompt, score in zip(texts, engine.text_logprobs(texts), strict=True):
        np.testing.assert_allclose(score.logprobs, truth.texts(prompt), atol=2e-4)


def test_half_precision_rounds_after_the_merge(checkpoints, adapter, adapted):
    engine = TransformersEngine(
        checkpoints("llama"), adapter=adapter, dtype="bfloat16", device="cpu"
    )
    whole = adapted("llama", adapter).model.merge_and_unload().to(torch.bfloat16)
    ours = engine._model.state_dict()
    for name, value in whole.state_dict().items():
        assert torch.equal(ours[name], value), name


def test_the_model_id_tells_contents_apart(checkpoints, adapter, tmp_path):
    base = checkpoints("llama")
    first = load_engine(base, adapter=adapter)
    assert first.model_id.startswith(f"{base.name}+{adapter.name}@")
    assert first.model_id.endswith("/float32")
    same = tmp_path / adapter.name
    shutil.copytree(adapter, same)
    assert load_engine(base, adapter=str(same)).model_id == first.model_id

    def nudge(weights: dict[str, torch.Tensor]) -> None:
        next(iter(weights.values()))[0, 0] += 1e-3

    other = changed(adapter, tmp_path / "other" / adapter.name, nudge)
    assert load_engine(base, adapter=other).model_id != first.model_id
    assert load_engine(base).model_id == f"{base.name}/float32"


def test_an_adapter_of_a_smaller_or_larger_model_is_refused(checkpoints, adapter, tmp_path):
    def without_layer_1(weights: dict[str, torch.Tensor]) -> None:
        for name in [n for n in weights if "layers.1." in n]:
            del weights[name]

    def with_layer_2(weights: dict[str, torch.Tensor]) -> None:
        for name, value in list(weights.items()):
            if "layers.1." in name:
                weights[name.replace("layers.1.", "layers.2.")] = value.clone()

    short = changed(adapter, tmp_path / "short", without_layer_1)
    with pytest.raises(CheckpointError, match=r"no update for \d+ layers, .*layers\.1\."):
        load_engine(checkpoints("llama"), adapter=short).load()
    long = changed(adapter, tmp_path / "long", with_layer_2)
    with pytest.raises(CheckpointError, match=r"base has no layer for .*layers\.2\."):
        load_engine(checkpoints("llama"), adapter=long).load()


def test_an_adapter_of_another_width_or_architecture_is_refused(
    checkpoints, adapter, make_adapter, tmp_path
):
    def narrow(weights: dict[str, torch.Tensor]) -> None:
        for name, value in list(weights.items()):
            weights[name] = value[:, :-1].contiguous()

    wrong = changed(adapter, tmp_path / "narrow", narrow)
    with pytest.raises(CheckpointError, match=r"narrow does not fit the base weights: .*size"):
        load_engine(checkpoints("llama"), adapter=wrong).load()
    with pytest.raises(CheckpointError, match="does not fit the base weights"):
        load_engine(checkpoints("llama"), adapter=make_adapter("gpt2")).load()


def test_numbers_that_are_not_finite_are_refused(checkpoints, adapter, tmp_path):
    def poison(weights: dict[str, torch.Tensor]) -> None:
        next(v for n, v in weights.items() if "lora_B" in n)[0, 0] = torch.nan

    bad = changed(adapter, tmp_path / "nan", poison)
    with pytest.raises(CheckpointError, match="NaN"):
        load_engine(checkpoints("llama"), adapter=bad).load()


def test_folders_without_the_part_say_what_is_missing(checkpoints, tmp_path):
    with pytest.raises(CheckpointError, match=r"has no adapter_config\.json.*no LoRA adapter"):
        load_engine(checkpoints("llama"), adapter=tmp_path)
    with pytest.raises(CheckpointError, match=r"has no head\.safetensors.*no option head"):
        load_engine(checkpoints("llama"), head=tmp_path)


def test_heads_are_checked(tmp_path):
    path = tmp_path / "head.safetensors"
    save_file({"weight": torch.ones(8), "bias": torch.zeros(1)}, path)
    weight, bias = load_head(tmp_path, 8)
    assert weight.tolist() == [1] * 8
    assert bias.tolist() == [0]
    with pytest.raises(CheckpointError, match=r"needs weight \(32,\) and bias \(1,\)"):
        load_head(tmp_path, 32)
    save_file({"weight": torch.full((8,), torch.inf), "bias": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="not finite"):
        load_head(tmp_path, 8)
    path.write_bytes(b"no such thing")
    with pytest.raises(CheckpointError, match="cannot read"):
        load_head(tmp_path, 8)


def test_the_hash_is_of_all_contents_in_their_order(tmp_path):
    one, two = tmp_path / "1", tmp_path / "2"
    one.write_bytes(b"ab")
    two.write_bytes(b"c")
    whole = content_hash([one, two])
    assert len(whole) == 8
    one.write_bytes(b"a")
    two.write_bytes(b"bc")
    assert content_hash([one, two]) != whole
