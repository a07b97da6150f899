"""README and pages: short where they should be, and nothing they point at is missing."""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.docs.pages import PAGES, ROOT, blocks, prose
from usermirror_gym.cli import app
from usermirror_gym.envs.world import make_world

README = (ROOT / "README.md").read_text(encoding="utf-8")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FOLDERS = (
    "usermirror_gym", "agents", "envs", "configs", "tests", "docs", "benchmarks", "notebooks",
)  # fmt: skip
PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./<>*{{}}-]*")
DOTTED = re.compile(r"(?<![\w./-])usermirror_gym(?:\.\w+)+")
ENTRY_POINTS = {f"usermirror_gym.{group}" for group in ("agents", "rewards", "sessions")}


def relative(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(params=PAGES, ids=relative)
def page(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


def test_the_readme_is_short_and_starts_with_python() -> None:
    lines = README.splitlines()
    assert len(lines) <= 130
    first = next(n for n, line in enumerate(lines) if line.startswith("```python"))
    picture = next(n for n, line in enumerate(lines) if line.startswith("!["))
    assert first <= 6
    assert picture <= 20
    sentence = " ".join(lines[1:first]).strip()
    assert len(re.findall(r"[.!?](?:\s|$)", sentence)) == 1
    program = [line for line in blocks(README)[0].content.splitlines() if line]
    assert len(program) <= 10


def test_the_tree_of_the_readme_is_the_tree() -> None:
    (tree,) = (block.content for block in blocks(README) if "checkpoints/" in block.content)
    shown = set(re.findall(r"^ *(\w+)/", tree, re.MULTILINE)) | set(re.findall(r" (\w+)/", tree))
    rooms = {
        path.name
        for parent in (ROOT, ROOT / "usermirror_gym", ROOT / "agents")
        for path in parent.iterdir()
        if path.is_dir() and path.name[0] not in "._" and not path.name.endswith(".egg-info")
    }
    assert rooms - {"build", "dist", "runs", "shared"} == shown


def run_readme(capsys: pytest.CaptureFixture[str]) -> str:
    (program,) = (block.content for block in blocks(README) if block.kind == "python")
    exec(compile(program, "README.md", "exec"), {"__name__": "readme"})
    return capsys.readouterr().out


def check_printed(printed: str) -> None:
    assert printed.count("Reward ") == 3
    assert "none of these" in printed
    probabilities = [float(p) for p in printed.rsplit("[", 1)[1].strip(" ]\n").split()]
    assert len(probabilities) == 6
    assert sum(probabilities) == pytest.approx(1.0, abs=1e-6)


def test_the_python_of_the_readme_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it stands, but for the user: the surrogate of the default user needs no download."""
    monkeypatch.setitem(make_world.__kwdefaults__, "simulator", "surrogate")
    check_printed(run_readme(capsys))


@pytest.mark.slow
def test_the_python_of_the_readme_runs_with_the_default_user(
    capsys: pytest.CaptureFixture[str],
) -> None:
    check_printed(run_readme(capsys))


def test_the_python_about_the_environment_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict = {"__name__": "page"}
    text = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
    for block in blocks(text):
        assert block.kind == "python"
        exec(compile(block.content, "docs/environment.md", "exec"), names)
    assert "Chosen" in capsys.readouterr().out
    assert names["observations"]["user_id"].shape == (64,)


def test_the_python_of_every_page_is_python(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.kind == "python":
            compile(block.content, str(page), "exec")


def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(prose(page.read_text(encoding="utf-8"))):
        if re.match(r"https?:|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in anchors(path.read_text("utf-8"))):
            broken.append(target)
    assert not broken


def mentioned(text: str) -> Iterator[str]:
    """Paths of this repository that a text names; what stands for a name becomes a star."""
    for found in PATH.findall(text):
        path = re.sub(r"<\w+>|\{\w+\}|\*+", "*", found).rstrip(".-")
        if path.partition("/")[2]:
            yield path


def test_every_path_that_is_mentioned_exists(page: Path) -> None:
    missing = [
        path
        for path in mentioned(page.read_text(encoding="utf-8"))
        if not any(ROOT.glob(path.rstrip("/")))
    ]
    assert not missing


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_every_module_that_is_mentioned_exists(page: Path) -> None:
    names = set(DOTTED.findall(page.read_text(encoding="utf-8"))) - ENTRY_POINTS
    assert not [name for name in sorted(names) if not resolves(name)]


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    text = index.read_text(encoding="utf-8")
    listed = {(index.parent / target).resolve() for target in LINK.findall(text)}
    pages = {path for path in PAGES if path.parent != ROOT} - {index}
    assert not pages - listed


def test_every_word_of_the_glossary_has_a_file() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    entries = re.findall(r"^- \*\*(.+?)\*\*: (.+?)(?=^- |^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert len(entries) > 40
    for word, meaning in entries:
        assert list(mentioned(meaning)), f"{word}: in which file does it live?"


def command_lines(page: Path) -> Iterator[list[str]]:
    """Every call of the command in the blocks of a page and in its code marks, in words."""
    text = page.read_text(encoding="utf-8")
    marked = re.findall(r"`([^`]+)`", prose(text))
    shells = [b.content.replace("\\\n", " ") for b in blocks(text) if b.kind == "bash"]
    for line in [line for shell in shells for line in shell.splitlines()] + marked:
        found = re.search(r"(?:^|/|\s)usermirror (.*)", line.split("#")[0])
        if found:
            yield found.group(1).split()


def test_every_command_and_option_that_is_mentioned_exists(page: Path) -> None:
    root = typer.main.get_command(app)
    unknown = []
    for words in command_lines(page):
        command: Any = root
        while words and hasattr(command, "commands") and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        if hasattr(command, "commands") and words:
            unknown += words[:1]
        known = {name for part in command.params for name in (*part.opts, *part.secondary_opts)}
        unknown += [
            f"{command.name} {word}"
            for word in words
            if word.startswith("--") and word.split("=")[0] not in {*known, "--help"}
        ]
    assert not unknown


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_what_a_notebook_imports_exists(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    source = "\n".join(line for line in "\n".join(sources).splitlines() if line[:1] != "%")
    imported = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("usermirror_gym")
        for alias in node.names
    ]
    assert imported
    assert not [name for name in imported if not resolves(name)]
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    assert not [name for name in mentioned(text) if not any(ROOT.glob(name.rstrip("/")))]
