"""Gymnasium environments whose user is simulated; see :class:`SlateEnv` and :class:`SlateVectorEnv`."""

from usermirror_gym.envs.rewards import REWARDS, Outcome, Reward
from usermirror_gym.envs.session import Patience, Progress, SessionModel, Stay
from usermirror_gym.envs.slate import SlateEnv
from usermirror_gym.envs.vector import SlateVectorEnv
from usermirror_gym.envs.world import World, make_world

__all__ = [
    "REWARDS", "Outcome", "Patience", "Progress", "Reward", "SessionModel", "SlateEnv",
    "SlateVectorEnv", "Stay", "World", "make_world",
]  # fmt: skip
