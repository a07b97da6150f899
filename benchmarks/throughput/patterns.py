"""Real questions: scenes of the project's own environment on ml-100k, worded by its own prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from usermirror_gym.agents.rollout import Clock, plan_episodes, roll_out
from usermirror_gym.agents.simple import RandomAgent
from usermirror_gym.envs import SlateVectorEnv
from usermirror_gym.envs.world import World, make_world
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.scenes.words.prompt import PromptBuilder
from usermirror_gym.simulators.base import ChoiceBatch
from usermirror_gym.simulators.classic import UniformChooser

from .questions import BATCH, Pattern, Question

STEPS = 8
PATTERNS = ("slates", "episodes", "unrelated")


class _Recorder:
    """A user who chooses at random, and what was shown to them: one list of scenes per step."""

    name = "recorder"

    def __init__(self) -> None:
        self._inner, self.calls = UniformChooser(), list[list[Scene]]()

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        self.calls.append(list(scenes))
        return self._inner.choose(scenes)


def build_patterns(names: Sequence[str], count: int, k: int, seed: int) -> list[Pattern]:
    """The named patterns with ``count`` questions each, about lists of ``k`` films.

    ``slates``: a call is one user's 8 lists.  ``episodes``: a call is one step of all users, whose
    sessions grow for 8 steps.  ``unrelated``: every question is about another user.
    """
    world = make_world("ml-100k", simulator=_Recorder())
    if not STEPS <= count < len(world.users):
        raise SystemExit(f"--questions {count}: use {STEPS} .. {len(world.users) - 1}.")
    word = _wording(PromptBuilder(world.text))
    (starts,) = _played(world, count + 1, 1, k, seed)
    first = word(starts[-1])
    users = count // STEPS
    rng = np.random.default_rng(seed)
    n_items = world.split.dataset.n_items
    scenes: dict[str, Callable[[], list[list[Scene]]]] = {
        "slates": lambda: [_other_lists(s, n_items, rng) for s in starts[:users]],
        "episodes": lambda: _played(world, users, STEPS, k, seed),
        "unrelated": lambda: [starts[i : min(i + BATCH, count)] for i in range(0, count, BATCH)],
    }  # fmt: skip
    return [_pattern(name, scenes[name](), word, first) for name in names]


def play(world: World, users: int, steps: int, k: int, seed: int) -> Clock:
    """Episodes of so many users with random lists, all of the same length; where the time went."""
    env = SlateVectorEnv(
        users, world, max_episode_steps=steps, slate_size=k, session="stay",
        autoreset_mode="Disabled",
    )  # fmt: skip
    clock = Clock()
    roll_out(
        env, RandomAgent(seed).fit(world.split), plan_episodes(world.users, users, seed), clock
    )
    return clock


def environment_share(
    checkpoint: str, dtype: str, device: str, *, users: int, k: int, seed: int, steps: int = 2
) -> dict[str, float]:
    """How much of a step of the vector environment is not the engine's, letters readout."""
    from usermirror_gym.engines import resolve_checkpoint
    from usermirror_gym.simulators import make_simulator

    split = make_world("ml-100k", simulator=UniformChooser()).split
    engine = {"kind": "transformers", "dtype": dtype, "device": device}
    user = make_simulator(str(resolve_checkpoint(checkpoint)), split, engine=engine)
    world = make_world(split, simulator=user)
    play(world, users, 1, k, seed + 1)  # loads and warms up
    clock = play(world, users, steps, k, seed)
    return {
        "users": users, "steps": steps, "step_seconds": clock.env_step_seconds,
        "engine_seconds": clock.engine_seconds,
        "share": 1 - clock.engine_seconds / clock.env_step_seconds,
    }  # fmt: skip


def _played(world: World, users: int, steps: int, k: int, seed: int) -> list[list[Scene]]:
    recorder: Any = world.simulator
    recorder.calls = []
    play(world, users, steps, k, seed)
    return recorder.calls


def _other_lists(scene: Scene, n_items: int, rng: np.random.Generator) -> list[Scene]:
    unseen = np.setdiff1d(np.arange(1, n_items + 1), scene.history)
    lists = [rng.choice(unseen, len(scene.slate), replace=False).tolist() for _ in range(STEPS)]
    return [replace(scene, slate=tuple(items)) for items in lists]


def _wording(builder: PromptBuilder) -> Callable[[Scene], Question]:
    def word(scene: Scene) -> Question:
        alone = (replace(scene, slate=(item,)) for item in scene.slate)
        single = tuple(builder.letters(s) for s in alone)
        return Question(builder.letters(scene), builder.likelihood(scene), single)

    return word


def _pattern(
    name: str, calls: list[list[Scene]], word: Callable[[Scene], Question], first: Question
) -> Pattern:
    ends = np.cumsum([len(call) for call in calls]).tolist()
    numbers = [list(range(end - len(call), end)) for end, call in zip(ends, calls, strict=True)]
    questions = [word(scene) for call in calls for scene in call]
    return Pattern(name, questions, numbers, name == "episodes", first)
