"""How an LLM is asked: one contract (:mod:`~usermirror_gym.engines.base`), several runtimes."""

from __future__ import annotations

from typing import Any

from usermirror_gym.engines.base import Engine, OptionScores
from usermirror_gym.engines.checkpoints import DEFAULT_CHECKPOINT, resolve_checkpoint

__all__ = ["DEFAULT_CHECKPOINT", "Engine", "OptionScores", "load_engine", "resolve_checkpoint"]


def load_engine(name: str = DEFAULT_CHECKPOINT, **kwargs: Any) -> Engine:
    """An engine for a checkpoint name, a folder or a GGUF file.

    Args:
        name: see :func:`~usermirror_gym.engines.checkpoints.resolve_checkpoint`.
        **kwargs: settings of
            :class:`~usermirror_gym.engines.transformers_engine.TransformersEngine`.

    Returns:
        An engine whose weights are loaded at the first question.
    """
    from usermirror_gym.engines.transformers_engine import TransformersEngine

    return TransformersEngine(name, **kwargs)
