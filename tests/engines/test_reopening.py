"""Engines travel as their arguments, and are opened once a process."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

from usermirror_gym.engines import reopening
from usermirror_gym.engines.choosing import load_engine
from usermirror_gym.engines.server.server_engine import ServerEngine
from usermirror_gym.engines.store.answer_store import AnswerStore
from usermirror_gym.engines.store.stored_engine import StoredEngine
from usermirror_gym.errors import CheckpointError


def elsewhere(sent: bytes):
    """What another process makes of a pickle."""
    reopening._open.clear()
    return pickle.loads(sent)


def test_a_process_opens_what_was_sent_once(checkpoints, letters_prompts) -> None:
    engine = load_engine(checkpoints("llama"), "transformers", device="cpu", cache_tokens=512)
    before = engine.choice_logprobs(letters_prompts())
    sent = [pickle.dumps(engine) for _ in range(2)]
    assert len(sent[0]) < 1_000
    first, second = elsewhere(sent[0]), pickle.loads(sent[1])
    assert first is second
    assert first is not engine
    assert first._cache_tokens == 512
    for one, two in zip(first.choice_logprobs(letters_prompts()), before, strict=True):
        assert one.logprobs == pytest.approx(two.logprobs, abs=1e-4)
    other = load_engine(checkpoints("llama"), "transformers", device="cpu", cache_tokens=256)
    assert pickle.loads(pickle.dumps(other)) is other


def test_servers_and_stores_travel_without_connections(tmp_path: Path) -> None:
    engine = ServerEngine("m", base_url="http://127.0.0.1:9/v1", timeout=3.5, extra_body={"a": 1})
    stored = StoredEngine(engine, AnswerStore(tmp_path / "answers.sqlite"))
    stored.store.put({b"key": b"value"})
    assert copy.deepcopy(stored).engine is engine
    found = elsewhere(pickle.dumps(stored))
    assert found is not stored
    assert (found.engine._timeout, found.engine._extra_body) == (3.5, {"a": 1})
    assert found.store.get([b"key"]) == [b"value"]


def test_what_was_trained_anew_on_the_way_is_refused(checkpoints, make_adapter) -> None:
    folder = make_adapter("llama")
    sent = pickle.dumps(load_engine(checkpoints("llama"), "transformers", adapter=folder))
    weights = make_adapter("llama", seed=1) / "adapter_model.safetensors"
    (folder / "adapter_model.safetensors").write_bytes(weights.read_bytes())
    with pytest.raises(CheckpointError, match=r"was sent to this process.*have changed"):
        elsewhere(sent)
