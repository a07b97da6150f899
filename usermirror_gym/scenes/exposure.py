"""What else was on the list: samplers for logs that recorded choices but no impressions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import SceneError, UnknownNameError
from usermirror_gym.types import FloatArray, IntArray

SAMPLERS: dict[str, Callable[[TimeSplit], FloatArray]] = {
    "uniform": lambda split: np.ones(split.dataset.n_items + 1),
    "popularity": lambda split: split.popularity.astype(np.float64),
}
"""Name -> weight of each item id, shape ``(n_items + 1,)``, computed before T0 only."""


def sample_distractors(
    split: TimeSplit, sampler: str, n: int, excluded: IntArray, rng: np.random.Generator
) -> IntArray:
    """``n`` different item ids, drawn without replacement in proportion to the sampler's weights.

    Args:
        excluded: item ids that must not appear: everything the user ever touched.

    Raises:
        UnknownNameError: no such sampler.
        SceneError: fewer than ``n`` items are left.
    """
    if sampler not in SAMPLERS:
        raise UnknownNameError("exposure sampler", sampler, SAMPLERS)
    weights = SAMPLERS[sampler](split).copy()
    weights[0] = 0
    weights[excluded] = 0
    left = int(np.count_nonzero(weights))
    if left < n:
        raise SceneError(
            f"sampler {sampler!r} has {left} items left for a user with {len(excluded)} known "
            f"ones, {n} are needed; use shorter lists"
        )
    return rng.choice(len(weights), size=n, replace=False, p=weights / weights.sum()).astype(
        np.int64
    )
