"""docs/custom-data.md does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from usermirror_gym.data import RecDataset, load_dataset
from usermirror_gym.scenes.words.template import domain_text

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)(?: title=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGE = (ROOT / "docs" / "custom-data.md").read_text(encoding="utf-8")
BLOCKS = [match.groups() for match in BLOCK.finditer(PAGE)]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's files in the current folder."""
    for _, title, content in BLOCKS:
        if title and "." in title:
            (tmp_path / title).write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_program_of_the_page_prints_what_the_page_says(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    programs = [content for kind, _, content in BLOCKS if kind == "python"]
    outputs = [content for _, title, content in BLOCKS if title == "output"]
    assert len(programs) == len(outputs) == 2
    for program, output in zip(programs, outputs, strict=True):
        exec(compile(program, "docs/custom-data.md", "exec"), {"__name__": "page"})
        assert capsys.readouterr().out.rstrip() == output.rstrip()


def test_the_mapping_of_the_page_is_the_shipped_example() -> None:
    (shown,) = (content for _, title, content in BLOCKS if title == "reading-room.yaml")
    assert shown == (ROOT / "configs" / "sources" / "custom-example.yaml").read_text(
        encoding="utf-8"
    )


def test_the_example_means_what_the_page_says(files: Path) -> None:
    data = load_dataset("reading-room.yaml")
    assert (data.name, data.domain) == ("reading-room", "book")
    assert data.users[["token", "city"]].to_numpy().tolist() == [
        ["C-17", "Kiel"],
        ["C-22", "Husum"],
    ]
    ferry = data.items.iloc[0]
    assert ferry[["title", "author", "year", "pages"]].tolist() == [
        "The Slow Ferry", "A. Ruhland", 1987, 210,
    ]  # fmt: skip
    assert ferry["available_from"] == 1556755200
    assert data.items["pages"].isna().tolist() == [False, False, True, False, False]
    first = data.interactions.iloc[0]
    assert first["timestamp"] == 1706951700  # 10:15 in Berlin is 9:15 UTC
    assert first["review"] == "Slow, but kind"
    assert first["rating"] == 4.0
    assert data.impressions is not None
    assert [a.tolist() for a in data.impressions.row(0)] == [[4, 5, 2], [True, False, False]]
    assert data.friends is not None
    assert data.friends.to_numpy().tolist() == [[1, 2], [2, 1]]


def with_template(folder: Path) -> RecDataset:
    (words,) = (content for _, title, content in BLOCKS if title == "words")
    mapping = (folder / "reading-room.yaml").read_text(encoding="utf-8")
    mapping = re.sub(r"^domain:.*\n", words, mapping, flags=re.MULTILINE)
    (folder / "own.yaml").write_text(mapping, encoding="utf-8")
    return load_dataset("own.yaml")


def test_own_words_are_used(files: Path) -> None:
    data = with_template(files)
    assert data.template is not None
    assert data.template["noun"] == "book"
    words = domain_text(data)
    assert words.option(1) == "The Slow Ferry by A. Ruhland, 1987"
    assert words.profile(1) == "From Kiel."


def test_the_words_of_the_example_domain_exist(files: Path) -> None:
    mapping = yaml.safe_load((files / "reading-room.yaml").read_text(encoding="utf-8"))
    assert (ROOT / "configs" / "domains" / f"{mapping['domain']}.yaml").is_file()
    assert domain_text(load_dataset("reading-room.yaml")).option(2).startswith("Foxes of the North")
