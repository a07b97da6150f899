"""What the user saw: scenes, the samplers that fill their lists, and the prompt."""

from usermirror_gym.scenes.scene import Scene, SceneBatch, Turn

__all__ = ["Scene", "SceneBatch", "Turn"]
