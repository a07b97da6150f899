"""Weights laid out for the CPU answer like the weights as stored, or are left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from usermirror_gym.engines.local.head import PackedLinear, can_pack, pack


@pytest.fixture
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def layers(model: LlamaForCausalLM, kind: type) -> int:
    return sum(isinstance(module, kind) for module in model.base_model.modules())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 24), (7, 24), (2, 5, 24)])
def test_same_numbers_as_linear(shape: tuple[int, ...], bias: bool) -> None:
    linear = nn.Linear(24, 40, bias=bias)
    if not can_pack(LlamaForCausalLM(LlamaConfig(num_hidden_layers=0, vocab_size=8))):
        pytest.skip("this torch has no packed kernels")
    x = torch.randn(shape)
    with torch.inference_mode():
        packed = PackedLinear(linear.weight, linear.bias)(x)
        torch.testing.assert_close(packed, linear(x), atol=1e-5, rtol=1e-5)


def test_a_float32_model_is_packed_and_answers_the_same(model: LlamaForCausalLM) -> None:
    ids = torch.randint(0, 64, (2, 9))
    with torch.inference_mode():
        before = model(ids).logits
        assert pack(model) == can_pack(model)
        torch.testing.assert_close(model(ids).logits, before, atol=1e-4, rtol=1e-4)


def test_other_precisions_are_left_alone(model: LlamaForCausalLM) -> None:
    half = model.to(torch.bfloat16)
    assert not pack(half)
    assert layers(half, nn.Linear) == 14


def test_a_model_that_would_answer_differently_is_restored(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.randint(0, 64, (1, 6))
    before = model(ids).logits
    monkeypatch.setattr(PackedLinear, "forward", lambda self, x: x.new_zeros(1))
    assert not pack(model)
    assert layers(model, nn.Linear) == 14
    assert layers(model, PackedLinear) == 0
    torch.testing.assert_close(model(ids).logits, before)
