"""The rows of a fidelity card: what is said of each chooser, and of the simulator against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from usermirror_gym.fidelity.checks.controls import SWAPPED
from usermirror_gym.fidelity.checks.slices import FEW, Slices
from usermirror_gym.measures.bootstrap import Interval, UserBootstrap
from usermirror_gym.measures.calibration import calibration, entropy, positions
from usermirror_gym.measures.choice_scores import METRICS, Truth, outside_scores
from usermirror_gym.scenes import Scene
from usermirror_gym.types import FloatArray

SHOWN = ("accuracy", "log_loss")
"""What slices and paired differences are given of."""


@dataclass(frozen=True)
class Answered:
    """A chooser and its answers to the evaluation scenes."""

    name: str
    kind: str
    probs: FloatArray  # (S, K + 1)
    seconds: float


def chooser_blocks(
    rows: Sequence[Answered],
    scores: Mapping[str, FloatArray],
    scenes: Sequence[Scene],
    truth: Truth,
    groups: Slices,
    bootstrap: UserBootstrap,
    seed: int,
) -> list[dict[str, Any]]:
    """What is said of every chooser alone.

    Args:
        rows: all choosers.
        scores: by name, ``(S, 4)`` among the items.
        scenes, truth: what they were asked, and what is right.
        groups: the slices.
        bootstrap: over the users of the scenes.
        seed: of simulated choices.
    """
    forced = _intervals([scores[row.name] for row in rows], bootstrap)
    outside = _intervals([outside_scores(row.probs, truth) for row in rows], bootstrap)
    by_slice = _slice_blocks([scores[row.name] for row in rows], groups, bootstrap)
    return [
        {
            "name": row.name,
            "kind": row.kind,
            "overall": {
                "forced": dict(zip(METRICS, own_forced, strict=True)),
                # Who never leaves has no probability to be judged by.
                "outside": dict(zip(METRICS, own_outside, strict=True)) if leaves(row) else None,
            },
            "slices": own_slices,
            "calibration": calibration(row.probs, truth, bootstrap, seed),
            "entropy": entropy(row.probs, truth, scenes, seed),
            "positions": positions(row.probs, truth, bootstrap),
            "seconds": row.seconds,
        }
        for row, own_forced, own_outside, own_slices in zip(
            rows, forced, outside, by_slice, strict=True
        )
    ]


def leaves(row: Answered) -> bool:
    """Whether the chooser ever gives *none of these* a probability."""
    return bool((row.probs[:, -1] > 0).any())


def _intervals(
    scores: Sequence[FloatArray], bootstrap: UserBootstrap
) -> list[list[dict[str, float]]]:
    """Intervals of all columns of each ``(S, M)`` array."""
    found = iter(bootstrap.intervals(np.column_stack(scores)))
    return [[next(found)._asdict() for _ in range(each.shape[1])] for each in scores]


def _slice_blocks(
    scores: Sequence[FloatArray], groups: Slices, bootstrap: UserBootstrap
) -> list[dict[str, Any]]:
    """Of each chooser: dimension -> rows."""
    columns = [METRICS.index(name) for name in SHOWN]
    values = np.column_stack([each[:, columns] for each in scores])
    blocks: list[dict[str, Any]] = [{name: [] for name in groups} for _ in scores]
    for dimension, members in groups.items():
        for value, member in members.items():
            intervals = bootstrap.intervals(np.where(member[:, None], values, np.nan))
            for block, pair in zip(blocks, _pairs(intervals), strict=True):
                block[dimension].append(
                    {"value": value, "n": int(member.sum()), "few": bool(member.sum() < FEW)} | pair
                )
    return blocks


def paired_blocks(
    scores: Mapping[str, FloatArray], bootstrap: UserBootstrap
) -> list[dict[str, Any]]:  # fmt: skip
    """The first chooser minus every other."""
    columns = [METRICS.index(name) for name in SHOWN]
    own, *others = scores
    if not others:
        return []
    differences = [scores[own][:, columns] - scores[name][:, columns] for name in others]
    pairs = _pairs(bootstrap.intervals(np.column_stack(differences)))
    return [
        {"chooser": own, "against": name} | pair for name, pair in zip(others, pairs, strict=True)
    ]


def _pairs(intervals: Sequence[Interval]) -> list[dict[str, Any]]:
    """Runs of intervals, one per name in :data:`SHOWN`, as dictionaries."""
    n = len(SHOWN)
    return [
        {name: interval._asdict() for name, interval in zip(SHOWN, run, strict=True)}
        for run in (intervals[i : i + n] for i in range(0, len(intervals), n))
    ]


def history_block(paired: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Own minus swapped history."""
    found = next((pair for pair in paired if pair["against"].startswith(SWAPPED)), None)
    return None if found is None else {name: found[name] for name in SHOWN}
