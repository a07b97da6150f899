"""A Gymnasium environment whose user is an LLM.

Importing this package registers ``UserMirror/Slate-v0``; torch, transformers and RecBole are
loaded only by what needs them.
"""

from __future__ import annotations

import gymnasium

__version__ = "0.1.0"

gymnasium.register(
    id="UserMirror/Slate-v0",
    entry_point="usermirror_gym.envs.slate:SlateEnv",
    vector_entry_point="usermirror_gym.envs.vector:SlateVectorEnv",
    max_episode_steps=20,
)
