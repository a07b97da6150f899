"""Recommenders: the Agent protocol, simple baselines, an oracle, and every RecBole model.

Importing this package loads neither torch nor RecBole.
"""

from usermirror_gym.agents.base import Agent, Transition
from usermirror_gym.agents.observations import observations_from_split
from usermirror_gym.agents.oracle import OracleAgent
from usermirror_gym.agents.recbole.agent import RecBoleAgent
from usermirror_gym.agents.registry import available_agents, make_agent
from usermirror_gym.agents.simple import PopAgent, RandomAgent

__all__ = [
    "Agent", "OracleAgent", "PopAgent", "RandomAgent", "RecBoleAgent", "Transition",
    "available_agents", "make_agent", "observations_from_split",
]  # fmt: skip
