"""What the agent sees and does, as Gymnasium spaces, and the checks of an action."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from usermirror_gym.envs.world import World
from usermirror_gym.errors import ActionError, ConfigError, UnknownNameError
from usermirror_gym.types import PAD, RATING, IntArray

_MAX_TURNS = 2**31 - 1


def spaces_of(world: World, slate_size: int) -> tuple[spaces.Dict, spaces.MultiDiscrete]:
    """Single observation and action space of a world.

    What stands in them is documented at :class:`~usermirror_gym.envs.SlateEnv`.
    """
    data, h = world.split.dataset, world.history_size
    ratings = np.nan_to_num(data.interactions[RATING].to_numpy())
    low, high = min(0.0, float(ratings.min())), float(ratings.max())
    observation = spaces.Dict(
        {
            "user_id": spaces.Discrete(data.n_users + 1),
            "history_items": spaces.Box(0, data.n_items, (h,), np.int64),
            "history_ratings": spaces.Box(low, high, (h,), np.float32),
            "history_length": spaces.Discrete(h + 1),
            "last_slate": spaces.Box(0, data.n_items, (slate_size,), np.int64),
            "last_choice": spaces.Discrete(slate_size + 1),
            "turns": spaces.Box(0, _MAX_TURNS, (1,), np.int64),
        }
    )
    start, sizes = np.ones(slate_size, np.int64), np.full(slate_size, data.n_items, np.int64)
    return observation, spaces.MultiDiscrete(sizes, dtype=np.int64, start=start)


def check_slates(
    actions: object,
    shape: tuple[int, ...],
    n_items: int,
    resting: IntArray | None = None,
    *,
    positions: bool = False,
) -> IntArray:
    """Actions as an int64 array ``(N, K)`` of its own.

    Args:
        actions: anything that numpy reads as an array of integers.
        shape: what it must have: ``(K,)`` or ``(N, K)``.
        n_items: ids are 1..n_items.
        resting: numbers of the rows that may hold anything; they get a slate that is valid.
        positions: the numbers are positions 0..n_items - 1 of a shortlist instead.

    Raises:
        ActionError: wrong shape, a dtype that is not integer, or a number out of range.
    """
    first, what, hint = (0, "candidate", "") if positions else (1, "item id", " (0 is padding)")
    try:
        array = np.asarray(actions)
    except ValueError as error:
        raise ActionError(f"a slate is an array of shape {shape}, but {error}") from error
    if array.shape != shape:
        axes = "(slate size,)" if len(shape) == 1 else "(environments, slate size)"
        raise ActionError(f"expected shape {shape} {axes}, got {array.shape}")
    if array.dtype.kind not in "iu":
        raise ActionError(
            f"a slate holds integer item ids, got dtype {array.dtype}; cast ids with "
            ".astype(int), or let ScoreWrapper turn scores into a slate"
        )
    slates = array.astype(np.int64).reshape(-1, shape[-1])
    if resting is not None:
        slates[resting] = np.arange(first, first + shape[-1])
    # As unsigned numbers, negative ids are larger than any catalogue: one pass finds both ends.
    bad = (slates - first).view(np.uint64) >= n_items
    if np.count_nonzero(bad):
        row, column = np.argwhere(bad)[0]
        raise ActionError(
            f"{_row_name(row, shape)}position {column}: {what} {slates[row, column]} is not in "
            f"{first}..{first + n_items - 1}{hint}"
        )
    return slates


def drop_duplicates(slates: IntArray) -> tuple[IntArray, IntArray]:
    """Show every item once, in place: later copies go, the rest moves up, zeros fill the end.

    Returns:
        the slates and the number dropped per row, (N,).
    """
    ordered = np.sort(slates, axis=1)
    repeated = ordered[:, 1:] == ordered[:, :-1]
    dropped = np.zeros(len(slates), np.int64)
    if np.count_nonzero(repeated):
        for row in set(repeated.nonzero()[0].tolist()):
            kept = list(dict.fromkeys(slates[row].tolist()))
            missing = slates.shape[1] - len(kept)
            slates[row] = kept + [PAD] * missing
            dropped[row] = missing
    return slates, dropped


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
            f"{_row_name(row, shape)}slate {slate} shows an item twice "
            "(duplicates='drop' would show it once)"
        )
    if resting is not None:
        slates[resting] = PAD
    return slates, dropped


def _row_name(row: int, shape: tuple[int, ...]) -> str:
    return f"row {row}, " if len(shape) > 1 else ""


def check_options(options: dict[str, Any] | None, known: tuple[str, ...]) -> dict[str, Any]:
    """The options of ``reset``, as a dict.

    Raises:
        UnknownNameError: an option that would be ignored.
    """
    for name in options or {}:
        if name not in known:
            raise UnknownNameError("reset option", name, known)
    return options or {}
