"""Importing is light, and imports between the rooms run one way."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "recbole", "transformers", "matplotlib", "vllm", "stable_baselines3")
# Bottom up, a level for every room: two rooms on one level could import each other unseen.
ROOMS = (
    "types", "errors", "foreign", "files", "progress", "threads", "configs", "run_folder",
    "checkpoints", "data", "engines", "scenes", "measures", "report", "simulators", "envs",
    "agents", "corpus", "train", "fidelity", "benchmark", "experiments", "testing", "cli",
)  # fmt: skip
LEVEL = {room: level for level, room in enumerate(ROOMS)}


def source_files() -> list[tuple[str, Path]]:
    """(room, file) of every source file; the links under usermirror_gym/ are not followed."""
    files = []
    for file in sorted(ROOT.glob("usermirror_gym/**/*.py")):
        parts = file.relative_to(ROOT / "usermirror_gym").parts
        if parts[0] not in ("agents", "envs", "configs"):
            files.append((Path(parts[0]).stem, file))
    for room in ("agents", "envs", "configs"):
        files += [(room, file) for file in sorted((ROOT / room).rglob("*.py"))]
    return files


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything of this package that a file imports, at any depth."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and re.match(r"usermirror_gym\.\w", str(node.value)):
            names = [str(node.value).replace(":", ".")]  # for import_module, or an entry point
        else:
            continue
        for name in names:
            if name.split(".")[0] == "usermirror_gym":
                yield node.lineno, name


def test_every_file_belongs_to_a_known_room() -> None:
    rooms = {room for room, _ in source_files()}
    assert rooms - {"__init__"} <= set(LEVEL)
    assert {"data", "agents", "envs", "types"} <= rooms


def test_imports_run_one_way() -> None:
    upward = []
    for room, file in source_files():
        for line, name in imported(file):
            target = name.split(".")[1] if "." in name else ""
            if target not in LEVEL or room == "__init__":
                continue  # `from usermirror_gym import __version__`; the root only registers names
            if LEVEL[target] > LEVEL[room]:
                upward.append(f"{file.relative_to(ROOT)}:{line}: {room} -> {target}")
    assert upward == []


def test_no_room_uses_the_private_names_of_another() -> None:
    private = []
    for room, file in source_files():
        for line, name in imported(file):
            _, target, *rest = [*name.split("."), ""]
            hidden = [part for part in rest if part.startswith("_") and not part.endswith("__")]
            if target in LEVEL and target != room and hidden:
                private.append(f"{file.relative_to(ROOT)}:{line}: {name}")
    assert private == []


def test_no_folder_is_wide() -> None:
    """At most 16 files in a folder, and in a room 12 % of the lines of the library."""
    files = [file for _, file in source_files()]
    crowded = {str(f): n for f, n in Counter(file.parent for file in files).items() if n > 16}
    assert crowded == {}
    lines: Counter[str] = Counter()
    for room, file in source_files():
        lines[room] += len(file.read_text(encoding="utf-8").splitlines())
    assert {room: n for room, n in lines.items() if n > 0.12 * lines.total()} == {}


@pytest.mark.parametrize("room", ["", ".agents", ".cli", ".data", ".envs"])
def test_import_loads_nothing_heavy(room: str, tmp_path: Path) -> None:
    code = f"import usermirror_gym{room}, json, sys; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    loaded = {name.split(".")[0] for name in json.loads(out.stdout)}
    assert sorted(loaded & set(HEAVY)) == []


def test_import_takes_under_half_a_second(tmp_path: Path) -> None:
    # Processor time, so that a busy machine does not decide.
    code = "from time import process_time as t; a = t(); import usermirror_gym; print(t() - a)"
    seconds = [
        float(subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path)) for _ in range(3)
    ]
    assert min(seconds) < 0.5, seconds


def test_registered_environment_is_found_without_torch(tmp_path: Path) -> None:
    code = (
        "import gymnasium, sys, usermirror_gym; "
        "spec = gymnasium.spec('UserMirror/Slate-v0'); "
        "assert isinstance(spec.entry_point, str) and isinstance(spec.vector_entry_point, str); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
