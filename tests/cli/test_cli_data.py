"""``usermirror data`` as a person meets it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from usermirror_gym.cli import app
from usermirror_gym.data import SOURCES, load_dataset
from usermirror_gym.data.sources.base import Download
from usermirror_gym.data.sources.movielens import ML1M
from usermirror_gym.errors import DataError

RAW = {
    "ratings.dat": "1::3::5::978300760\n",
    "users.dat": "1::F::1::10::00001\n",
    "movies.dat": "3::Quiet Harbour, The (1971)::Drama\n",
}


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["data", *arguments])


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("USERMIRROR_DATA", str(tmp_path / "root"))
    return tmp_path / "root"


def put(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, text in RAW.items():
        (folder / name).write_text(text)
    return folder


def status_of(output: str) -> dict[str, str]:
    words = [line.split() for line in output.splitlines()]
    return {line[0]: line[2] for line in words if line and line[0] in SOURCES}


def test_sources_are_listed_with_terms_and_whether_they_are_here(root: Path) -> None:
    before = call("sources")
    assert before.exit_code == 0
    assert set(status_of(before.output)) == set(SOURCES)
    assert status_of(before.output)["ml-1m"] == "no"
    assert status_of(before.output)["ml-100k"] == "included"
    put(root / "ml-1m")
    output = call("sources").output
    assert status_of(output)["ml-1m"] == "yes"
    for text in ("no redistribution", "Accept the licence", "data fetch lastfm", "CC BY-SA 4.0"):
        assert text in " ".join(output.split())


def test_what_was_fetched_is_found_by_name(root: Path) -> None:
    with pytest.raises(DataError, match="--data-folder"):
        load_dataset("ml-1m")
    put(root / "ml-1m")
    assert load_dataset("ml-1m").titles == ["", "The Quiet Harbour"]


def test_files_that_are_there_are_left_alone(root: Path) -> None:
    folder = put(root / "ml-1m")
    result = call("fetch", "ml-1m")
    assert result.exit_code == 0
    assert str(folder) in result.output.replace("\n", "")


def test_fetch_says_what_to_do_where_nothing_can_be_fetched(root: Path) -> None:
    result = call("fetch", "mind")
    text = " ".join(result.output.split())
    assert result.exit_code == 1
    for part in ("put behaviors.tsv, news.tsv into", "msnews.github.io", "non-commercial research"):
        assert part in text
    assert str(root / "mind") in text.replace(" ", "")
    assert "Traceback" not in text


def test_a_failed_download_is_one_readable_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ML1M, "downloads", (Download("ftp://127.0.0.1/ml-1m.zip"),))
    result = call("fetch", "ml-1m", "--folder", str(tmp_path / "mine"))
    text = " ".join(result.output.split())
    assert result.exit_code == 1
    assert "cannot be fetched" in text
    assert "put ratings.dat, users.dat, movies.dat into" in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ml1m", "Did you mean 'ml-1m'?"),
        ("amazon:All_Beaty", "Did you mean 'All_Beauty'?"),
        ("nothing.yaml", "cannot read nothing.yaml"),
    ],
)
def test_mistaken_names_are_told(name: str, message: str) -> None:
    result = call("fetch", name)
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())


@pytest.fixture
def small_build(tmp_path: Path) -> Path:
    config = tmp_path / "small.yaml"
    config.write_text(
        "{name: small, sources: [{name: ml-100k}], scenes: {train: 20, validation: 0, eval: 4}}"
    )
    folder = tmp_path / "built"
    assert call("build", "--config", str(config), "--out", str(folder)).exit_code == 0
    return folder


def test_show_prints_scenes_and_says_where_there_are_none(small_build: Path) -> None:
    shown = call("show", str(small_build), "--count", "2")
    assert shown.exit_code == 0
    assert shown.output.count("== ml-100k/") == 2
    empty = call("show", str(small_build), "--split", "validation")
    assert (empty.exit_code, empty.output) == (0, "ml-100k has no validation scenes\n")
    assert call("show", str(small_build), "--count=-1").exit_code == 2


def test_a_folder_that_cannot_be_written_is_one_readable_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = call("build", "--config", "ml-100k", "--out", str(tmp_path / "file" / "inner"))
    text = "".join(result.output.split())
    assert result.exit_code == 1
    assert "Notadirectory" in text
    assert str(tmp_path / "file") in text
    assert "Traceback" not in text


def test_a_setting_that_is_no_yaml_is_one_readable_error() -> None:
    result = call("build", "--config", "ml-100k", "--set", "scenes.train=[1")
    assert result.exit_code == 1
    assert "--set scenes.train=[1: the value is not YAML" in " ".join(result.output.split())


def test_ctrl_c_ends_with_a_word_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("usermirror_gym.corpus.build.build_data", interrupted)
    result = call("build", "--config", "ml-100k")
    assert result.exit_code == 130
    assert "Stopped" in result.output
