"""How the user chooses: simulators behind one protocol."""

from usermirror_gym.simulators.base import ChoiceBatch, UserSimulator
from usermirror_gym.simulators.classic import PopularityChooser, UniformChooser
from usermirror_gym.simulators.llm import LettersSimulator, LikelihoodSimulator, LikelihoodWeights
from usermirror_gym.simulators.ratings import BiasRatings, RatingModel
from usermirror_gym.simulators.registry import (
    DEFAULT_SIMULATOR,
    available_simulators,
    make_simulator,
)

__all__ = [
    "DEFAULT_SIMULATOR", "BiasRatings", "ChoiceBatch", "LettersSimulator", "LikelihoodSimulator",
    "LikelihoodWeights", "PopularityChooser", "RatingModel", "UniformChooser", "UserSimulator",
    "available_simulators", "make_simulator",
]  # fmt: skip
