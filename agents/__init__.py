"""Recommenders: the Agent protocol, simple baselines, an oracle, and every RecBole model.

Names are loaded on first use, so that importing this package loads neither torch nor RecBole.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from usermirror_gym.agents.base import Agent, Transition
    from usermirror_gym.agents.observations import observations_from_split
    from usermirror_gym.agents.oracle import OracleAgent
    from usermirror_gym.agents.recbole.agent import RecBoleAgent
    from usermirror_gym.agents.registry import available_agents, make_agent
    from usermirror_gym.agents.simple import PopAgent, RandomAgent

_HOME = {
    "Agent": "base",
    "OracleAgent": "oracle",
    "PopAgent": "simple",
    "RandomAgent": "simple",
    "RecBoleAgent": "recbole.agent",
    "Transition": "base",
    "available_agents": "registry",
    "make_agent": "registry",
    "observations_from_split": "observations",
}

__all__ = [
    "Agent", "OracleAgent", "PopAgent", "RandomAgent", "RecBoleAgent", "Transition",
    "available_agents", "make_agent", "observations_from_split",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
