"""What the agent sees and does, as Gymnasium spaces, and the checks of an action."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from usermirror_gym.errors import ActionError
from usermirror_gym.types import IntArray

MAX_TURNS = 2**31 - 1


def action_space(n_items: int, slate_size: int) -> spaces.MultiDiscrete:
    """A slate: ``slate_size`` item ids, each in 1..n_items."""
    nvec = np.full(slate_size, n_items, dtype=np.int64)
    return spaces.MultiDiscrete(nvec, dtype=np.int64, start=np.ones(slate_size, dtype=np.int64))


def observation_space(
    n_users: int,
    n_items: int,
    slate_size: int,
    history_size: int,
    rating_range: tuple[float, float] = (0.0, 5.0),
) -> spaces.Dict:
    """One user's situation.

    - ``user_id``: 1..n_users.
    - ``history_items`` (H,): item ids, oldest first, padded with 0 on the right; what was chosen
      in this session is at its end.
    - ``history_ratings`` (H,): the rating of each, 0 where there is none.
    - ``history_length``: how many entries are real.
    - ``last_slate`` (K,): the list shown last, zeros at the start.
    - ``last_choice``: position chosen from it; K is *none of these*, also at the start.
    - ``turns``: lists seen in this session.
    """
    low, high = rating_range
    return spaces.Dict(
        {
            "user_id": spaces.Discrete(n_users + 1),
            "history_items": spaces.Box(0, n_items, (history_size,), np.int64),
            "history_ratings": spaces.Box(low, high, (history_size,), np.float32),
            "history_length": spaces.Discrete(history_size + 1),
            "last_slate": spaces.Box(0, n_items, (slate_size,), np.int64),
            "last_choice": spaces.Discrete(slate_size + 1),
            "turns": spaces.Box(0, MAX_TURNS, (1,), np.int64),
        }
    )


def check_slates(actions: object, num_envs: int, slate_size: int, n_items: int) -> IntArray:
    """Actions as an int64 array ``(num_envs, slate_size)`` of its own.

    Raises:
        ActionError: wrong shape, a dtype that is not integer, or an id outside 1..n_items.
    """
    array = np.asarray(actions)
    if array.dtype.kind not in "iu":
        raise ActionError(
            f"a slate holds integer item ids, got dtype {array.dtype}; "
            "convert scores to ids first (the score wrapper does that)"
        )
    if array.shape != (num_envs, slate_size):
        raise ActionError(
            f"expected slates of shape {(num_envs, slate_size)} (environments, slate size), "
            f"got {array.shape}"
        )
    slates = array.astype(np.int64)
    # As unsigned numbers, negative ids are larger than any catalogue: one pass finds both ends.
    if ((slates - 1).view(np.uint64) >= n_items).any():
        row, column = np.argwhere((slates < 1) | (slates > n_items))[0]
        raise ActionError(
            f"row {row}, position {column}: item id {slates[row, column]} is not in "
            f"1..{n_items} (0 is padding)"
        )
    return slates


def drop_duplicates(slates: IntArray) -> tuple[IntArray, np.ndarray]:
    """Show every item once: later copies go, the rest moves up, zeros fill the end.

    Returns:
        the slates (the same array if nothing was dropped) and the number dropped per row, (N,).
    """
    ordered = np.sort(slates, axis=1)
    copies = (ordered[:, 1:] == ordered[:, :-1]).sum(axis=1)
    if not copies.any():
        return slates, copies
    slates = slates.copy()
    for row in np.flatnonzero(copies):
        _, first = np.unique(slates[row], return_index=True)
        kept = slates[row, np.sort(first)]
        slates[row] = 0
        slates[row, : len(kept)] = kept
    return slates, copies
