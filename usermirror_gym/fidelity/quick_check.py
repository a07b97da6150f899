"""A first check of how far a simulated user chooses like the real ones.

Real choices after T0 stand in lists with sampled company; the simulator, the same simulator with
another user's history, and two yardsticks without a history choose among them.  *None of these* is
left out here (the real user did choose): probabilities are renormalised over the items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from usermirror_gym.data import TimeSplit
from usermirror_gym.fidelity.answers import Progress, answer
from usermirror_gym.measures.bootstrap import Interval, UserBootstrap
from usermirror_gym.measures.choice_scores import METRICS, Truth, forced_scores
from usermirror_gym.scenes import Scene, ScenePlan, build_scenes, swap_histories
from usermirror_gym.simulators.base import UserSimulator
from usermirror_gym.simulators.classic import PopularityChooser, UniformChooser
from usermirror_gym.types import FloatArray

SAMPLERS = ("uniform", "popularity")
_BATCH = 10
_SHOWN = ("accuracy", "log_loss")


def check_scenes(
    split: TimeSplit, scenes: int, slate_size: int, seed: int
) -> dict[str, list[Scene]]:
    """Scenes after T0 by exposure sampler, half of them each."""
    return {
        sampler: build_scenes(
            split,
            ScenePlan(count=scenes // 2, slate_size=slate_size, samplers={sampler: 1.0}, seed=seed),
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
    verdicts: list[str] = []
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
            blocks = dict(zip(_SHOWN, bootstrap.intervals(values), strict=True))
            rows.append(
                {"sampler": sampler, "chooser": chooser, "n": len(own)}
                | {metric: interval._asdict() for metric, interval in blocks.items()}
            )
        own_scores = scored["simulator"]
        gap, gain = bootstrap.intervals(own_scores - scored["swapped history"])
        gaps[sampler] = gap._asdict()
        # A lower log-loss is better, hence the other order.
        verdicts.append(
            _verdict(
                sampler,
                gap,
                Interval(0.0 - gain.mean, 0.0 - gain.high, 0.0 - gain.low),
                bootstrap.intervals(scored["popularity"] - own_scores)[1],
            )
        )
    return {
        "scenes": sum(row["n"] for row in rows if row["chooser"] == "simulator"),
        "slate_size": slate_size,
        "simulator": simulator.name,
        "rows": rows,
        "gaps": gaps,
        "verdict": "; ".join(verdicts).capitalize() + ".",
    }


def score(
    simulator: UserSimulator, scenes: Sequence[Scene], progress: Progress = lambda done: None
) -> FloatArray:
    """Accuracy and log-loss of every scene, ``(B, 2)``.

    Accuracy is the share of the most probable options that is the true item (1 or 0 without ties).
    """
    truth = Truth.of(scenes)
    probs = answer(simulator, scenes, progress=progress, chunk=_BATCH)
    return forced_scores(probs, truth)[:, [METRICS.index(name) for name in _SHOWN]]


def _verdict(sampler: str, gap: Interval, gain: Interval, beyond: Interval) -> str:
    """One clause; decided by log-loss, which sees more of the answer than accuracy does.

    Args:
        gap: accuracy, own minus swapped history.
        gain: log-loss, swapped minus own history.
        beyond: log-loss, popularity minus simulator.
    """
    reads = "reads the history" if gain.low > 0 else "is not shown to read the history"
    against = "does not beat"
    if beyond.low > 0:
        against = "beats"
    elif beyond.high < 0:
        against = "loses to"
    cost = (
        f"another user's history costs {_points(gap)} points of accuracy and "
        f"{_range(gain, '.2f')} nats"
    )
    return f"on {sampler} lists it {reads} ({cost}) and {against} popularity"


def _points(share: Interval) -> str:
    return _range(Interval(*(100 * value for value in share)), ".0f")


def _range(interval: Interval, form: str) -> str:
    if np.isnan(interval.low):
        return f"{interval.mean:{form}}"
    return f"{interval.mean:{form}} [{interval.low:{form}}, {interval.high:{form}}]"
