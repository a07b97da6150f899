"""A saved agent: a folder with ``agent.json`` and arrays as safetensors; no pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from usermirror_gym.errors import AgentError, CheckpointError, UnknownNameError
from usermirror_gym.files import replacing_folder, sha256, write_bytes, write_text
from usermirror_gym.foreign import parse_json

FORMAT = 1
HEADER, TENSORS = "agent.json", "agent.safetensors"
Arrays = dict[str, np.ndarray]


def save_files(
    folder: Path,
    header: Mapping[str, Any],
    arrays: Mapping[str, Arrays],
    write: Callable[[Path], object] = lambda new: None,
) -> Path:
    """Write an agent into ``folder``, which appears when it is whole; returns it.

    An agent saved there before is replaced.

    Args:
        header: plain types, for ``agent.json``.
        arrays: by the name of their file, and by their own.
        write: puts further files into the new folder.

    Raises:
        AgentError: ``folder`` exists and holds something other than a saved agent.
    """
    from safetensors.numpy import save

    folder = folder.expanduser().absolute()
    try:
        names = {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        names = set()
    # Looked at twice: another process may be putting its agent there.
    if names and HEADER not in names and not (folder / HEADER).is_file():
        raise AgentError(f"{folder} exists and is not a saved agent; choose another folder")
    with replacing_folder(folder) as new:
        for name, own in arrays.items():
            # Views, matrices and non-contiguous arrays would be written wrongly.
            content = save({key: np.array(values, order="C") for key, values in own.items()})
            write_bytes(new / name, content)
        write(new)
        text = json.dumps({"format": FORMAT} | dict(header), indent=1)
        write_text(new / HEADER, text + "\n")
    return folder


@contextmanager
def loading(folder: Path) -> Iterator[dict[str, Any]]:
    """The header of a saved agent; in the block its arrays are read and the agent is made.

    An agent may be anybody's: nothing in it is run, evaluated or followed as a path.

    Raises:
        CheckpointError: a file is missing, damaged, or of another format; or the block fails.
    """
    try:
        header = parse_json((folder / HEADER).read_text(encoding="utf-8"))
        if not isinstance(header, dict):
            raise ValueError(f"{HEADER} is no mapping")
        if header["format"] != FORMAT:
            raise CheckpointError(
                f"{folder} has format {header['format']}, this version reads {FORMAT}; train and "
                "save the agent again"
            )
        yield header
    except (CheckpointError, UnknownNameError):
        raise
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} holds no saved agent: {Path(error.filename).name} is missing"
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"the agent saved in {folder} cannot be read ({type(error).__name__}: {error}); train "
            "and save it again"
        ) from error


def read_arrays(path: Path) -> Arrays:
    """The arrays in one file of a saved agent."""
    from safetensors.numpy import load_file

    if not path.is_file():
        raise FileNotFoundError(2, "no such file", str(path))
    arrays: Arrays = load_file(path)
    return arrays


def folder_digest(folder: Path) -> str:
    """Sixteen hexadecimal digits of a saved agent, its source included."""
    files = [folder / HEADER, *folder.rglob("*.safetensors"), *folder.glob("*/*.json")]
    found = [f"{f.relative_to(folder)} {sha256(f)}" for f in sorted(files) if f.is_file()]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:16]
