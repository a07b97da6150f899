"""Request files for hosted batch, and results in whatever state they come back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from usermirror_gym.corpus.rationales import batch_files
from usermirror_gym.corpus.rationales.batch_files import BatchJob, read_batch_results, write_batch
from usermirror_gym.corpus.rationales.plan import RationaleSettings, read_attempts
from usermirror_gym.corpus.rationales.write import read_rationales, summarise
from usermirror_gym.errors import RunError
from usermirror_gym.scenes.words.rationale_prompt import rationale_prompt

GOOD = "Stimulus: rain {}.\nKnowledge: I know it.\nEvaluation: gut feeling.\n"
SETTINGS = RationaleSettings(n=2, max_attempts=3)


@pytest.fixture
def job(scripted, tmp_path: Path) -> BatchJob:
    scenes = scripted.make_scenes(4)
    scenes[3] = replace(scenes[3], name="ml.1m-ü:3")  # dots and foreign letters in a scene id
    builder = scripted.make_builder()
    return BatchJob(scenes, builder, SETTINGS, "strong", "big-model", tmp_path / "r.jsonl")


def read(files: list[Path]) -> list[dict]:
    return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]


def completion(texts: list[str | None], prompt: int = 100, completion: int = 40) -> dict:
    choices = [
        {"index": k, "message": {"role": "assistant", "content": t}, "finish_reason": "stop"}
        for k, t in enumerate(texts)
    ]
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    return {"object": "chat.completion", "choices": choices, "usage": usage}


def result(request: dict, texts: list[str | None] | None = None, **change) -> dict:
    n = request["body"]["n"]
    texts = [GOOD.format(k) for k in range(n)] if texts is None else texts
    response = {"status_code": 200, "request_id": "x", "body": completion(texts)}
    line = {"id": "b", "custom_id": request["custom_id"], "response": response, "error": None}
    return {**line, **change}


def save(path: Path, lines: list[dict]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_requests_are_what_live_generation_would_ask(job: BatchJob, tmp_path: Path) -> None:
    (file,) = write_batch(job, tmp_path / "ask.jsonl")
    assert file.name == "ask-001.jsonl"
    lines = read([file])
    assert len({line["custom_id"] for line in lines}) == 4
    assert {(line["method"], line["url"]) for line in lines} == {("POST", "/v1/chat/completions")}
    for line, scene in zip(lines, job.scenes, strict=True):
        body, prompt = line["body"], rationale_prompt(scene, job.builder)
        asked = [{"role": m.role, "content": m.content} for m in prompt.messages]
        assert body["messages"] == asked
        wanted = {"model": "big-model", "n": 2, "temperature": 1.0, "top_p": 0.9}
        assert {k: body[k] for k in wanted} == wanted
        assert body["max_tokens"] == 1024
        assert body["stop"] == ["My choice:"]
    assert len({line["body"]["seed"] for line in lines}) == 4


def test_fields_can_be_added_and_taken_away(job: BatchJob, tmp_path: Path) -> None:
    job = replace(job, extra_body={"max_tokens": None, "max_completion_tokens": 7})
    body = read(write_batch(job, tmp_path / "ask.jsonl"))[0]["body"]
    assert "max_tokens" not in body
    assert body["max_completion_tokens"] == 7


def test_results_in_any_order_become_the_records_of_a_live_run(
    job: BatchJob, tmp_path: Path
) -> None:
    requests = read(write_batch(job, tmp_path / "ask.jsonl"))
    files = [
        save(tmp_path / "out2.jsonl", [result(r) for r in reversed(requests[2:])]),
        save(tmp_path / "out1.jsonl", [result(r) for r in reversed(requests[:2])]),
    ]
    report = read_batch_results(job, files)
    assert (report.written, report.failed, report.missing, report.problems) == (8, 0, (), ())
    found = read_rationales(job.path)
    assert [(r.scene_id, r.index) for r in found] == sorted(
        (scene.name, k) for scene in job.scenes for k in range(2)
    )
    assert found[1].text == GOOD.format(1).strip()
    assert [r.prompt_tokens for r in found[:2]] == [100, 0]
    assert sum(r.completion_tokens for r in found[:2]) == 40
    assert summarise(job.path, SETTINGS).model == "big-model/server"
    assert write_batch(job, tmp_path / "ask.jsonl") == []
    assert not list(tmp_path.glob("ask-*"))


def test_the_journal_of_a_live_server_run_goes_on_with_batch_files(
    job: BatchJob, scripted, tmp_path: Path
) -> None:
    from usermirror_gym.corpus.rationales.write import write_rationales
    from usermirror_gym.progress import Display

    engine = scripted.ScriptedEngine(scripted.flaky, model_id="big-model/server")
    once = replace(SETTINGS, max_attempts=1)
    write_rationales(
        job.scenes, job.builder, engine, job.path, once, role="strong",
        display=Display(quiet=True),
    )  # fmt: skip
    job = replace(job, settings=once)
    assert write_batch(job, tmp_path / "ask.jsonl") == []


def test_failed_attempts_are_asked_again_one_by_one_until_given_up(
    job: BatchJob, tmp_path: Path
) -> None:
    for attempt in range(3):
        requests = read(write_batch(job, tmp_path / "ask.jsonl"))
        bad = [r for r in requests if r["custom_id"].endswith(".s001")]
        if attempt:
            assert requests == bad
            assert [r["body"]["n"] for r in bad] == [1, 1]
        lines = [result(r, ["I take B."] * r["body"]["n"] if r in bad else None) for r in requests]
        report = read_batch_results(job, [save(tmp_path / "out.jsonl", lines)])
        assert report.failed == 2
    assert write_batch(job, tmp_path / "ask.jsonl") == []
    summary = summarise(job.path, SETTINGS)
    assert (summary.written, summary.failed) == (6, 2)
    assert summary.failures == {"unreadable": 6}
    seeds = {(a.index, a.attempt): a.seed for a in read_attempts(job.path) if a.scene_id == "s001"}
    assert len(set(seeds.values())) == 5  # the first attempt is one call for both


def test_error_lines_are_failed_attempts_that_say_why(job: BatchJob, tmp_path: Path) -> None:
    requests = read(write_batch(job, tmp_path / "ask.jsonl"))
    refused = {"status_code": 429, "body": {"error": {"message": "slow down"}}}
    expired = {"code": "batch_expired", "message": "took too long"}
    lines = [
        result(requests[0], response=refused),
        result(requests[1], response=None, error=expired),
        result(requests[2], [GOOD.format(0)]),
        result(requests[3], response={"status_code": 200, "body": "<html>"}),
    ]
    report = read_batch_results(job, [save(tmp_path / "out.jsonl", lines)])
    assert (report.written, report.failed, report.missing) == (0, 8, ())
    errors = {r.scene_id: r.error for r in read_rationales(job.path)}
    assert errors["s000"].startswith("engine: status 429")
    assert "slow down" in errors["s000"]
    assert "batch_expired" in errors["s001"]
    assert "1 texts instead of 2" in errors["s002"]
    assert "no chat completion" in errors["ml.1m-ü:3"]


def test_missing_torn_doubled_and_foreign_lines_are_reported_by_number(
    job: BatchJob, tmp_path: Path
) -> None:
    requests = read(write_batch(job, tmp_path / "ask.jsonl"))
    failed = result(requests[0], response={"status_code": 500, "body": None})
    out = save(
        tmp_path / "out.jsonl",
        [failed, result(requests[0]), result({**requests[1], "custom_id": "weak.0.all.s001"})],
    )
    whole = json.dumps(result(requests[2]))
    with out.open("a") as file:
        file.write("\n[1]\n" + whole[: len(whole) // 2])
    report = read_batch_results(job, [out])
    assert report.written == 2
    assert report.missing == tuple(r["custom_id"] for r in requests[1:])
    text = "\n".join(report.problems)
    assert "line 2: another result for 'strong.0.all.s000'" in text
    assert "line 3: not a request of this job: 'weak.0.all.s001'" in text
    assert "line 5: not an object" in text
    assert "line 6: not JSON (the file ends here: download it again)" in text
    assert "3 requests without a result" in str(report)
    again = read(write_batch(job, tmp_path / "ask.jsonl"))
    assert again == requests[1:]  # unanswered is not failed: the same attempt, the same seed


def test_reading_results_twice_changes_nothing(job: BatchJob, tmp_path: Path) -> None:
    requests = read(write_batch(job, tmp_path / "ask.jsonl"))
    out = save(tmp_path / "out.jsonl", [result(r) for r in requests])
    read_batch_results(job, [out])
    before = job.path.read_bytes()
    report = read_batch_results(job, [out, out])
    assert (report.written, report.failed, report.missing, report.problems) == (0, 0, (), ())
    assert job.path.read_bytes() == before


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"custom_id": ["x"]},
        {"custom_id": "strong"},
        {"custom_id": "strong.0.all.nobody"},
    ],
)
def test_lines_that_name_nobody_are_problems(line: dict, job: BatchJob, tmp_path: Path) -> None:
    report = read_batch_results(job, [save(tmp_path / "out.jsonl", [line])])
    assert "line 1: not a request of this job" in report.problems[0]
    assert report.written == report.failed == 0


def test_large_batches_are_divided_and_older_files_removed(
    job: BatchJob, tmp_path: Path, monkeypatch
) -> None:
    (whole,) = write_batch(job, tmp_path / "ask.jsonl")
    requests, size = read([whole]), whole.stat().st_size
    monkeypatch.setattr(batch_files, "MAX_REQUESTS", 3)
    files = write_batch(job, tmp_path / "ask.jsonl")
    assert [len(read([file])) for file in files] == [3, 1]
    assert read(files) == requests
    monkeypatch.setattr(batch_files, "MAX_REQUESTS", 50_000)
    monkeypatch.setattr(batch_files, "MAX_BYTES", size - 1)
    files = write_batch(job, tmp_path / "ask.jsonl")
    assert len(files) == 2
    assert all(file.stat().st_size < size for file in files)
    monkeypatch.setattr(batch_files, "MAX_BYTES", size)
    assert len(write_batch(job, tmp_path / "ask.jsonl")) == 1
    assert [file.name for file in tmp_path.glob("ask-*")] == ["ask-001.jsonl"]
    monkeypatch.setattr(batch_files, "MAX_BYTES", 100)
    with pytest.raises(RunError, match="does not fit a file"):
        write_batch(job, tmp_path / "ask.jsonl")


def test_the_limits_are_those_of_the_provider() -> None:
    assert (batch_files.MAX_REQUESTS, batch_files.MAX_BYTES) == (50_000, 200_000_000)


def test_results_that_are_not_there_are_an_error(job: BatchJob, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nowhere"):
        read_batch_results(job, [tmp_path / "nowhere.jsonl"])
