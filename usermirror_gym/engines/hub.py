"""Checkpoints of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from usermirror_gym.errors import CheckpointError

_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
"""What an engine needs of a repository: weights as safetensors, configuration and tokenizer."""


def fetch_from_hub(name: str, *, offline: bool) -> Path:
    """Folder with the files of a hub repository, downloaded once into the hub's own cache.

    Raises:
        CheckpointError: the hub has no such repository, cannot be reached, or asks for access.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(name, allow_patterns=_FILES, local_files_only=offline)
    except Exception as error:  # HTTP, validation and file errors of huggingface_hub
        raise CheckpointError(_explain(name, error, offline)) from error
    if not (Path(folder) / "config.json").is_file():
        raise CheckpointError(f"the hub repository {name!r} has no config.json: not a model.")
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
