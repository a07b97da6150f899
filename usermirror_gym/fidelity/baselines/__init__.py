"""Users without an LLM: recommenders and choice models, fitted as strong as they can be."""

from usermirror_gym.fidelity.baselines.base import ScoredBaseline
from usermirror_gym.fidelity.baselines.fitting import BASELINES, KINDS, STACK, classic_baselines

__all__ = ["BASELINES", "KINDS", "STACK", "ScoredBaseline", "classic_baselines"]
