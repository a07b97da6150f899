"""A first check of how far a simulated user chooses like the real ones.

Real choices after T0 stand in lists with sampled company; the simulator, the same simulator with
another user's history, and two yardsticks without a history choose among them.  *None of these* is
left out here (the real user did choose): probabilities are renormalised over the items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from usermirror_gym.data import TimeSplit
from usermirror_gym.evaluate.bootstrap import Interval, UserBootstrap
from usermirror_gym.scenes import Scene, ScenePlan, build_scenes, swap_histories
from usermirror_gym.simulators.base import UserSimulator
from usermirror_gym.simulators.classic import PopularityChooser, UniformChooser
from usermirror_gym.types import FloatArray, IntArray

SAMPLERS = ("uniform", "popularity")
_BATCH = 10
_METRICS = ("accuracy", "log_loss")
Progress = Callable[[int], None]


def check_scenes(
    split: TimeSplit, scenes: int, slate_size: int, seed: int
) -> dict[str, list[Scene]]:
    """Scenes after T0 by exposure sampler, half of them each."""
    return {
        sampler: build_scenes(
            split, ScenePlan(count=scenes // 2, slate_size=slate_size, sampler=sampler, seed=seed)
        )
        for sampler in SAMPLERS
    }


def fidelity_check(
    split: TimeSplit,
    simulator: UserSimulator,
    *,
    scenes: int = 300,
    slate_size: int = 5,
    seed: int = 0,
    progress: Progress = lambda done: None,
) -> dict[str, Any]:
    """Accuracy and log-loss of the simulator and its controls, with 95 % intervals over users.

    Args:
        scenes: how many real choices, half with uniform and half with popularity-sampled company.
        slate_size: options per list.
        progress: told how many scenes were answered since the last call
            (twice ``scenes`` in all: with own and with swapped histories).

    Returns:
        plain types: ``scenes``, ``slate_size``, ``simulator``, ``rows`` (one per sampler and
        chooser, each with ``accuracy`` and ``log_loss`` as ``{mean, low, high}`` and ``n``),
        ``gaps`` (own minus swapped history, accuracy) and a ``verdict``.
    """
    rows: list[dict[str, Any]] = []
    gaps: dict[str, dict[str, float]] = {}
    beaten: dict[str, Interval] = {}
    popularity = PopularityChooser(split)
    for sampler, own in check_scenes(split, scenes, slate_size, seed).items():
        users = np.array([scene.user_id for scene in own])
        swapped = swap_histories(own, seed)
        scored = {
            "simulator": score(simulator, own, progress),
            "swapped history": score(simulator, swapped, progress),
            "popularity": score(popularity, own),
            "uniform": score(UniformChooser(), own),
        }
        bootstrap = UserBootstrap(users, seed=seed)
        for chooser, values in scored.items():
            blocks = dict(zip(_METRICS, bootstrap.intervals(values), strict=True))
            rows.append(
                {"sampler": sampler, "chooser": chooser, "n": len(own)}
                | {metric: interval._asdict() for metric, interval in blocks.items()}
            )
        own_accuracy = scored["simulator"][:, 0]
        gap = own_accuracy - scored["swapped history"][:, 0]
        gaps[sampler] = bootstrap.intervals(gap[:, None])[0]._asdict()
        beyond = own_accuracy - scored["popularity"][:, 0]
        beaten[sampler] = bootstrap.intervals(beyond[:, None])[0]
    return {
        "scenes": sum(row["n"] for row in rows if row["chooser"] == "simulator"),
        "slate_size": slate_size,
        "simulator": simulator.name,
        "rows": rows,
        "gaps": gaps,
        "verdict": _verdict(gaps, beaten),
    }


def score(
    simulator: UserSimulator, scenes: Sequence[Scene], progress: Progress = lambda done: None
) -> FloatArray:
    """Accuracy and log-loss of every scene, ``(B, 2)``.

    Accuracy is the share of the most probable options that is the true item (1 or 0 without ties).
    """
    parts = []
    for start in range(0, len(scenes), _BATCH):
        chunk = scenes[start : start + _BATCH]
        parts.append(_score(simulator.choose(chunk).probs, chunk))
        progress(len(chunk))
    return np.concatenate(parts)


def _score(probs: FloatArray, scenes: Sequence[Scene]) -> FloatArray:
    targets: IntArray = np.array([scene.target for scene in scenes], np.int64)
    items = probs[:, :-1]
    items = items / items.sum(axis=1, keepdims=True)
    best = items >= items.max(axis=1, keepdims=True) - 1e-12
    rows = np.arange(len(scenes))
    accuracy = best[rows, targets] / best.sum(axis=1)
    return np.column_stack([accuracy, -np.log(np.maximum(items[rows, targets], 1e-12))])


def _verdict(gaps: dict[str, dict[str, float]], beaten: dict[str, Interval]) -> str:
    parts = []
    for sampler, gap in gaps.items():
        reads = "reads the history" if gap["low"] > 0 else "is not shown to read the history"
        beyond = beaten[sampler]
        if beyond.low > 0:
            against = "beats popularity"
        else:
            against = "loses to popularity" if beyond.high < 0 else "does not beat popularity"
        parts.append(
            f"on {sampler} lists it {reads} (own minus swapped history {gap['mean']:+.0%}"
            f"{_range(gap)}) and {against}"
        )
    return "; ".join(parts).capitalize() + "."


def _range(gap: dict[str, float]) -> str:
    if np.isnan(gap["low"]):
        return ""
    return f", 95 % interval {gap['low']:+.0%} to {gap['high']:+.0%}"
