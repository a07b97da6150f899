"""What the single and the vector environment set up alike."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from usermirror_gym.envs.spaces import (
    action_space,
    check_slates,
    drop_duplicates,
    observation_space,
    place,
)
from usermirror_gym.envs.world import World
from usermirror_gym.errors import ActionError, ConfigError, UnknownNameError
from usermirror_gym.types import PAD, RATING, IntArray

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
    actions: object,
    shape: tuple[int, ...],
    n_items: int,
    duplicates: Duplicates,
    resting: IntArray | None = None,
) -> tuple[IntArray, IntArray]:
    """Checked slates ``(N, K)`` without duplicates, and how many items each row lost.

    Arguments are those of :func:`~usermirror_gym.envs.spaces.check_slates`; the slates of resting
    rows are all zeros.

    Raises:
        ActionError: a slate cannot be shown.
    """
    slates, dropped = drop_duplicates(check_slates(actions, shape, n_items, resting))
    if duplicates == "raise" and np.count_nonzero(dropped):
        row = int(dropped.nonzero()[0][0])
        slate = np.asarray(actions).reshape(-1, shape[-1])[row].tolist()
        raise ActionError(
            f"{place(row, shape)}slate {slate} shows an item twice "
            "(duplicates='drop' would show it once)"
        )
    if resting is not None:
        slates[resting] = PAD
    return slates, dropped


def check_options(options: dict[str, Any] | None, known: tuple[str, ...]) -> dict[str, Any]:
    """The options of ``reset``, as a dict.

    Raises:
        UnknownNameError: an option that would be ignored.
    """
    for name in options or {}:
        if name not in known:
            raise UnknownNameError("reset option", name, known)
    return options or {}
