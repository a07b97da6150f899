"""Two real vLLM servers, one killed in mid-benchmark.  Needs vLLM: ``make test-vllm``."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engines.vllm_servers import VLLMServer, vllm_servers
from usermirror_gym.benchmark.run import BenchmarkConfig, run_benchmark
from usermirror_gym.engines import DEFAULT_CHECKPOINT, resolve_checkpoint
from usermirror_gym.engines.choosing import load_engine
from usermirror_gym.engines.local.transformers_engine import TransformersEngine
from usermirror_gym.errors import EngineError
from usermirror_gym.testing.engines import EngineContract
from usermirror_gym.types import Message, Prompt

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]
TOLERANCE = 1e-3
"""Absolute, on probabilities."""
NAME = "smollm2"


@pytest.fixture(scope="module")
def weights() -> Path:
    return resolve_checkpoint(DEFAULT_CHECKPOINT)


@pytest.fixture(scope="module")
def servers(weights: Path, tmp_path_factory) -> Iterator[list[VLLMServer]]:
    with vllm_servers(2, weights, NAME, tmp_path_factory.mktemp("servers")) as made:
        yield made


def engine_of(servers: list[VLLMServer], weights: Path, **settings: Any) -> Any:
    urls = [server.url for server in servers]
    return load_engine(f"openai:{NAME}", base_url=urls, tokenizer=str(weights), **settings)


class TestServers(EngineContract):
    tolerance = 2e-3

    @pytest.fixture
    def engine(self, servers, weights):
        return engine_of(servers, weights)


def test_letters_and_texts_are_those_of_transformers(servers, weights) -> None:
    ours, theirs = engine_of(servers, weights), TransformersEngine(weights, device="cpu")
    films = "".join(f"Film {i}, {1950 + i}\n" for i in range(20))
    letters = [
        Prompt((Message("system", "You like films."), Message("user", f"{films}\n[A] Heat {u}")),
               "Choice: [", tuple("ABCDE"), f"letters {u}")
        for u in range(6)
    ]  # fmt: skip
    spaced = [Prompt((), f"{films} I choose", (" A", " B"), "spaced")]
    for a, b in zip(ours.choice_logprobs(letters + spaced),
                    theirs.choice_logprobs(letters + spaced), strict=True):  # fmt: skip
        np.testing.assert_allclose(np.exp(a.logprobs), np.exp(b.logprobs), atol=TOLERANCE)
    texts = [Prompt((), films, ("Heat\n", "The Cube\n"), "texts")]
    (a,), (b,) = ours.text_logprobs(texts), theirs.text_logprobs(texts)
    np.testing.assert_allclose(a.logprobs, b.logprobs, atol=2e-3)


def test_another_model_than_served_is_an_error(servers, weights) -> None:
    engine = load_engine("openai:smollm3", base_url=servers[0].url, tokenizer=str(weights))
    with pytest.raises(EngineError, match=r"does not serve the model 'smollm3'.*'smollm2'"):
        engine.choice_logprobs([Prompt((), "Choice: [", ("A", "B"))])


def test_one_is_killed_in_mid_benchmark_and_every_choice_is_as_it_would_have_been(
    servers, weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Must be the last test of this module: one server is gone afterwards."""
    from usermirror_gym.engines.server.server_engine import ServerEngine

    asked: list[tuple[Prompt, np.ndarray]] = []
    plain = ServerEngine.choice_logprobs

    def watched(self: ServerEngine, prompts: Any) -> Any:
        if len(asked) >= 48 and servers[1].process.poll() is None:
            servers[1].kill()
        scores = plain(self, prompts)
        asked.extend((p, np.exp(s.logprobs)) for p, s in zip(prompts, scores, strict=True))
        return scores

    monkeypatch.setattr(ServerEngine, "choice_logprobs", watched)
    urls = [server.url for server in servers]
    config = BenchmarkConfig(
        agents=("Random", "Pop"), users=16, steps=4, simulator="smollm2-letters",
        simulator_options={
            "checkpoint": f"openai:{NAME}",
            "engine": {"base_url": urls, "tokenizer": str(weights), "timeout": 60},
        },
        patience=5, fidelity_scenes=0, batch_size=16,
    )  # fmt: skip
    results = run_benchmark(config, tmp_path / "run")
    logged = [json.loads(line) for line in (tmp_path / "run" / "episodes.jsonl").open()]
    assert len(logged) == len(asked) == 2 * 16 * 4  # nothing lost, nothing asked twice
    assert len({(row["agent"], row["episode"], row["step"]) for row in logged}) == len(logged)
    theirs = TransformersEngine(weights, device="cpu").choice_logprobs([p for p, _ in asked])
    for (prompt, found), score in zip(asked, theirs, strict=True):
        np.testing.assert_allclose(
            found, np.exp(score.logprobs), atol=TOLERANCE, err_msg=prompt.name
        )
    replicas = results["timing"]["engine"]["replicas"]
    dead, alive = (replicas[server.url.split("/")[2]] for server in servers[::-1])
    assert dead["failed"] > 0
    assert "Connection" in dead["last_error"]
    assert alive["answered"] + dead["answered"] == len(asked)
    report = (tmp_path / "run" / "report.html").read_text()
    assert f"The server {servers[1].url.split('/')[2]} failed" in report
