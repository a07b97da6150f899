"""What the single and the vector environment set up alike."""

from __future__ import annotations

from typing import Literal

import numpy as np
from gymnasium import spaces

from usermirror_gym.envs.spaces import (
    action_space,
    check_slates,
    drop_duplicates,
    observation_space,
)
from usermirror_gym.envs.world import World
from usermirror_gym.errors import ActionError, ConfigError
from usermirror_gym.types import RATING, IntArray

Duplicates = Literal["drop", "raise"]


def check_setup(
    world: World, slate_size: int, duplicates: str, render_mode: str | None, modes: list[str]
) -> None:
    """Raise ConfigError for settings that no environment can have."""
    n_items = world.split.dataset.n_items
    if not 1 <= slate_size <= n_items:
        raise ConfigError(f"slate_size must be in 1..{n_items} (the catalogue), got {slate_size}")
    if duplicates not in ("drop", "raise"):
        raise ConfigError(f"duplicates must be 'drop' or 'raise', got {duplicates!r}")
    if render_mode is not None and render_mode not in modes:
        raise ConfigError(f"render_mode must be one of {modes}, got {render_mode!r}")


def spaces_of(world: World, slate_size: int) -> tuple[spaces.Dict, spaces.MultiDiscrete]:
    """Single observation and action space of a world."""
    data = world.split.dataset
    ratings = np.nan_to_num(data.interactions[RATING].to_numpy())
    observation = observation_space(
        data.n_users,
        data.n_items,
        slate_size,
        world.history_size,
        (min(0.0, float(ratings.min())), float(ratings.max())),
    )
    return observation, action_space(data.n_items, slate_size)


def prepare(
    actions: object, num_envs: int, slate_size: int, n_items: int, duplicates: Duplicates
) -> tuple[IntArray, IntArray]:
    """Checked slates without duplicates, and how many items each row lost.

    Raises:
        ActionError: a slate cannot be shown.
    """
    slates, dropped = drop_duplicates(check_slates(actions, num_envs, slate_size, n_items))
    if duplicates == "raise" and dropped.any():
        row = int(np.flatnonzero(dropped)[0])
        raise ActionError(
            f"row {row}: the slate {np.asarray(actions)[row].tolist()} shows an item twice "
            "(duplicates='drop' would show it once)"
        )
    return slates, dropped
