"""How an LLM is asked: one contract (:mod:`~usermirror_gym.engines.base`), several runtimes."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from usermirror_gym.engines.base import Engine, OptionScores
from usermirror_gym.engines.checkpoints import DEFAULT_CHECKPOINT, resolve_checkpoint
from usermirror_gym.errors import UnknownNameError

__all__ = [
    "DEFAULT_CHECKPOINT",
    "SERVER_PREFIX",
    "Engine",
    "OptionScores",
    "load_engine",
    "resolve_checkpoint",
]

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
            :class:`~usermirror_gym.engines.transformers_engine.TransformersEngine`,
            :class:`~usermirror_gym.engines.vllm_engine.VLLMEngine` or
            :class:`~usermirror_gym.engines.server_engine.ServerEngine`; ``adapter=`` and ``head=``
            are the folders of what was trained on top of the weights.

    Returns:
        An engine whose weights are loaded, or whose server is asked, at the first question.

    Raises:
        UnknownNameError: no such kind, or the engine has no such setting; suggests the nearest.
        ConfigError: a server's model with the kind of a local engine, or the other way about.
        MissingDependencyError: the package of that engine is not installed.
    """
    from usermirror_gym.engines.choosing import choose_kind

    chosen = choose_kind(str(name), kind, kwargs)
    if chosen == "server":
        from usermirror_gym.engines.server_engine import ServerEngine

        return _made(ServerEngine, str(name).removeprefix(SERVER_PREFIX), kwargs)
    if chosen == "vllm":
        from usermirror_gym.engines.vllm_engine import VLLMEngine

        return _made(VLLMEngine, name, kwargs)
    from usermirror_gym.engines.transformers_engine import TransformersEngine

    return _made(TransformersEngine, name, kwargs)


def _made(kind: type[Any], name: str | Path, settings: dict[str, Any]) -> Engine:
    _, *known = inspect.signature(kind).parameters
    for setting in settings:
        if setting not in known:
            raise UnknownNameError(f"{kind.__name__} setting", setting, known)
    engine: Engine = kind(name, **settings)
    return engine
