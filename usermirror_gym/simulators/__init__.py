"""How the user chooses: simulators behind one protocol."""

from usermirror_gym.configs.session import DEFAULT_SIMULATOR
from usermirror_gym.simulators.affinity.affinity import AffinitySimulator
from usermirror_gym.simulators.affinity.affinity_head import AffinityHead
from usermirror_gym.simulators.base import ChoiceBatch, UserSimulator
from usermirror_gym.simulators.classic import PopularityChooser, UniformChooser
from usermirror_gym.simulators.ratings import BiasRatings, RatingModel
from usermirror_gym.simulators.readouts.likelihood import LikelihoodSimulator
from usermirror_gym.simulators.readouts.listwise import LettersSimulator, OptionsSimulator
from usermirror_gym.simulators.readouts.rationale import RationaleSimulator, Thinking
from usermirror_gym.simulators.readouts.utility import (
    AffinityWeights,
    ChoiceWeights,
    LikelihoodWeights,
    SessionWeights,
)
from usermirror_gym.simulators.recording import RecordingSimulator
from usermirror_gym.simulators.registry import (
    available_simulators,
    make_simulator,
)
from usermirror_gym.simulators.session.session import SessionSimulator
from usermirror_gym.simulators.surrogate.surrogate import SurrogateSimulator

__all__ = [
    "DEFAULT_SIMULATOR", "AffinityHead", "AffinitySimulator", "AffinityWeights", "BiasRatings",
    "ChoiceBatch", "ChoiceWeights", "LettersSimulator", "LikelihoodSimulator", "LikelihoodWeights",
    "OptionsSimulator", "PopularityChooser", "RatingModel", "RationaleSimulator",
    "RecordingSimulator", "SessionSimulator", "SessionWeights", "SurrogateSimulator", "Thinking",
    "UniformChooser", "UserSimulator", "available_simulators", "make_simulator",
]  # fmt: skip
