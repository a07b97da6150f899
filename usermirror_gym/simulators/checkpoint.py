"""A trained simulator as a folder, which says by itself how it wants to be asked.

``simulator.yaml``
    ``format: 1``, then the fields of :class:`~usermirror_gym.simulators.settings.LLMSettings` that
    are not at their default.  ``checkpoint`` is the name of the base weights; it is left out when
    the folder holds full weights.
``adapter_config.json``, ``adapter_model.safetensors``
    a LoRA adapter to the base weights (PEFT), or
``config.json``, ``model.safetensors`` and the tokenizer's files
    full weights.
``head.safetensors``
    options readout: ``weight`` (hidden,) and ``bias`` (1,), float32.
``affinity.safetensors``
    affinity readout: see :mod:`usermirror_gym.simulators.affinity.affinity_head`.
``session.safetensors``
    session readout: see :mod:`usermirror_gym.simulators.session.session_head`.
``surrogate.safetensors``
    surrogate: see :mod:`surrogate`.  ``checkpoint`` is then the name of
    its teacher, which is not needed to ask it.

A folder may come from anybody.  It says how a simulator is asked, and names its base weights on the
hub; whom to ask over the network, with which key, and where files are read and written, is for the
caller alone to say.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from usermirror_gym.checkpoints import shipped_checkpoints, shipped_folder
from usermirror_gym.engines.adapters import ADAPTER_CONFIG, HEAD_WEIGHTS
from usermirror_gym.engines.checkpoints import (
    cache_folder,
    fetch_from_hub,
    hub_file,
    network_is_off,
    resolve_checkpoint,
)
from usermirror_gym.errors import CheckpointError, ConfigError, UnknownNameError
from usermirror_gym.files import sha256, write_text
from usermirror_gym.foreign import file_name, parse_yaml
from usermirror_gym.simulators.affinity.affinity_head import AFFINITY_WEIGHTS
from usermirror_gym.simulators.session.session_head import SESSION_WEIGHTS
from usermirror_gym.simulators.settings import checked_settings, current_names
from usermirror_gym.simulators.surrogate.surrogate import SURROGATE_WEIGHTS

SIMULATOR_FILE = "simulator.yaml"
FORMAT = 1
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_IMPLIED = ("adapter", "head")
"""Settings that are paths, and follow from what the folder holds."""
_ENGINE = ("kind", "dtype", "device", "context_length", "padding_side", "reuse_prefix")
"""What a folder may say of the engine; the kind ``server`` is not among its kinds."""
_HEADS = (HEAD_WEIGHTS, AFFINITY_WEIGHTS, SESSION_WEIGHTS, SURROGATE_WEIGHTS)


def write_simulator(folder: str | Path, settings: Mapping[str, Any]) -> Path:
    """Write ``simulator.yaml``; weights and adapters are written by those who trained them.

    Args:
        folder: made if absent.
        settings: fields of ``LLMSettings``.  Without ``checkpoint`` the folder itself holds the
            weights.

    Returns:
        the file.

    Raises:
        UnknownNameError: a setting that does not exist; suggests the nearest.
        ConfigError: a value that cannot be used, or a path that only this machine knows.
    """
    folder = Path(folder)
    for name in _IMPLIED:
        if settings.get(name) is not None:
            raise ConfigError(
                f"{name} = {settings[name]!r} cannot be written: it follows from the files of the "
                f"simulator's folder. Put them into {folder}."
            )
    whole = checked_settings(folder.name, {"checkpoint": str(folder)}, settings)
    content = {"format": FORMAT, **whole.model_dump(mode="json", exclude_defaults=True)}
    if "checkpoint" not in settings:
        del content["checkpoint"]
    folder.mkdir(parents=True, exist_ok=True)
    path = write_text(
        folder / SIMULATOR_FILE, yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    )
    if not _is_name(content.get("checkpoint", "name")):  # base weights in a folder of this machine
        remember_own(path)
    return path


def read_simulator(folder_or_name: str | Path, given: Collection[str] = ()) -> dict[str, Any]:
    """Settings of a trained simulator, fields of ``LLMSettings``, as its folder says them.

    Args:
        folder_or_name: a folder with a ``simulator.yaml``, the name of one that ships with the
            package, or of a repository of the Hugging Face hub.
        given: settings that the caller makes instead of the folder.

    Raises:
        UnknownNameError: nothing of that name; suggests the nearest that ships with the package.
        CheckpointError: the folder has no ``simulator.yaml``, one that cannot be read, or one that
            says what only the caller may say.
    """
    folder = find_simulator(folder_or_name)
    if folder is not None:
        return _read(folder, given)
    if Path(folder_or_name).expanduser().exists() or "/" in str(folder_or_name):
        raise CheckpointError(
            f"{folder_or_name} has no {SIMULATOR_FILE}: it is no trained simulator. Name the "
            "folder 'checkpoint' of a finished training run."
        )
    raise UnknownNameError("trained simulator", folder_or_name, shipped_checkpoints())


def fetch_simulator(name: str) -> Path:
    """Bring everything that a trained simulator, or bare weights, need to this machine; what is
    here already is compared with its checksums, and brought anew if it is damaged.

    Returns:
        the folder of the simulator or of the weights.

    Raises:
        CheckpointError: nothing of that name, no network, or files that are damaged.
    """
    folder = find_simulator(name)
    if folder is None:
        return resolve_checkpoint(name, verify=True)
    if not Path(name).expanduser().exists() and shipped_folder(name) is None:
        fetch_from_hub(name, offline=network_is_off(), needs=SIMULATOR_FILE, verify=True)
    settings = read_simulator(folder)
    if settings.get("readout") != "surrogate":  # which needs no LLM
        resolve_checkpoint(settings["checkpoint"], verify=True)
    return folder


def find_simulator(folder_or_name: str | Path) -> Path | None:
    """The folder with the ``simulator.yaml``, fetched from the hub if need be; ``None`` if nothing
    of that name has one.

    Raises:
        CheckpointError: the hub has no such repository, or asks for access.
    """
    name = str(folder_or_name)
    shipped = shipped_folder(name)
    if shipped is not None:
        return shipped
    path = Path(name).expanduser()
    if path.exists():
        return path if (path / SIMULATOR_FILE).is_file() else None
    offline = network_is_off()
    if not _REPOSITORY.fullmatch(name) or not hub_file(name, SIMULATOR_FILE, offline=offline):
        return None
    return fetch_from_hub(name, offline=offline, needs=SIMULATOR_FILE)


def _read(folder: Path, given: Collection[str]) -> dict[str, Any]:
    path = folder / SIMULATOR_FILE
    try:
        content = parse_yaml(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise CheckpointError(
            f"{path} does not begin with 'format: {FORMAT}': it was written by another version of "
            "this package. Update the package, or train again."
        )
    content = current_names(content, path)
    for name in _IMPLIED:
        if name in content:
            raise CheckpointError(f"{path} sets {name!r}, which follows from the folder's files")
    told = {name: value for name, value in content.items() if name not in given}
    if told.get("readout", "") == "surrogate" or is_own(path):
        told.pop("checkpoint", None)  # the teacher's name, which is not followed; or our own path
    check_foreign(told, path)
    if (folder / ADAPTER_CONFIG).is_file():
        content["adapter"] = str(folder)
    if any((folder / name).is_file() for name in _HEADS):
        content["head"] = str(folder)
    if "checkpoint" not in content:
        if not (folder / "config.json").is_file():
            raise CheckpointError(
                f"{path} names no checkpoint, and the folder holds no weights (config.json): add "
                "'checkpoint: NAME' with the base weights."
            )
        content["checkpoint"] = str(folder)
    return content


def check_foreign(told: Mapping[str, Any], path: Path, cure: str = "") -> None:
    """Refuse what would decide whom this machine talks to, with what key, or what it reads and
    writes.

    Args:
        told: settings, fields of ``LLMSettings``.
        path: the file that says them.
        cure: what to do, by default how the caller makes the setting.

    Raises:
        CheckpointError: names the setting and the cure.
    """
    engine = told.get("engine", {})
    bad = {"answers": told["answers"]} if told.get("answers") is not None else {}
    if not _is_name(told.get("checkpoint", "name")):
        bad["checkpoint"] = told["checkpoint"]
    if not isinstance(engine, dict):
        bad["engine"] = engine
    else:
        bad |= {
            f"engine.{name}": value
            for name, value in engine.items()
            if name not in _ENGINE
            or not isinstance(value, str | int | None)
            or (name == "kind" and value not in ("auto", "transformers", "vllm"))
        }
    for name, value in bad.items():
        whole = name.partition(".")[0]
        raise CheckpointError(
            f"{path} sets {name} = {str(value)[:200]!r}, which a simulator's folder may not say: "
            "servers, keys, files and folders of this machine are for you to name. "
            + (cure or f"If you trust it, give it yourself, as in --set {whole}=...")
        )


def _is_name(checkpoint: object) -> bool:
    """Whether it is the name of weights: no path, and no model behind a server."""
    if not isinstance(checkpoint, str):
        return False
    parts = checkpoint.split("/")
    named = all(file_name(part) and ":" not in part for part in parts)
    return named and len(parts) <= 2 and not parts[-1].endswith(".gguf")


def remember_own(path: Path) -> None:
    """Note that this machine wrote a file: paths and servers in it may be followed here, and are
    foreign elsewhere."""
    write_text(_own(path), str(path))


def is_own(path: Path) -> bool:
    """Whether a file holds what :func:`remember_own` noted, wherever it lies now."""
    return _own(path).is_file()


def _own(path: Path) -> Path:
    return cache_folder() / "own-files" / f"{sha256(path)}.txt"
