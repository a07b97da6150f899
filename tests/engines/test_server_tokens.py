"""Token ids to a completions endpoint: the answers are those of the engines in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engines.stand_in import Server
from usermirror_gym.engines.local.transformers_engine import TransformersEngine
from usermirror_gym.engines.server.server_engine import ServerEngine
from usermirror_gym.errors import EngineError
from usermirror_gym.testing.engines import EngineContract
from usermirror_gym.types import Prompt


class VLLMStandIn:
    """Answers as vLLM's completions endpoint does, with a tiny model."""

    def __init__(self, folder: Path, *, masks: bool = True, most: int = 26) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.model = AutoModelForCausalLM.from_pretrained(folder).float().eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.masks, self.most = masks, most

    def __call__(self, body: dict[str, Any]) -> dict[str, Any]:
        ids = body["prompt"]
        with torch.no_grad():
            table = self.model(torch.tensor([ids])).logits[0].double()
        if "prompt_logprobs" in body:
            rows = table.log_softmax(-1)
            told = [None] + [
                {str(t): {"logprob": float(rows[i, t])}} for i, t in enumerate(ids[1:])
            ]
            choices = [{"text": "", "prompt_logprobs": told}]
        elif "allowed_token_ids" in body:
            choices = [{"text": "", "logprobs": {"top_logprobs": [self._letters(table[-1], body)]}}]
        else:
            choices = [{"text": self._sample(ids, body, k)} for k in range(body["n"])]
        return {"model": body["model"], "choices": choices, "usage": {"prompt_tokens": len(ids)}}

    def _letters(self, last: torch.Tensor, body: dict[str, Any]) -> dict[str, float]:
        if self.masks:
            allowed = torch.tensor(body["allowed_token_ids"])
            masked = torch.full_like(last, -torch.inf)
            masked[allowed] = last[allowed]
            last = masked
        values, tokens = last.log_softmax(-1).topk(min(body["logprobs"], self.most))
        return {
            f"token_id:{t}": max(v, -9999.0)
            for v, t in zip(values.tolist(), tokens.tolist(), strict=True)
        }

    def _sample(self, ids: list[int], body: dict[str, Any], k: int) -> str:
        generator = torch.Generator().manual_seed(body["seed"] + k)
        row = list(ids)
        for _ in range(body["max_tokens"]):
            with torch.no_grad():
                probs = self.model(torch.tensor([row])).logits[0, -1].softmax(-1)
            row.append(int(torch.multinomial(probs, 1, generator=generator)))
        return self.tokenizer.decode(row[len(ids) :])


@pytest.fixture(scope="module")
def made(checkpoints) -> Iterator[tuple[Server, Path]]:
    folder, server = checkpoints("llama"), Server()
    server.models = [{"id": "m", "max_model_len": 512}]
    yield server, folder
    server.close()


@pytest.fixture
def engine(made, monkeypatch: pytest.MonkeyPatch) -> ServerEngine:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server, folder = made
    server.complete = VLLMStandIn(folder)
    return ServerEngine("m", base_url=server.url, tokenizer=str(folder), timeout=10, max_retries=0)


class TestTokens(EngineContract):
    @pytest.fixture
    def engine(self, engine):
        return engine


@pytest.mark.parametrize(("ask", "prompts"), [
    ("choice_logprobs", "letters_prompts"), ("text_logprobs", "texts_prompts"),
])  # fmt: skip
def test_the_answers_are_those_of_transformers(
    engine, made, request, ask: str, prompts: str
) -> None:
    asked = request.getfixturevalue(prompts)()
    ours = getattr(engine, ask)(asked)
    theirs = getattr(TransformersEngine(made[1], device="cpu"), ask)(asked)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)
        assert a.n_tokens.tolist() == b.n_tokens.tolist()
        assert a.prompt_tokens == b.prompt_tokens


def test_log_probabilities_from_before_the_mask_are_normalised(engine, made, reference) -> None:
    made[0].complete = VLLMStandIn(made[1], masks=False, most=401)
    letters = tuple("ABC")
    made[0].complete.most = 401
    prompt = Prompt((), "Behavior: [", letters, "raw")
    asked: Callable[[dict], dict] = made[0].complete
    made[0].complete = lambda body: asked({**body, "logprobs": 401})
    (score,) = engine.choice_logprobs([prompt])
    np.testing.assert_allclose(score.logprobs, reference("llama").letters(prompt), atol=1e-4)


def test_letters_that_the_server_does_not_tell_say_how_to_start_it(engine, made) -> None:
    made[0].complete = VLLMStandIn(made[1], most=2)
    with pytest.raises(EngineError, match=r"prompt 'p'.*--max-logprobs 26"):
        engine.choice_logprobs([Prompt((), "Behavior: [", tuple("ABCD"), "p")])


def test_a_server_without_token_ids_is_an_error(engine, made) -> None:
    made[0].complete = lambda body: {"choices": [{"text": "A", "logprobs": None}]}
    with pytest.raises(EngineError, match="This takes vLLM's server"):
        engine.choice_logprobs([Prompt((), "Behavior: [", tuple("AB"), "p")])
    with pytest.raises(EngineError, match="likelihood readout takes vLLM's server"):
        engine.text_logprobs([Prompt((), "Films:\n", ("Heat\n",), "p")])


def test_the_limit_is_what_the_server_tells(engine, made) -> None:
    assert engine.context_length == 511
    assert not engine.counts_are_estimates
    told = ServerEngine("m", base_url=made[0].url, tokenizer=str(made[1]), context_length=100)
    assert told.context_length == 100
