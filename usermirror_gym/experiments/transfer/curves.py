"""Does what a policy learns from a simulated user hold with the users themselves?

Checkpoints of a training are played in several worlds, with the same users and the same luck: the
world that was trained on, other tiers of it, and a ground truth that no training has seen.  Returns
are in the same unit everywhere (the reward of :class:`~.returns.SessionSettings`, a session).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from usermirror_gym.agents.base import Agent
from usermirror_gym.agents.returns import SessionSettings, play
from usermirror_gym.agents.rollout import Episodes
from usermirror_gym.envs import World
from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.measures.bootstrap import UserBootstrap, drawn_trainings
from usermirror_gym.report.text import BETTER, WORSE, standing
from usermirror_gym.types import FloatArray, IntArray

TRUTH = "truth"
"""Name of the world that judges."""
_LEAST = 2


class Checkpoint(NamedTuple):
    """A policy as it was after so many sessions of training."""

    step: int
    agent: Agent


@dataclass(frozen=True)
class Curve:
    """Returns of one learner over training.

    Attributes:
        steps: ``(C,)`` sessions of training before each evaluation.
        returns: by world ``(R, C, E)``: R trainings with different seeds, E episodes.
        users: ``(E,)`` the user of each episode.
        trained_on: name of the world that was trained on.
    """

    steps: IntArray
    returns: Mapping[str, FloatArray]
    users: IntArray
    trained_on: str

    def __post_init__(self) -> None:
        if self.trained_on not in self.returns:
            raise UnknownNameError("world", self.trained_on, self.returns)
        for world, values in self.returns.items():
            if values.ndim != 3 or values.shape[1:] != (len(self.steps), len(self.users)):
                raise ConfigError(
                    f"returns in {world!r} have shape {values.shape}, expected (trainings, "
                    f"{len(self.steps)} evaluations, {len(self.users)} episodes)"
                )
        if len(self.steps) < _LEAST or (np.diff(self.steps) <= 0).any():
            raise ConfigError(
                f"a curve needs at least {_LEAST} evaluations at ascending steps, got "
                f"{self.steps.tolist()}"
            )


def judge(
    checkpoints: Iterable[Checkpoint],
    worlds: Mapping[str, World],
    plan: Episodes,
    settings: SessionSettings,
    *,
    progress: Callable[[int], None] = lambda sessions: None,
) -> tuple[IntArray, dict[str, FloatArray]]:
    """Play every checkpoint of one training in every world.

    Args:
        checkpoints: of a training in one of the worlds, the untrained policy first; steps ascend
            from 0.  An agent may go on learning when the next one is asked for.
        worlds: by name; all hold the users of the plan.
        plan: the episodes, the same for all.
        progress: told how many sessions were played since the last call.

    Returns:
        ``(C,)`` steps, and by world ``(C, E)`` returns.
    """
    steps: list[int] = []
    rows: dict[str, list[FloatArray]] = {name: [] for name in worlds}
    for step, agent in checkpoints:
        steps.append(step)
        for name, world in worlds.items():
            rows[name].append(play(world, agent, plan, settings).returns)
            progress(len(plan))
    if not steps:
        raise ConfigError("the training gave no checkpoint: nothing can be judged")
    return np.array(steps, np.int64), {name: np.stack(found) for name, found in rows.items()}


def together(
    judged: Sequence[tuple[IntArray, Mapping[str, FloatArray]]], users: IntArray, trained_on: str
) -> Curve:
    """One curve of several trainings.

    Raises:
        ConfigError: there are none, or they were evaluated at different steps.
    """
    if not judged:
        raise ConfigError("no training was judged: give at least one seed")
    steps = judged[0][0]
    for other, _ in judged[1:]:
        if not np.array_equal(steps, other):
            raise ConfigError(
                f"trainings of one learner must be evaluated at the same steps, got "
                f"{steps.tolist()} and {other.tolist()}"
            )
    names = judged[0][1]
    returns = {name: np.stack([found[name] for _, found in judged]) for name in names}
    return Curve(steps, returns, users, trained_on)


def analyse(
    curve: Curve, *, truth: str = TRUTH, n_resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Means, gains and the points where simulated and true return part, as plain types.

    Intervals come from a bootstrap in which trainings and users are drawn anew together (all
    episodes of a drawn user, in all worlds, with all drawn trainings), so that they hold over seeds
    and over users.  With S_t and T_t the mean return in the world trained on and in the truth:

    - **parted** is the first evaluation t at which the gain promised exceeds the gain paid: the
      interval of (S_t - S_0) - (T_t - T_0) lies above zero.  The simulator overstates; the policy
      may still have become better.
    - **hacked** is the first evaluation t at which training has made the policy worse while the
      simulator says better: with t* the evaluation up to t of the largest true return, the interval
      of T_t - T_t* lies below zero and that of S_t - S_t* above zero.  This is overoptimisation
      (Gao, Schulman & Hilton, Scaling laws for reward model overoptimization, 2023); ``since`` is
      the step of t*.

    The first evaluation of many at which an interval excludes zero is found by chance too; both
    therefore have to hold at the next evaluation as well, and at the last one cannot begin.

    Returns:
        ``steps``; ``worlds``: by name a list of ``{mean, low, high}``; ``gap``: the same, of the
        gains; ``parted``: a step or ``None``; ``hacked``: ``None`` or ``{step, since, fall}``;
        ``end``: gains from first to last evaluation by world, and ``best``: true return at its
        largest and at the end; ``trainings`` and ``episodes``: how many.

    Raises:
        UnknownNameError: ``truth`` is not among the worlds.
    """
    if truth not in curve.returns:
        raise UnknownNameError("world", truth, curve.returns)
    sample = _Resampled(curve, n_resamples, seed)
    s, t = curve.trained_on, truth
    gap = [sample.block([(s, c, 0), (t, 0, c)]) for c in range(len(curve.steps))]
    peaks = [int(np.argmax(sample.means[t][: c + 1])) for c in range(len(curve.steps))]
    moves = [[standing(sample.block([(w, c, p)])) for w in (t, s)] for c, p in enumerate(peaks)]
    hacked = _first_that_stays([move == [WORSE, BETTER] for move in moves])
    parted = _first_that_stays([standing(block) == BETTER for block in gap])
    last = len(curve.steps) - 1
    return {
        "steps": curve.steps.tolist(),
        "trained_on": s, "truth": t,
        "trainings": len(curve.returns[s]), "episodes": len(curve.users),
        "worlds": {
            name: [sample.block([(name, c, None)]) for c in range(len(curve.steps))]
            for name in curve.returns
        },
        "gap": gap,
        "parted": None if parted is None else int(curve.steps[parted]),
        "hacked": None if hacked is None else {
            "step": int(curve.steps[hacked]), "since": int(curve.steps[peaks[hacked]]),
            "fall": sample.block([(t, hacked, peaks[hacked])]),
        },
        "end": {name: sample.block([(name, last, 0)]) for name in curve.returns},
        "best": {"step": int(curve.steps[peaks[last]]),
                 "true": sample.block([(t, peaks[last], None)]),
                 "lost": sample.block([(t, last, peaks[last])])},
    }  # fmt: skip


class _Resampled:
    """Mean returns under the same draws of trainings and users, ``(n_resamples, C)`` by world."""

    def __init__(self, curve: Curve, n_resamples: int, seed: int) -> None:
        self.bootstrap = UserBootstrap(curve.users, n_resamples, seed)
        trainings = len(next(iter(curve.returns.values())))
        drawn = drawn_trainings(trainings, n_resamples, seed)
        self.means = {n: v.mean(axis=(0, 2)) for n, v in curve.returns.items()}
        self.drawn = {
            name: np.einsum(
                "br,rbc->bc", drawn, np.stack([self.bootstrap.means(v.T) for v in values])
            )
            for name, values in curve.returns.items()
        }

    def block(self, terms: Sequence[tuple[str, int, int | None]]) -> dict[str, float | None]:
        """Interval of the sum over terms (world, c, c0) of the return at c minus that at c0."""

        def total(means: Mapping[str, FloatArray]) -> FloatArray:
            found = [means[w][..., c] - (0.0 if c0 is None else means[w][..., c0])
                     for w, c, c0 in terms]  # fmt: skip
            return np.sum(found, axis=0)

        resampled = total(self.drawn)
        varies = bool(np.ptp(resampled) > 0)
        found = self.bootstrap.interval(float(total(self.means)), resampled if varies else None)
        return {k: None if np.isnan(v) else float(v) for k, v in found._asdict().items()}


def _first_that_stays(holds: Sequence[bool]) -> int | None:
    """The first position that holds together with the next one."""
    return next((c for c, both in enumerate(pairwise(holds)) if all(both)), None)
