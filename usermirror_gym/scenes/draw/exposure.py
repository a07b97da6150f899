"""Exposure lists for logs that recorded choices but no impressions.

Each free place of a list is given to one of the samplers at random; the sampler fills it with the
best candidate of its own ranking that is still allowed.  With ``balance="popularity"`` the place
also has a stratum of popularity, drawn from how popular chosen items are, and the sampler keeps to
it: a true item is then neither more nor less popular than the distractors.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.scenes.draw.rankers import Rankers
from usermirror_gym.scenes.draw.samplers import SAMPLERS, Draft, Place, Strata
from usermirror_gym.scenes.randomness import uniforms
from usermirror_gym.types import IntArray

LOG = "log"
GAP = "gap"
"""A random item that stands in for a sampler that had none left in its stratum."""
ORIGINS = (*SAMPLERS, GAP, LOG)
"""Where an option of a list comes from; arrays hold positions in this tuple."""
_SAMPLER_STREAM, _STRATUM_STREAM, _GAP_STREAM = 0, 1, 2


def check_samplers(samplers: Mapping[str, float], rankers: Rankers) -> None:
    """Raise if the shares cannot be used with these rankers.

    Raises:
        UnknownNameError: no such sampler.
        ConfigError: a share is no number or negative, all are zero, or what a sampler needs is
            not there.
    """
    for name, share in samplers.items():
        if name not in SAMPLERS:
            raise UnknownNameError("exposure sampler", name, SAMPLERS)
        if not isinstance(share, int | float) or not 0 <= share < float("inf"):
            raise ConfigError(
                f"the share of sampler {name!r} must be a number, 0 or more, got {share!r}"
            )
    if not sum(samplers.values()) > 0:
        raise ConfigError(f"at least one sampler needs a positive share, got {dict(samplers)}")
    if samplers.get("content"):
        rankers.require_embedding()
    if samplers.get("social") and rankers.split.dataset.friends is None:
        raise ConfigError(
            f"the sampler 'social' needs friends, and {rankers.split.dataset.name!r} has none"
        )


def fill_lists(
    draft: Draft,
    rankers: Rankers,
    groups: Strata,
    samplers: Mapping[str, float],
    *,
    balanced: bool,
) -> IntArray:
    """Fill ``draft.items`` in place.

    Returns:
        ``(B, S)`` positions in ``ORIGINS``; -1 for padding, and where nothing allowed was left.
    """
    width = draft.items.shape[1]
    origin = np.full(draft.items.shape, -1, np.int64)
    plan = _plan(draft, samplers)
    strata = groups.draw(uniforms(draft.keys, _STRATUM_STREAM, width))
    for number in range(width):
        for code, name in enumerate(SAMPLERS):
            rows = np.flatnonzero(plan[:, number] == code)
            if len(rows):
                mine = plan[rows] == code
                place = Place(
                    draft, rows, number, mine.argmax(axis=1), mine.sum(axis=1),
                    strata[rows, number], rankers, groups, balanced,
                )  # fmt: skip
                _take(draft, origin, rows, number, SAMPLERS[name](place), code)
        _fill_gaps(draft, origin, number)
    return origin


def _plan(draft: Draft, samplers: Mapping[str, float]) -> IntArray:
    """``(B, S)`` the sampler of each place, in the order of ``SAMPLERS``; behind the list: none."""
    width = draft.items.shape[1]
    shares = np.cumsum([samplers.get(name, 0.0) for name in SAMPLERS])
    u = uniforms(draft.keys, _SAMPLER_STREAM, width)
    drawn = np.searchsorted(shares, u * shares[-1], side="right")
    behind = np.arange(width)[None, :] >= draft.sizes[:, None]
    return np.sort(np.where(behind, len(SAMPLERS), drawn), axis=1)


def _take(
    draft: Draft, origin: IntArray, rows: IntArray, number: int, picks: IntArray, code: int
) -> None:
    rows, picks = rows[picks > 0], picks[picks > 0]
    draft.items[rows, number] = picks
    origin[rows, number] = code
    draft.allowed[rows, picks] = False


def _fill_gaps(draft: Draft, origin: IntArray, number: int) -> None:
    gaps = np.flatnonzero((number < draft.sizes) & (draft.items[:, number] == 0))
    for row in gaps:
        left = np.flatnonzero(draft.allowed[row])
        if len(left):
            u = uniforms(draft.keys[row : row + 1], _GAP_STREAM, first=number)[0, 0]
            pick = left[[int(u * len(left))]]
            _take(draft, origin, np.array([row]), number, pick, ORIGINS.index(GAP))
