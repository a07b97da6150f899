"""Wrappers for reinforcement learning: slates from a shortlist, slates from scores.

Each comes for the single environment and, with ``Vector`` in its name, for the native vector
environment, where candidates of all rows are asked for at once.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from usermirror_gym.envs.shortlist import Retriever, Shortlist
from usermirror_gym.envs.spaces import check_slates
from usermirror_gym.errors import ActionError, ConfigError
from usermirror_gym.types import FloatArray, IntArray, Observation


class ShortlistWrapper(gymnasium.Wrapper, RecordConstructorArgs):
    """The action picks K positions of a shortlist that a recommender proposes for the present user.

    Observations gain ``candidates`` (size,) item ids, ``candidate_popularity`` and
    ``candidate_shown`` (see :class:`~usermirror_gym.envs.shortlist.Shortlist`).

    Args:
        env: a :class:`~usermirror_gym.envs.SlateEnv`, possibly wrapped.
        source: a fitted agent; its ``recommend`` proposes the candidates, best first.
        size: candidates per list.
        features_only: observe a flat Dict of floats in [0, 1] only, ready for a multi-layer
            perceptron; the ids are then in ``info["candidates"]``.
    """

    def __init__(
        self, env: gymnasium.Env, source: Retriever, size: int = 50, *, features_only: bool = False
    ) -> None:
        RecordConstructorArgs.__init__(self, source=source, size=size, features_only=features_only)
        gymnasium.Wrapper.__init__(self, env)
        self.shortlist = _shortlist(env, source, size, features_only)
        self.observation_space = self.shortlist.observation_space(env.observation_space)  # type: ignore[arg-type]
        self.action_space = self.shortlist.action_space()
        self._candidates: IntArray | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        return self._augment(observation, info)

    def step(self, action: IntArray) -> tuple[Observation, Any, bool, bool, dict[str, Any]]:
        """Show the candidates at the given positions.

        Raises:
            ActionError: no K integer positions in 0..size - 1.
            gymnasium.error.ResetNeeded: ``reset`` was not called yet.
        """
        shape = (self.shortlist.slate_size,)
        slate = _chosen(self._candidates, action, shape)[0]
        observation, reward, terminated, truncated, info = self.env.step(slate)
        observation, info = self._augment(observation, info)
        return observation, reward, terminated, truncated, info

    def _augment(
        self, observation: Observation, info: dict[str, Any]
    ) -> tuple[Observation, dict[str, Any]]:
        batch = {name: np.asarray(value)[None] for name, value in observation.items()}
        self._candidates = self.shortlist.propose(batch)
        rows = self.shortlist.augment(batch, self._candidates)
        if self.shortlist.features_only:
            info = info | {"candidates": self._candidates[0].copy()}
        return {name: values[0].copy() for name, values in rows.items()}, info


class VectorShortlistWrapper(VectorWrapper):
    """:class:`ShortlistWrapper` for :class:`~usermirror_gym.envs.SlateVectorEnv`.

    The source is asked once per step, for all rows.
    """

    def __init__(
        self, env: VectorEnv, source: Retriever, size: int = 50, *, features_only: bool = False
    ) -> None:
        super().__init__(env)
        self.shortlist = _shortlist(env, source, size, features_only)
        base = env.single_observation_space
        self.single_observation_space = self.shortlist.observation_space(base)  # type: ignore[arg-type]
        self.single_action_space = self.shortlist.action_space()
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._candidates: IntArray | None = None

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        return self._augment(*self.env.reset(seed=seed, options=options))

    def step(self, actions: IntArray) -> tuple[Observation, Any, Any, Any, dict[str, Any]]:
        """Show in every row the candidates at the given positions.

        Raises:
            ActionError: no (N, K) integer positions in 0..size - 1, resting rows apart.
            gymnasium.error.ResetNeeded: ``reset`` was not called yet.
        """
        shape = (self.num_envs, self.shortlist.slate_size)
        resting = (~self.env.unwrapped.live).nonzero()[0]  # type: ignore[attr-defined]
        slates = _chosen(self._candidates, actions, shape, resting)
        observations, rewards, terminated, truncated, info = self.env.step(slates)
        observations, info = self._augment(observations, info)
        return observations, rewards, terminated, truncated, info

    def _augment(
        self, observations: Observation, info: dict[str, Any]
    ) -> tuple[Observation, dict[str, Any]]:
        self._candidates = self.shortlist.propose(observations)
        if self.shortlist.features_only:
            everyone = np.ones(self.num_envs, np.bool_)
            info = info | {"candidates": self._candidates.copy(), "_candidates": everyone}
        return self.shortlist.augment(observations, self._candidates.copy()), info


class ScoreWrapper(gymnasium.Wrapper, RecordConstructorArgs):
    """The action scores the items; the K best scores become the slate, best first.

    Scores are over the catalogue (``n_items`` numbers, item 1 first) or, where ``env`` is a
    :class:`ShortlistWrapper` or a ``source`` is given, over its candidates.  Equal scores go to the
    smaller id, or to the earlier candidate.  Any finite number is a score; the action space says
    [-1, 1] because continuous-control algorithms want bounds.

    Args:
        env: a :class:`~usermirror_gym.envs.SlateEnv`, possibly wrapped.
        source: a fitted agent, for ``ScoreWrapper(ShortlistWrapper(env, source, **options))``.
        options: further arguments of :class:`ShortlistWrapper`.
    """

    def __init__(self, env: gymnasium.Env, source: Retriever | None = None, **options: Any) -> None:
        RecordConstructorArgs.__init__(self, source=source, **options)
        env = env if source is None else ShortlistWrapper(env, source, **options)
        gymnasium.Wrapper.__init__(self, env)
        self.slates = _slate_space(env.action_space)
        self.action_space = _score_space(self.slates)

    def step(self, action: FloatArray) -> tuple[Observation, Any, bool, bool, dict[str, Any]]:
        """Show the items with the highest scores.

        Raises:
            ActionError: wrong shape, or a score that is no finite number.
        """
        return self.env.step(_best(action, self.action_space.shape, self.slates))  # type: ignore[arg-type]


class VectorScoreWrapper(VectorWrapper):
    """:class:`ScoreWrapper` for :class:`~usermirror_gym.envs.SlateVectorEnv`."""

    def __init__(self, env: VectorEnv, source: Retriever | None = None, **options: Any) -> None:
        super().__init__(env if source is None else VectorShortlistWrapper(env, source, **options))
        self.slates = _slate_space(self.env.single_action_space)
        self.single_action_space = _score_space(self.slates)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def step(self, actions: FloatArray) -> tuple[Observation, Any, Any, Any, dict[str, Any]]:
        """Show in every row the items with the highest scores."""
        return self.env.step(_best(actions, self.action_space.shape, self.slates))  # type: ignore[arg-type]


def _shortlist(env: Any, source: Retriever, size: int, features_only: bool) -> Shortlist:
    base = env.unwrapped
    if not hasattr(base, "world") or not hasattr(base, "slate_size"):
        raise ConfigError(f"a shortlist needs a UserMirror/Slate environment, got {base!r}")
    return Shortlist(
        source, size, base.slate_size, popularity=base.world.split.popularity,
        history_size=base.world.history_size, features_only=features_only,
    )  # fmt: skip


def _chosen(
    candidates: IntArray | None,
    positions: object,
    shape: tuple[int, ...],
    resting: IntArray | None = None,
) -> IntArray:
    """Item ids ``(N, K)`` at the given positions."""
    if candidates is None:
        raise gymnasium.error.ResetNeeded("call reset() before step()")
    size = candidates.shape[1]
    checked = check_slates(positions, shape, size, resting, positions=True)
    return np.take_along_axis(candidates, checked, axis=1)


def _slate_space(space: gymnasium.Space) -> spaces.MultiDiscrete:
    if not isinstance(space, spaces.MultiDiscrete):
        raise ConfigError(f"scores need an environment whose action is a slate, got {space}")
    return space


def _score_space(slates: spaces.MultiDiscrete) -> spaces.Box:
    return spaces.Box(-1.0, 1.0, (int(slates.nvec[0]),), np.float32)


def _best(scores: object, shape: tuple[int, ...], slates: spaces.MultiDiscrete) -> IntArray:
    """The K best choices of each row, in the numbering of the slate space."""
    try:
        array = np.asarray(scores, np.float64)
    except (TypeError, ValueError) as error:
        raise ActionError(f"scores are numbers of shape {shape}, but {error}") from error
    if array.shape != shape:
        raise ActionError(f"expected scores of shape {shape}, got {array.shape}")
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ActionError(f"score {where} is {array[where]}; scores must be finite")
    best = np.argsort(-array, axis=-1, kind="stable")[..., : len(slates.nvec)]
    return best + slates.start
