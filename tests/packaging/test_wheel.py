"""The built wheel is complete and works away from the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


def run(*command: str, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def published(root: Path) -> list[str]:
    """Files that git tracks or would track, relative to the repository."""
    listed = run("git", "ls-files", "-co", "--exclude-standard", cwd=root).splitlines()
    return [name for name in listed if (root / name).exists()]


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    # From a copy: building in place would leave build/ behind, and reuse what is in it.
    source = tmp_path_factory.mktemp("source")
    for name in published(root):
        if name.startswith(("tests/", "notebooks/", "docs/")):
            continue
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, target, follow_symlinks=False)
    out = tmp_path_factory.mktemp("dist")
    run(
        sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), ".",
        cwd=source,
    )  # fmt: skip
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    run(
        sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet",
        "--target", str(target), str(wheel), cwd=target,
    )  # fmt: skip
    return target


def test_no_bare_top_level_names(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"usermirror_gym"}


def test_wheel_holds_every_file_of_every_room(wheel: Path, root: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    wanted = set()
    for name in published(root):
        top = name.split("/")[0]
        if top in ("agents", "configs", "envs"):
            wanted.add(f"usermirror_gym/{name}")
        elif top == "usermirror_gym" and not (root / name).is_symlink():
            wanted.add(name)
    assert sorted(wanted - inside) == []
    assert {"usermirror_gym/py.typed", "usermirror_gym/agents/__init__.py"} <= wanted


def test_wheel_works_from_another_directory(installed: Path, root: Path, tmp_path: Path) -> None:
    code = """
import importlib, importlib.resources, json, sys
import usermirror_gym
names = json.loads(sys.argv[1])
for name in names:
    importlib.import_module(name)
from usermirror_gym.data import load_dataset
files = [m.__file__ for n, m in sys.modules.items() if n.split(".")[0] == "usermirror_gym"]
print(json.dumps({
    "files": files, "version": usermirror_gym.__version__, "items": load_dataset().n_items,
    "typed": importlib.resources.files("usermirror_gym").joinpath("py.typed").is_file(),
}))
"""
    names = ["usermirror_gym.agents", "usermirror_gym.envs", "usermirror_gym.configs"]
    # The editable install of this environment is found by a finder hook, after sys.path.
    out = run(
        sys.executable, "-c", code, json.dumps(names), cwd=tmp_path, PYTHONPATH=str(installed)
    )
    seen = json.loads(out)
    assert all(Path(file).is_relative_to(installed) for file in seen["files"])
    assert not any(Path(file).is_relative_to(root) for file in seen["files"])
    assert seen["items"] == 1682
    assert seen["typed"]
    (info,) = installed.glob("usermirror_gym-*.dist-info")
    assert info.name == f"usermirror_gym-{seen['version']}.dist-info"


def test_metadata_names_script_license_and_extras(installed: Path) -> None:
    (info,) = installed.glob("usermirror_gym-*.dist-info")
    assert "usermirror = usermirror_gym.cli:app" in (info / "entry_points.txt").read_text()
    assert list(info.rglob("LICENSE"))
    metadata = (info / "METADATA").read_text()
    for extra in ("vllm", "train", "rl", "server", "notebooks", "dev"):
        assert f"Provides-Extra: {extra}\n" in metadata
    assert "Requires-Python: >=3.11" in metadata
    assert "License-Expression: MIT" in metadata
