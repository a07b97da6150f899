"""Gymnasium environments whose user is simulated: :class:`SlateEnv`, :class:`SlateVectorEnv`."""

from usermirror_gym.envs.rewards import REWARDS, Outcome, Reward
from usermirror_gym.envs.session import Patience, Progress, SessionModel, Stay
from usermirror_gym.envs.slate import SlateEnv
from usermirror_gym.envs.vector import SlateVectorEnv
from usermirror_gym.envs.world import World, make_world
from usermirror_gym.envs.wrappers import (
    ScoreWrapper,
    ShortlistWrapper,
    VectorScoreWrapper,
    VectorShortlistWrapper,
)

__all__ = [
    "REWARDS", "Outcome", "Patience", "Progress", "Reward", "ScoreWrapper", "SessionModel",
    "ShortlistWrapper", "SlateEnv", "SlateVectorEnv", "Stay", "VectorScoreWrapper",
    "VectorShortlistWrapper", "World", "make_world",
]  # fmt: skip
