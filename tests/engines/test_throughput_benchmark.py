"""The engine benchmark: real questions, rows that add up, limits that are limits."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

SOURCES = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bench() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SOURCES / "benchmarks"))
        import engine_throughput
        from throughput import limits, patterns, questions, ways

        yield SimpleNamespace(
            main=engine_throughput, limits=limits, patterns=patterns, questions=questions, ways=ways
        )


@pytest.fixture(scope="module")
def saved(bench, tmp_path_factory) -> Path:
    """16 questions of each pattern, about the last film of every list but two."""
    path = tmp_path_factory.mktemp("patterns") / "patterns.json"
    bench.questions.save_patterns(
        path, bench.patterns.build_patterns(bench.patterns.PATTERNS, 16, 3, 0)
    )
    return path


@pytest.fixture
def run(bench, saved, tmp_path: Path):
    def run(way: str, pattern: str = "episodes", readout: str = "letters", **more: Any) -> Any:
        checkpoint = bench.tiny
        job = bench.ways.Job(way, pattern, readout, checkpoint, "float32", "cpu", **more)
        return bench.ways.run_job(job, saved)

    return run


@pytest.fixture(autouse=True)
def tiny(bench, monkeypatch, tmp_path_factory, checkpoints) -> None:
    """A model of a few thousand parameters whose context holds the questions."""
    import shutil

    folder = tmp_path_factory.mktemp("long")
    shutil.copytree(checkpoints("llama"), folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = 8192
    (folder / "config.json").write_text(json.dumps(config))
    bench.tiny = str(folder)


def test_questions_are_those_of_real_sessions(bench, saved) -> None:
    slates, episodes, unrelated = bench.questions.load_patterns(saved)
    assert [len(p.questions) for p in (slates, episodes, unrelated)] == [16, 16, 16]
    users = {q.letters.messages[1].content for q in unrelated.questions}
    assert len(users) == 16
    first, *_, last = (episodes.questions[call[0]].letters for call in episodes.calls)
    assert len(episodes.calls) == 8
    assert last.messages[: len(first.messages)] == first.messages  # the session grew
    assert len(last.messages) == len(first.messages) + 2 * 7
    for call in slates.calls:
        texts = [slates.questions[i].letters.messages[1].content for i in call]
        assert len(set(texts)) == 8
        assert len({text.split("1.")[0][:60] for text in texts}) == 1  # one user


@pytest.mark.parametrize("way", ["batched", "transformers", "stored"])
def test_ways_agree_with_the_naive_one(bench, run, tmp_path: Path, way: str) -> None:
    naive = run("naive", every=5)
    assert naive.asked
    assert naive.seconds > 0
    more = {}
    if way == "stored":
        earlier = tmp_path / "transformers.json"
        row = run("transformers")
        earlier.write_text(json.dumps({"asked": row.asked, "logprobs": row.logprobs}))
        more = {"answers": str(earlier)}
    row = run(way, **more)
    assert sorted(row.asked) == list(range(16))
    assert bench.main._difference(row, naive) < 1e-4
    assert row.computed_tokens <= row.prompt_tokens
    if way == "stored":
        assert row.computed_tokens == 0


def test_sharing_computes_less(run) -> None:
    assert run("transformers").computed_tokens < 0.6 * run("batched").computed_tokens


def test_asking_about_every_item_costs_a_prompt_per_item(run) -> None:
    naive, single = run("naive", every=8), run("per-item", every=8)
    assert single.prompt_tokens > 2 * naive.prompt_tokens
    assert all(np.isclose(sum(p), 1) for p in single.probs)


def test_a_row_is_described_beside_its_limit(bench, run) -> None:
    row, naive = run("transformers"), run("naive", every=5)
    machine = bench.limits.measure_machine("cpu", "float32", 32)
    assert machine.flops > 1e8
    assert machine.bandwidth > 1e8
    model = bench.limits.describe_model(bench.tiny, "float32")
    found = bench.main.describe(row, naive, machine, model)
    assert found["choices"] == 16
    assert 0 < found["share_of_limit"] <= 1.5
    assert found["limit_choices_per_second"] > 0
    assert found["max_dp"] < 1e-4
    assert json.loads(json.dumps(found)) == found


def test_the_limit_counts_every_weight_once(bench) -> None:
    from transformers import AutoModelForCausalLM

    weights = AutoModelForCausalLM.from_pretrained(bench.tiny)
    model = bench.limits.describe_model(bench.tiny, "float32")
    norms = sum(p.numel() for n, p in weights.named_parameters() if "norm" in n)
    assert model.body + model.head + norms == sum(p.numel() for p in weights.parameters())
