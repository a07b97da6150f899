"""Checkpoints of the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path

from usermirror_gym.errors import CheckpointError

_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
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


def fetch_from_hub(name: str, *, offline: bool, needs: str = "config.json") -> Path:
    """Folder with the files of a hub repository, downloaded once into the hub's own cache.

    Args:
        needs: a file without which the repository is of no use.

    Raises:
        CheckpointError: the hub has no such repository, cannot be reached, or asks for access.
    """
    from huggingface_hub import snapshot_download

    try:
        patterns = [*_FILES, needs]
        folder = snapshot_download(name, allow_patterns=patterns, local_files_only=offline)
    except Exception as error:  # HTTP, validation and file errors of huggingface_hub
        raise CheckpointError(_explain(name, error, offline)) from error
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
