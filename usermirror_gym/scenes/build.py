"""Scenes from a log: real choices after T0, with sampled company at uniform positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from usermirror_gym.data import History, TimeSplit, histories
from usermirror_gym.errors import ConfigError
from usermirror_gym.scenes.exposure import sample_distractors
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.types import IntArray


@dataclass(frozen=True)
class ScenePlan:
    """Which scenes to build."""

    count: int = 300
    slate_size: int = 5
    """K, the true item included."""
    sampler: str = "uniform"
    history_lines: int = 10
    min_history: int = 3
    """Events with fewer strictly earlier interactions are not used."""
    seed: int = 0

    def __post_init__(self) -> None:
        for field in ("count", "slate_size", "history_lines"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field} must be at least 1, got {getattr(self, field)}")


def build_scenes(split: TimeSplit, plan: ScenePlan, *, after_t0: bool = True) -> list[Scene]:
    """Scenes whose true item is an interaction on the chosen side of T0.

    The memory is what the user did before the event; distractors exclude everything the user
    ever touched; the true item's position is uniform over all K slots.  Each scene draws from a
    generator of its own, so that a longer plan starts with the scenes of a shorter one.
    """
    everything = histories(split.dataset.interactions)
    events = _eligible(split, everything, plan.min_history, after_t0)
    if not len(events):
        raise ConfigError(
            f"no event {'after' if after_t0 else 'before'} T0 in {split.dataset.name!r} has "
            f"{plan.min_history} earlier interactions"
        )
    order = np.random.default_rng(plan.seed).permutation(len(events))[: plan.count]
    return [
        _scene(split, plan, everything[int(user)], int(user), int(index), int(number))
        for number, (user, index) in enumerate(events[order])
    ]


def swap_histories(scenes: Sequence[Scene], seed: int = 0) -> list[Scene]:
    """The same lists in front of another user's profile and history.

    Every scene gets the memory of another scene, of a different user wherever there is one.
    """
    order = np.random.default_rng(seed).permutation(len(scenes))
    users = np.array([scenes[i].user_id for i in order])
    # Sorted by user in random user order, a shift by the largest group meets another user.
    ranks = {u: r for r, u in enumerate(dict.fromkeys(users.tolist()))}
    order = order[np.argsort([ranks[u] for u in users.tolist()], kind="stable")]
    largest = int(np.bincount([ranks[u] for u in users.tolist()]).max(initial=1))
    donors = np.roll(order, -largest)
    swapped = list(scenes)
    for own, donor in zip(order, donors, strict=True):
        other = scenes[donor]
        swapped[own] = replace(
            scenes[own],
            user_id=other.user_id,
            history=other.history,
            ratings=other.ratings,
            ages=other.ages,
            turns=other.turns,
        )
    return swapped


def _eligible(
    split: TimeSplit, everything: dict[int, History], min_history: int, after_t0: bool
) -> IntArray:
    """(user id, index of the event in the user's history) of every usable event, by user."""
    pairs = []
    for user, history in everything.items():
        late = history.timestamps >= split.t0
        # Events of one second are one visit: only strictly earlier ones count as memory.
        earlier = np.searchsorted(history.timestamps, history.timestamps)
        index = np.flatnonzero((late if after_t0 else ~late) & (earlier >= min_history))
        pairs.append(np.column_stack([np.full(len(index), user), index]))
    return np.concatenate(pairs).astype(np.int64)


def _scene(
    split: TimeSplit, plan: ScenePlan, history: History, user: int, index: int, number: int
) -> Scene:
    rng = np.random.default_rng([plan.seed, user, index])
    others = sample_distractors(split, plan.sampler, plan.slate_size - 1, history.items, rng)
    target = int(rng.integers(plan.slate_size))
    slate = np.insert(others, target, history.items[index])
    now = history.timestamps[index]
    end = int(np.searchsorted(history.timestamps, now))
    start = max(end - plan.history_lines, 0)
    return Scene(
        user_id=user,
        history=tuple(history.items[start:end].tolist()),
        ratings=tuple(history.ratings[start:end].tolist()),
        ages=tuple((now - history.timestamps[start:end]).tolist()),
        slate=tuple(slate.tolist()),
        target=target,
        name=f"scene {number} (user {user}, event {index})",
    )
