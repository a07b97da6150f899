"""Choosers without an LLM: recommenders and choice models, fitted as strong as they can be."""

from usermirror_gym.fidelity.baselines.fitting import CHOOSERS, KINDS, STACK, classic_choosers
from usermirror_gym.fidelity.baselines.scored import ScoredChooser

__all__ = ["CHOOSERS", "KINDS", "STACK", "ScoredChooser", "classic_choosers"]
