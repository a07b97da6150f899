"""Observations of users as they stand at T0, without an environment."""

from __future__ import annotations

import numpy as np

from usermirror_gym.data import TimeSplit
from usermirror_gym.scenes.randomness import KeyArray, keys
from usermirror_gym.types import IntArray, Observation


def observations_from_split(
    split: TimeSplit, user_ids: IntArray, *, history_size: int = 50, slate_size: int = 10
) -> Observation:
    """What an environment would show at the start of a session at T0 (keys of :class:`Agent`).

    Args:
        user_ids: ``(N,)``; users without interactions before T0 get an empty history.
        history_size: H, the columns of ``history_items`` and ``history_ratings``.
        slate_size: K; ``last_slate`` is all zeros and ``last_choice`` is K (nothing yet).
    """
    users = np.asarray(user_ids, np.int64)
    memory = split.memory(users, history_size)
    return {
        "user_id": users,
        "history_items": memory.items,
        "history_ratings": memory.ratings,
        "history_length": memory.lengths,
        "last_slate": np.zeros((len(users), slate_size), np.int64),
        "last_choice": np.full(len(users), slate_size, np.int64),
        "turns": np.zeros((len(users), 1), np.int64),
    }


def situation_keys(seed: int, observations: Observation) -> KeyArray:
    """``(N,)`` keys for :func:`~usermirror_gym.scenes.randomness.uniforms`, from user, turns and
    history length: what is drawn by them belongs to the row, not to its place in a batch."""
    columns = ("user_id", "turns", "history_length")
    return keys(seed, *(np.asarray(observations[c]).reshape(-1).astype(np.int64) for c in columns))


def rows_of(observations: Observation, rows: IntArray) -> Observation:
    """Some rows of a batch."""
    return {name: values[rows] for name, values in observations.items()}
