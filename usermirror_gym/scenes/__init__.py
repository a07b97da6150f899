"""What the user saw: scenes, the samplers that fill their lists, and the prompt."""

from usermirror_gym.scenes.build import ScenePlan, build_scenes, swap_histories
from usermirror_gym.scenes.exposure import SAMPLERS, sample_distractors
from usermirror_gym.scenes.prompt import PromptBuilder, PromptConfig
from usermirror_gym.scenes.scene import Scene, SceneBatch, Turn
from usermirror_gym.scenes.text import DomainText, MovieText, domain_text

__all__ = [
    "SAMPLERS", "DomainText", "MovieText", "PromptBuilder", "PromptConfig", "Scene", "SceneBatch",
    "ScenePlan", "Turn", "build_scenes", "domain_text", "sample_distractors", "swap_histories",
]  # fmt: skip
