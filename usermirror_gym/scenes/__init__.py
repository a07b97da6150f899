"""What the user saw: scenes, the samplers that fill their lists, and the prompt."""

from usermirror_gym.scenes.draw.build import ScenePlan, build_scenes, draw_scenes, swap_histories
from usermirror_gym.scenes.draw.rankers import Rankers
from usermirror_gym.scenes.draw.samplers import SAMPLERS
from usermirror_gym.scenes.scene import Scene, SceneBatch, Turn
from usermirror_gym.scenes.words.prompt import PromptBuilder, PromptConfig
from usermirror_gym.scenes.words.template import DomainText, domain_text

__all__ = [
    "SAMPLERS", "DomainText", "PromptBuilder", "PromptConfig", "Rankers", "Scene", "SceneBatch",
    "ScenePlan", "Turn", "build_scenes", "domain_text", "draw_scenes", "swap_histories",
]  # fmt: skip
