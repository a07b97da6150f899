"""The half of a build that asks models: engines, files, errors half-way, and what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from rich.console import Console

from usermirror_gym.corpus import rationale_stage
from usermirror_gym.corpus.audit import audit_build
from usermirror_gym.corpus.build import build_data, estimate_build
from usermirror_gym.corpus.config import BuildConfig
from usermirror_gym.engines.base import OptionScores
from usermirror_gym.errors import ConfigError, EngineError, RunError, UnknownNameError
from usermirror_gym.progress import Display

QUIET = Display(quiet=True)


@pytest.fixture
def config(tiny_tables: Path) -> Callable[..., BuildConfig]:
    """Settings of a small build with two scripted models; keywords replace whole groups."""

    def make(**groups: Any) -> BuildConfig:
        settings = {
            "name": "small",
            "sources": [{"name": str(tiny_tables)}],
            "scenes": {"train": 24, "validation": 0, "eval": 12, "train_slate": [2, 4],
                       "removed": 0.0},
            "rationales": {
                "strong": {"checkpoint": "large"}, "weak": {"checkpoint": "little"},
                "scenes": 10, "sampling": {"n": 3, "batch_size": 6},
            },
            "selection": {"size": 4},
        }  # fmt: skip
        return BuildConfig.model_validate({**settings, **groups})

    return make


@pytest.fixture
def engines(scripted, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two scripted models by name, in place of all real ones."""
    models = {
        name: scripted.ScriptedEngine(scripted.flaky, model_id=name) for name in ("large", "little")
    }
    monkeypatch.setattr(rationale_stage, "load_engine", lambda name, kind, **options: models[name])
    return models


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_pairs_are_what_the_models_wrote(config, engines, scripted, tmp_path: Path) -> None:
    folder = build_data(config(), tmp_path / "out", display=QUIET)
    assert audit_build(folder).passed
    pairs = rows(folder / "train" / "preferences.jsonl")
    assert len(pairs) == 4
    table = pq.read_table(folder / "selection" / "scenes.parquet").to_pylist()
    assert {row["scene_id"] for row in table if row["kept"]} == {p["scene_id"] for p in pairs}
    assert len(table) == 10
    written = {
        (r["scene_id"], r["role"], r["text"])
        for role in ("strong", "weak")
        for r in rows(folder / "rationales" / "mine" / f"{role}.jsonl")[1:]
    }
    scenes = pq.read_table(folder / "scenes" / "train" / "mine.parquet").to_pylist()
    targets = {row["scene_id"]: row["target"] for row in scenes}
    for pair in pairs:
        (chosen,), (rejected,) = pair["chosen"], pair["rejected"]
        text, _, line = chosen["content"].rpartition("\n")
        assert (pair["scene_id"], "strong", text) in written
        assert line == f"My choice: [{'ABCDE'[targets[pair['scene_id']]]}]"
        text, _, other = rejected["content"].rpartition("\n")
        assert (pair["scene_id"], pair["rejected_by"], text) in written
        assert other != line
    assert [p["completion"] for p in rows(folder / "train" / "rationales.jsonl")] == [
        pair["chosen"] for pair in pairs
    ]
    usage = json.loads((folder / "selection" / "usage.json").read_text())
    assert [(row["source"], row["role"], row["model"]) for row in usage] == [
        ("mine", "strong", "large"), ("mine", "weak", "little"),
    ]  # fmt: skip
    assert all(row["written"] > 20 and row["failures"] for row in usage)
    assert "preference pairs" in (folder / "card.md").read_text("utf-8")


def test_several_sources_share_the_pairs(config, engines, tiny_tables, tmp_path: Path) -> None:
    other = tiny_tables.with_name("other.yaml")
    other.write_text(tiny_tables.read_text().replace("name: mine", "name: other"))
    sources = [{"name": str(tiny_tables)}, {"name": str(other)}]
    folder = build_data(config(sources=sources), tmp_path / "out", display=QUIET)
    pairs = rows(folder / "train" / "preferences.jsonl")
    assert {pair["dataset"] for pair in pairs} == {"mine", "other"}


def test_two_data_sets_of_one_name_are_refused_before_any_model_is_asked(
    config, engines, tiny_tables, tmp_path: Path
) -> None:
    twin = tiny_tables.with_name("twin.yaml")
    twin.write_text(tiny_tables.read_text())
    sources = [{"name": str(tiny_tables)}, {"name": str(twin)}]
    with pytest.raises(ConfigError, match="both called 'mine'"):
        build_data(config(sources=sources), tmp_path / "out", display=QUIET)
    assert not any(engine.calls for engine in engines.values())


def test_an_engine_that_fails_half_way_costs_nothing(
    config, engines, scripted, tmp_path: Path
) -> None:
    calm = build_data(config(), tmp_path / "calm", display=QUIET)
    folder = tmp_path / "broken"
    for more in (3, 30, 50, 20):  # strong rationales, weak ones, and twice predictions
        left = more

        def script(prompt: Any, seed: int, k: int) -> str | None:
            nonlocal left
            left -= 1
            if left < 0:
                raise EngineError("the machine is on fire")
            return scripted.flaky(prompt, seed, k)

        engines["large"].script = engines["little"].script = script
        with pytest.raises(EngineError, match="on fire"):
            build_data(config(), folder, display=QUIET)
        assert not (folder / "manifest.json").exists()
    journals = {path.name for path in (folder / "rationales" / "mine").glob("*.jsonl")}
    assert journals == {"strong.jsonl", "weak.jsonl", "predictions.jsonl"}
    engines["large"].script = engines["little"].script = scripted.flaky
    build_data(config(), folder, display=QUIET)
    assert contents(folder) == contents(calm)


def test_batch_files_stop_the_build_until_they_are_answered(
    config, engines, scripted, tmp_path: Path
) -> None:
    settings = config(
        rationales={
            "strong": {"checkpoint": "hosted", "engine": "batch",
                       "options": {"extra_body": {"store": False}}},
            "weak": {"checkpoint": "little"}, "scenes": 10, "sampling": {"n": 3},
        }
    )  # fmt: skip
    folder = tmp_path / "out"
    with pytest.raises(RunError, match=r"strong-batch-001\.jsonl.*strong-results-001\.jsonl"):
        build_data(settings, folder, display=QUIET)
    journals = folder / "rationales" / "mine"
    requests = rows(journals / "strong-batch-001.jsonl")
    assert [r["body"]["model"] for r in requests] == ["hosted"] * 10
    assert requests[0]["body"]["store"] is False
    answered = [answer_of(request, scripted.GOOD) for request in requests]
    lines = [json.dumps(line) + "\n" for line in answered]
    (journals / "strong-results-001.jsonl").write_text("".join(lines[:6]))
    with pytest.raises(RunError, match="waiting to be answered"):
        build_data(settings, folder, display=QUIET)
    assert len(rows(journals / "strong-batch-001.jsonl")) == 4
    (journals / "strong-results-002.jsonl").write_text("".join(lines[6:]))
    build_data(settings, folder, display=QUIET)
    assert audit_build(folder).passed
    assert rows(folder / "train" / "preferences.jsonl")
    strong, _ = json.loads((folder / "selection" / "usage.json").read_text())
    assert (strong["model"], strong["written"]) == ("hosted/server", 30)
    assert not engines["large"].calls


def answer_of(request: dict[str, Any], text: str) -> dict[str, Any]:
    """A line of a results file."""
    choices = [
        {"index": k, "finish_reason": "stop",
         "message": {"role": "assistant", "content": text.format(tag=request["custom_id"])}}
        for k in range(request["body"]["n"])
    ]  # fmt: skip
    body = {"choices": choices, "usage": {"prompt_tokens": 90, "completion_tokens": 60}}
    response = {"status_code": 200, "body": body}
    return {"custom_id": request["custom_id"], "response": response, "error": None}


def test_a_server_writes_and_predicts_and_its_key_is_written_nowhere(
    config, chat_server, tmp_path: Path
) -> None:
    secret = "s3cr3t-marker"
    address = chat_server.url.replace("http://", f"http://user:{secret}@")
    options = {"base_url": address, "extra_body": {"api_key": secret}}
    model = {"engine": "openai", "options": options}
    rationales = {
        "strong": {"checkpoint": "large", **model}, "weak": {"checkpoint": "little", **model},
        "scenes": 6, "sampling": {"n": 2, "require": "text"},
    }  # fmt: skip
    selection = {"size": 4, "reading": "sampled"}
    settings = config(rationales=rationales, selection=selection)
    folder = build_data(settings, tmp_path / "out", display=QUIET)
    assert {body["model"] for body in chat_server.bodies} == {"large", "little"}
    usage = json.loads((folder / "selection" / "usage.json").read_text())
    assert [(r["written"], r["prompt_tokens"], r["completion_tokens"]) for r in usage] == [
        (12, 300, 84), (12, 300, 84),
    ]  # fmt: skip
    # 4 readings a scene after a rationale, 1 without, by the weak model.
    assert sum(bool(body.get("logprobs")) for body in chat_server.bodies) == 30
    assert audit_build(folder).passed
    # The server is asked with the key, which is written nowhere.
    assert {body["api_key"] for body in chat_server.bodies} == {secret}
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in written if secret.encode() in path.read_bytes()]
    assert "http://***@127.0.0.1" in (folder / "config.json").read_text()
    (folder / "manifest.json").unlink()
    build_data(settings, folder, display=QUIET)


def test_a_build_without_a_single_hit_says_so(config, engines, tmp_path: Path) -> None:
    """The predictor always expects *none of these*, which is never right here."""
    settings = config(selection={"size": 4, "reading": "likeliest"})
    engines["little"].choice_logprobs = lambda prompts: [
        expects_nothing(len(prompt.options)) for prompt in prompts
    ]
    console = Console(file=StringIO(), width=200)
    folder = build_data(settings, tmp_path / "out", display=Display(console))
    said = console.file.getvalue()
    assert "0 preference pairs; scenes not kept: 10 the strong model never hits" in said
    assert not (folder / "train" / "preferences.jsonl").exists()
    assert (folder / "train" / "direct.jsonl").exists()
    card = (folder / "card.md").read_text("utf-8")
    assert "No preference pair came of the 10 scenes with rationales" in card
    assert "the strong model never hits" in card


def expects_nothing(options: int) -> OptionScores:
    probs = np.full(options, 0.1 / (options - 1))
    probs[-1] = 0.9
    return OptionScores(np.log(probs), np.ones(options, np.int64), 9, 0)


def test_ifd_selects_by_the_chosen_answers(config, engines, scripted, tmp_path: Path) -> None:
    settings = config(selection={"size": 2, "selector": "ifd"})
    folder = build_data(settings, tmp_path / "out", display=QUIET)
    table = pq.read_table(folder / "selection" / "scenes.parquet").to_pylist()
    journal = {r["scene_id"]: r for r in rows(folder / "rationales" / "mine" / "ifd.jsonl")[1:]}
    assert journal.keys() == {row["scene_id"] for row in table if row["chosen"] >= 0}
    scores = {}
    for row in table:
        if row["chosen"] < 0:
            assert np.isnan(row["score"])
            continue
        record = journal[row["scene_id"]]
        value = np.exp((record["alone"] - record["given"]) / record["n_tokens"])
        assert row["score"] == pytest.approx(value) if value < 1 else np.isnan(row["score"])
        if value < 1 and row["rejected"] >= 0:
            scores[row["scene_id"]] = value
    assert len(scores) >= 2
    lengths = {row["scene_id"]: row["list_size"] for row in table}
    for row in table:
        if row["kept"]:
            same = [v for k, v in scores.items() if lengths[k] == row["list_size"]]
            assert scores[row["scene_id"]] == max(same)


def test_ifd_needs_a_weak_model_that_scores_texts(config) -> None:
    weak = {"checkpoint": "w", "engine": "openai"}
    rationales = {"strong": {"checkpoint": "s"}, "weak": weak}
    with pytest.raises(ValueError, match="the selector 'ifd' scores whole texts"):
        config(rationales=rationales, selection={"selector": "ifd"})


def test_what_only_says_how_to_ask_may_change_when_a_build_goes_on(
    config, engines, scripted, tmp_path: Path
) -> None:
    def with_sampling(**sampling: Any) -> BuildConfig:
        models = {"strong": {"checkpoint": "large"}, "weak": {"checkpoint": "little"}}
        sampling = {"n": 3, "batch_size": 6, **sampling}
        return config(rationales={**models, "scenes": 10, "sampling": sampling})

    def fail(prompt: Any, seed: int, k: int) -> str | None:
        raise EngineError("no")

    folder = tmp_path / "out"
    build_data(config(), tmp_path / "calm", display=QUIET)
    engines["little"].script = fail
    with pytest.raises(EngineError):
        build_data(config(), folder, display=QUIET)
    engines["little"].script = scripted.flaky
    with pytest.raises(RunError, match=r"rationales\.sampling\.n: 3 there, 4 here"):
        build_data(with_sampling(n=4), folder, display=QUIET)
    changed = with_sampling(batch_size=9, prompt_price=1.0, completion_price=2.0)
    build_data(changed, folder, display=QUIET)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["config"]["rationales"]["sampling"]["batch_size"] == 9
    assert json.loads((folder / "selection" / "usage.json").read_text())[0]["cost"] > 0
    same = contents(tmp_path / "calm").items() & contents(folder).items()
    assert {"train/preferences.jsonl", "selection/scenes.parquet"} <= dict(same).keys()


def test_two_processes_do_not_build_in_one_folder(config, engines, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with (
        FileLock(folder / ".lock"),
        pytest.raises(RunError, match="another process is building"),
    ):
        build_data(config(), folder, display=QUIET)
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_a_folder_in_which_somebody_is_at_work_is_refused(
    config, engines, tmp_path: Path, refused_while_busy
) -> None:
    folder = tmp_path / "out"
    refused_while_busy(folder, lambda: build_data(config(), folder, display=QUIET))
    refused_while_busy(
        tmp_path / "new", lambda: estimate_build(config(), tmp_path / "new", display=QUIET)
    )


def test_a_kill_at_the_very_beginning_does_not_lock_the_folder(
    config, engines, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / ".config.json.1.tmp").write_text('{"na')
    (folder / ".lock").touch()
    build_data(config(rationales=None), folder, display=QUIET)
    assert (folder / "card.html").is_file()


def test_an_estimate_builds_the_scenes_and_writes_nothing_else(
    config, engines, tiny_tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    monkeypatch.setattr(
        rationale_stage, "load_engine", lambda name, kind, **_: loaded.append(name) or engines[name]
    )
    other = tiny_tables.with_name("other.yaml")
    other.write_text(tiny_tables.read_text().replace("name: mine", "name: other"))
    settings = config(sources=[{"name": str(tiny_tables)}, {"name": str(other)}])
    folder = tmp_path / "out"
    found = estimate_build(settings, folder, display=QUIET)
    assert [(e.role, e.model, e.rationales) for e in found] == [
        ("strong", "large", 30), ("weak", "little", 30),
    ] * 2  # fmt: skip
    assert loaded == ["large", "little"]
    assert (folder / "scenes" / "train" / "mine.parquet").is_file()
    assert not (folder / "rationales").exists()
    assert estimate_build(config(rationales=None), tmp_path / "none", display=QUIET) == []
    strong = {"checkpoint": "hosted", "engine": "batch"}
    batch = config(rationales={"strong": strong, "weak": {"checkpoint": "little"}})
    with pytest.raises(ConfigError, match="only their provider knows"):
        estimate_build(batch, tmp_path / "batch", display=QUIET)
    assert not (tmp_path / "batch").exists()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"options": {"dtyp": "float16"}}, "Did you mean 'dtype'"),
        ({"engine": "openai", "options": {"bas_url": "x"}}, "Did you mean 'base_url'"),
    ],
)
def test_misspelt_engine_settings_are_told_before_the_scenes_are_built(
    config, tmp_path: Path, model: dict[str, Any], message: str
) -> None:
    rationales = {"strong": {"checkpoint": "smollm2-135m-instruct", **model},
                  "weak": {"checkpoint": "smollm2-135m-instruct"}}  # fmt: skip
    with pytest.raises(UnknownNameError, match=message):
        build_data(config(rationales=rationales), tmp_path / "out", display=QUIET)
    assert not (tmp_path / "out" / "tables").exists()
