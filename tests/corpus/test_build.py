"""One command from raw log to card: repeatable, resumable, and refusing what it cannot mean."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from usermirror_gym.cli import app
from usermirror_gym.corpus.audit import audit_build
from usermirror_gym.corpus.build import build_data
from usermirror_gym.corpus.built import read_build
from usermirror_gym.corpus.config import BuildConfig, read_config
from usermirror_gym.errors import ConfigError, RunError, UnknownNameError
from usermirror_gym.progress import Display
from usermirror_gym.scenes.table import SCHEMA, scenes_of

QUIET = Display(quiet=True)
SMALL: dict[str, Any] = {
    "scenes.train": 300, "scenes.validation": 40, "scenes.eval": 100, "scenes.embedding": "tfidf",
}  # fmt: skip


def small(**more: Any) -> BuildConfig:
    return read_config("ml-100k", {**SMALL, "rationales": None, **more})


def contents(folder: Path) -> dict[str, str]:
    """Checksum of every file but locks and caches."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock") and "cache" not in path.parts
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_data(small(), tmp_path_factory.mktemp("build"), display=QUIET)


def test_a_build_is_whole_and_passes_its_own_audit(built: Path) -> None:
    report = audit_build(built)
    assert [f for f in report.findings if f.failed] == []
    assert {f.check for f in report.findings if f.check.startswith("rankers")} == {
        "rankers: T0", "rankers: popularity", "rankers: collaborative",
        "rankers: what collaborative showed", "rankers: embedding",
    }  # fmt: skip
    (source,) = read_build(built).sources
    sizes = {split: source.scenes(split).num_rows for split in ("train", "validation", "eval")}
    assert sizes == {"train": 300, "validation": 40, "eval": 100}
    assert not any(name.endswith(".lock") for name in read_build(built).manifest["outputs"])
    names = {"card.md", "card.html", "manifest.json", "shortcuts.json", "train/direct.jsonl"}
    assert names <= contents(built).keys()


def test_scenes_are_usable_by_others_without_this_library(built: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    files = {split: str(built / "scenes" / split / "*.parquet") for split in ("train", "eval")}
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(built / "cache"))
    assert loaded["train"].num_rows == 300
    assert loaded["eval"].column_names == SCHEMA.names
    row = loaded["eval"][0]
    assert len(row["options"]) == len(row["slate"]) == 5
    assert len(row["history_texts"]) == len(row["history"])


def test_stored_words_are_those_of_the_prompt(built: Path) -> None:
    from usermirror_gym.scenes import PromptBuilder, PromptConfig, domain_text

    (source,) = read_build(built).sources
    table = source.scenes("eval")
    builder = PromptBuilder(domain_text(source.dataset), PromptConfig(form="scene"))
    for scene, row in zip(scenes_of(table)[:20], table.slice(0, 20).to_pylist(), strict=True):
        question = builder.letters(scene).messages[-1].content
        for text in (row["profile"], *row["history_texts"], *row["options"]):
            assert text in question


def test_the_same_settings_give_the_same_files(built: Path, tmp_path: Path) -> None:
    again = build_data(small(), tmp_path / "again", display=QUIET)
    assert contents(again) == contents(built)
    other = build_data(small(seed=1), tmp_path / "other", display=QUIET)
    scenes = "scenes/eval/ml-100k.parquet"
    assert contents(other)[scenes] != contents(built)[scenes]


def test_a_finished_build_is_left_alone(built: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*.parquet")}
    build_data(small(), built, display=QUIET)
    assert {path: path.stat().st_mtime_ns for path in built.rglob("*.parquet")} == before


def test_other_settings_do_not_go_on_in_the_same_folder(built: Path) -> None:
    with pytest.raises(RunError, match=r"other settings \(scenes\.train: 300 there, 301 here\)"):
        build_data(small(**{"scenes.train": 301}), built, display=QUIET)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunError, match="not empty and holds no build"):
        build_data(small(), tmp_path, display=QUIET)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("setting", "value", "error", "message"),
    [
        ("scenes.tran", 3, UnknownNameError, "Did you mean 'scenes.train'"),
        ("rationales.strong.checkpont", "x", UnknownNameError, "'rationales.strong.checkpoint'"),
        ("scenes.removed", 2, ConfigError, r"scenes\.removed: .* less than or equal to 1, got 2"),
        ("rationales.sampling.maxtokens", 9, UnknownNameError, "Did you mean 'max_tokens'"),
        ("sources", [{"name": "a", "scenes": {"tran": 1}}], UnknownNameError, "mean 'train'"),
        ("sources", [{"name": "a"}, {"name": "a"}], ConfigError, "'a' and 'a' would share"),
        ("sources", [{"name": "x/a.yaml"}, {"name": "y/a.yaml"}], ConfigError, "file name 'a'"),
        ("selection.selector", "dificulty", UnknownNameError, "Did you mean 'difficulty'"),
        ("scenes.samplers", {"unifrm": 1}, UnknownNameError, "Did you mean 'uniform'"),
        ("scenes.train_slate", [5, 2], ConfigError, "train_slate must go from low to high"),
        ("scenes.embedding", None, ConfigError, "'content' needs item embeddings"),
        ("rationales.strong", {"checkpoint": "x", "engine": "batch", "options": {"base_url": 1}},
         ConfigError, "take 'base_url' out"),
        ("sources", [{"name": "a", "limits": {"min_usr": 1}}], UnknownNameError, "min_user"),
        ("sources", [{"name": "a", "limits": {"min_user": -3}}], ConfigError, "got -3"),
        ("rationales.weak.engine", "batch", ConfigError, "also the predictor"),
    ],
)  # fmt: skip
def test_settings_are_checked_before_anything_is_done(
    setting: str, value: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        read_config("ml-100k", {setting: value})


def test_t0_may_be_a_date_with_or_without_quotes(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    for written in ("1998-03-01", "'1998-03-01'"):
        path.write_text(f"{{name: mine, sources: [{{name: a}}], scenes: {{t0: {written}}}}}")
        assert read_config(path).scenes.t0 == "1998-03-01"


def test_every_preset_is_valid_and_names_known_sources() -> None:
    from usermirror_gym.configs import preset_names
    from usermirror_gym.data import SOURCES

    assert {"ml-100k", "usermirrorer"} <= set(preset_names("data"))
    for name in preset_names("data"):
        config = read_config(name)
        assert {source.name for source in config.sources} <= SOURCES.keys()
    recipe = read_config("usermirrorer")
    assert sum(recipe.scenes_of(source).train for source in recipe.sources) == 16_000
    assert len(recipe.sources) == 11


def test_a_data_set_of_ones_own(
    tmp_path: Path, tiny_tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = BuildConfig.model_validate(
        {
            "name": "mine",
            "sources": [{"name": str(tiny_tables)}],
            "scenes": {"train": 60, "validation": 5, "eval": 3000, "train_slate": [2, 5],
                       "validation_fraction": 0.2},
        }
    )  # fmt: skip
    folder = build_data(config, tmp_path / "out", display=Display())
    assert audit_build(folder).passed
    said = capsys.readouterr()
    assert "eval scenes, not 3,000: the log has no more" in " ".join((said.out + said.err).split())


def test_a_split_without_usable_events_is_named(tmp_path: Path) -> None:
    config = small(**{"scenes.min_history": 9999, "scenes.samplers": {"uniform": 1}})
    with pytest.raises(ConfigError, match="ml-100k, train scenes: no"):
        build_data(config, tmp_path, display=QUIET)


def test_command_line(tmp_path: Path) -> None:
    folder = tmp_path / "build"
    settings = [f"--set={k}={json.dumps(v)}" for k, v in {**SMALL, "rationales": None}.items()]
    run = CliRunner().invoke(
        app, ["data", "build", "--config", "ml-100k", "--out", str(folder), *settings]
    )
    assert run.exit_code == 0, run.output
    assert "card.html" in run.output
    shown = CliRunner().invoke(app, ["data", "show", str(folder), "--count", "2"])
    assert shown.exit_code == 0
    assert shown.output.count("My choice: [") == 2
    assert CliRunner().invoke(app, ["data", "audit", str(folder)]).exit_code == 0
    (folder / "scenes" / "eval" / "ml-100k.parquet").write_bytes(b"not parquet")
    broken = CliRunner().invoke(app, ["data", "audit", str(folder)])
    assert broken.exit_code == 1


KILLED = {
    **SMALL, "rationales.scenes": 3, "rationales.sampling.max_tokens": 16, "selection.size": 2,
}  # fmt: skip
COMMAND = [sys.executable, "-m", "usermirror_gym.cli", "data", "build", "--config", "ml-100k"]


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    """The whole way, with the real model: kill -9, again and again, then the undisturbed result."""
    settings = [f"--set={k}={json.dumps(v)}" for k, v in KILLED.items()]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    start = time.monotonic()
    subprocess.run([*COMMAND, "--out", str(tmp_path / "calm"), *settings], check=True, **quiet)
    duration = time.monotonic() - start
    command = [*COMMAND, "--out", str(tmp_path / "killed"), *settings]
    moments = random.Random(0)
    killed = 0
    while killed < 10:
        process = subprocess.Popen(command, start_new_session=True, **quiet)
        try:
            # Starting takes a part of each run; the later half of kills reaches the later stages.
            # The first is early: on a machine that was busy before, the whole may be quicker now.
            process.wait(timeout=moments.uniform(0.1, 0.9 if killed else 0.3) * duration)
            break  # it got to the end in spite of us
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
    subprocess.run(command, check=True, **quiet)
    assert killed > 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "calm")
