"""How the user chooses: simulators behind one protocol."""

from usermirror_gym.simulators.affinity import AffinitySimulator
from usermirror_gym.simulators.affinity_head import AffinityHead
from usermirror_gym.simulators.base import ChoiceBatch, UserSimulator
from usermirror_gym.simulators.classic import PopularityChooser, UniformChooser
from usermirror_gym.simulators.likelihood import LikelihoodSimulator
from usermirror_gym.simulators.listwise import LettersSimulator, OptionsSimulator
from usermirror_gym.simulators.ratings import BiasRatings, RatingModel
from usermirror_gym.simulators.rationale import RationaleSimulator, Thinking
from usermirror_gym.simulators.recording import RecordingSimulator, SceneReservoir
from usermirror_gym.simulators.registry import (
    DEFAULT_SIMULATOR,
    available_simulators,
    make_simulator,
)
from usermirror_gym.simulators.surrogate import SurrogateSimulator
from usermirror_gym.simulators.utility import AffinityWeights, ChoiceWeights, LikelihoodWeights

__all__ = [
    "DEFAULT_SIMULATOR", "AffinityHead", "AffinitySimulator", "AffinityWeights", "BiasRatings",
    "ChoiceBatch", "ChoiceWeights", "LettersSimulator", "LikelihoodSimulator", "LikelihoodWeights",
    "OptionsSimulator", "PopularityChooser", "RatingModel", "RationaleSimulator",
    "RecordingSimulator", "SceneReservoir", "SurrogateSimulator", "Thinking", "UniformChooser",
    "UserSimulator", "available_simulators", "make_simulator",
]  # fmt: skip
