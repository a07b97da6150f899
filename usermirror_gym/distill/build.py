"""One command builds everything: tables, scenes, rationales, selected pairs, audits, card.

A build is a folder:

    config.json                        the settings; another build cannot go on in it
    tables/<source>/                   the unified data set (see usermirror_gym.data.store)
    rankers/<source>.npz               what lists were drawn from, fitted before T0
    scenes/<split>/<source>.parquet    see usermirror_gym.scenes.table
    facts/<source>.json                T0, what was dropped, checksums of the raw files
    rationales/<source>/*.jsonl        what both models wrote, and the predictor's probabilities
    selection/                         the uncertainty of every scene and why it was (not) kept
    train/*.jsonl                      preference pairs and SFT rows for TRL
    shortcuts.json                     accuracy of controls that never see the history
    card.md, card.html                 the data card
    manifest.json                      checksums of all of it, written last

A build that was killed goes on where it was, and ends with the same files as one that was not.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import usermirror_gym
from usermirror_gym.distill.audit import AuditReport, audit_build
from usermirror_gym.distill.built import read_build
from usermirror_gym.distill.config import BuildConfig
from usermirror_gym.distill.scene_stage import SceneStage
from usermirror_gym.errors import RunError
from usermirror_gym.files import read_json, remove_unfinished, sha256, write_json
from usermirror_gym.progress import Display

_UNLISTED = ("manifest.json", "cache", ".lock")
_PACKAGES = ("numpy", "pandas", "pyarrow", "scipy", "scikit-learn", "torch", "transformers")


def build_data(config: BuildConfig, folder: str | Path, *, display: Display) -> Path:
    """Run a build to its end, or go on with it.

    Args:
        config: the settings; see :func:`usermirror_gym.distill.config.read_config`.
        folder: the build's own folder.
        display: says what is going on.

    Returns:
        The folder.

    Raises:
        RunError: the folder holds a build with other settings, or something else, or another
            process is building in it.
        UserMirrorError: whatever a stage raises; what was done stays, and the next run goes on.
    """
    folder = Path(folder)
    _begin(config, folder)
    try:
        with FileLock(folder / ".lock", timeout=0):
            remove_unfinished(folder)
            if not (folder / "manifest.json").is_file():
                _run(config, folder, display)
    except Timeout as error:
        raise RunError(f"another process is building in {folder}") from error
    return folder


def _begin(config: BuildConfig, folder: Path) -> None:
    settings = json.loads(config.model_dump_json())
    path = folder / "config.json"
    if path.is_file():
        different = _differences(read_json(path), settings)
        if different:
            raise RunError(
                f"{folder} holds a build with other settings ({'; '.join(different[:3])}). "
                "Use another folder, or delete this one."
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise RunError(f"{folder} is not empty and holds no build; use another folder")
    else:
        write_json(path, settings)


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(k for k in new if k not in old)]
        parts = [_differences(old.get(k), new.get(k), f"{name}.{k}" if name else k) for k in keys]
        return [d for part in parts for d in part]
    return [] if old == new else [f"{name}: {old!r} there, {new!r} here"]


def _run(config: BuildConfig, folder: Path, display: Display) -> None:
    stages = [SceneStage(config, source, folder, display) for source in config.sources]
    facts = {stage.slug: stage.run() for stage in stages}
    write_manifest(config, folder, facts)


def write_manifest(config: BuildConfig, folder: Path, facts: dict[str, Any]) -> None:
    """What the build consists of; its presence says that the build is whole."""
    outputs = {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in _UNLISTED
    }
    write_json(
        folder / "manifest.json",
        {
            "format": 1,
            "name": config.name,
            "seed": config.seed,
            "config": json.loads(config.model_dump_json()),
            "sources": facts,
            "versions": {
                "usermirror-gym": usermirror_gym.__version__,
                **{name: version(name) for name in _PACKAGES},
            },
            "outputs": outputs,
        },
    )
