"""How an LLM is asked: one contract (:mod:`~usermirror_gym.engines.base`), several runtimes."""

from __future__ import annotations

from usermirror_gym.engines.base import Engine, OptionScores
from usermirror_gym.engines.checkpoints import resolve_checkpoint
from usermirror_gym.engines.choosing import SERVER_PREFIX, load_engine
from usermirror_gym.engines.smollm2 import DEFAULT_CHECKPOINT

__all__ = [
    "DEFAULT_CHECKPOINT",
    "SERVER_PREFIX",
    "Engine",
    "OptionScores",
    "load_engine",
    "resolve_checkpoint",
]
