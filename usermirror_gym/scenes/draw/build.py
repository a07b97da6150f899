"""Scenes from a log: logged choices among sampled distractors, at uniform positions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from usermirror_gym.configs.session import SLATE_SIZE
from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import ConfigError, SceneError
from usermirror_gym.scenes.draw.columns import SceneColumns, Timeline, spans
from usermirror_gym.scenes.draw.exposure import LOG, ORIGINS, check_samplers, fill_lists
from usermirror_gym.scenes.draw.rankers import Rankers
from usermirror_gym.scenes.draw.samplers import Draft, Strata
from usermirror_gym.scenes.randomness import integers, keys, uniforms
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.types import PAD, BoolArray, IntArray

Window = tuple[int | None, int | None]
"""``[from, before)`` in seconds; ``None`` is open."""
# Random streams, see randomness.py.
PRIORITY_STREAM, _REMOVED, _SIZE, LINES_STREAM, _ORDER = range(8, 13)
_CHUNK_CELLS = 4_000_000


@dataclass(frozen=True)
class ScenePlan:
    """Which scenes to build."""

    count: int = 300
    slate_size: int | tuple[int, int] = SLATE_SIZE
    """K, or its range (uniform, both inclusive); the true item is one of them."""
    samplers: Mapping[str, float] = field(default_factory=lambda: {"uniform": 1.0})
    """Share of the places each sampler fills (:data:`SAMPLERS`)."""
    balance: Literal["none", "popularity"] = "none"
    """``"popularity"``: a list's items are as popular as chosen items are; see exposure.py."""
    history: int | tuple[int, int] = 10
    """Most history lines, or the range they are drawn from."""
    min_history: int = 3
    """Events with fewer strictly earlier interactions are not used."""
    removed: float = 0.0
    """Share of scenes that lack the true item: the right answer is *none of these*."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"count must be at least 1, got {self.count}")
        if self.min_history < 0:
            raise ConfigError(f"min_history must not be negative, got {self.min_history}")
        for name in ("slate_size", "history"):
            value = getattr(self, name)
            ends = value if isinstance(value, tuple | list) else (value, value)
            whole = len(ends) == 2 and all(isinstance(end, int) for end in ends)
            if not whole or not 1 <= ends[0] <= ends[1]:
                raise ConfigError(
                    f"{name} must be a positive whole number or a range (low, high) of them, "
                    f"got {value!r}"
                )
        if not 0 <= self.removed <= 1:
            raise ConfigError(f"removed is a share between 0 and 1, got {self.removed!r}")
        if self.balance not in ("none", "popularity"):
            raise ConfigError(f"balance must be 'none' or 'popularity', got {self.balance!r}")


def as_range(value: int | tuple[int, int]) -> tuple[int, int]:
    """A number is the range from itself to itself."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def build_scenes(
    split: TimeSplit, plan: ScenePlan, *, rankers: Rankers | None = None, after_t0: bool = True
) -> list[Scene]:
    """Scenes whose true item is an interaction on the chosen side of T0; see :func:`draw_scenes`.

    Behaviours and notes are left out.
    """
    window = (split.t0, None) if after_t0 else (None, split.t0)
    return draw_scenes(rankers or Rankers(split), plan, window).scenes()


def draw_scenes(rankers: Rankers, plan: ScenePlan, window: Window) -> SceneColumns:
    """Scenes around ``plan.count`` interactions of the window, in random order.

    The memory is what the user did strictly before the event.  Distractors exclude everything the
    user ever touched and what was not yet published.  The true item's position is uniform over all
    K places.  An event whose item the user had touched before is not used: among items they never
    touched it would give itself away.  Each scene is a function of the seed and its event alone,
    so that a longer plan starts with the scenes of a shorter one.

    Raises:
        ConfigError: no usable event in the window, or the samplers cannot be used.
        UnknownNameError: no such sampler.
        SceneError: no list could be filled.
    """
    check_samplers(plan.samplers, rankers)
    line = rankers.timeline
    events = eligible(line, plan.min_history, window)
    # Among published distractors, an item that was not would give itself away.
    unpublished = rankers.published_from[line.items[events]] > line.times[events]
    events = events[~unpublished]
    if not len(events):
        early = f"; choices logged before their item was published: {unpublished.sum()}"
        raise ConfigError(
            f"no event in {rankers.split.dataset.name!r} {_describe(window)} has "
            f"{plan.min_history} earlier interactions (min_history)"
            f"{early if unpublished.any() else ''}"
        )
    own = keys(plan.seed, line.users[events], line.items[events], line.times[events])
    order = np.argsort(uniforms(own, PRIORITY_STREAM)[:, 0], kind="stable")[: plan.count]
    popularity = rankers.split.popularity
    groups = (
        Strata.single(popularity)
        if plan.balance == "none"
        else Strata.balanced(popularity, line.items[events])
    )
    size = max(_CHUNK_CELLS // len(popularity), 1)
    chunks = (order[start : start + size] for start in range(0, len(order), size))
    parts = [_chunk(rankers, plan, groups, events[rows], own[rows]) for rows in chunks]
    columns = SceneColumns.concatenate(parts)
    if unpublished.any():
        columns.dropped["choice logged before its item was published"] = int(unpublished.sum())
    if not len(columns):
        raise SceneError(
            f"none of {len(order)} scenes of {rankers.split.dataset.name!r} could be built "
            f"({dict(columns.dropped)}); use shorter lists"
        )
    return columns


def eligible(line: Timeline, min_history: int, window: Window) -> IntArray:
    """Positions in the timeline of the events that a scene can be built around."""
    good = line.dated & (line.earlier >= min_history) & line.first_touch
    return np.flatnonzero(good & inside(line.times, window))


def inside(times: IntArray, window: Window) -> BoolArray:
    """Which of the times are in the window."""
    start, end = window
    return (times >= (-np.inf if start is None else start)) & (
        times < (np.inf if end is None else end)
    )


def _describe(window: Window) -> str:
    named = zip(("from", "before"), window, strict=True)
    return " and ".join(f"{word} {t}" for word, t in named if t is not None) or "at any time"


def _chunk(
    rankers: Rankers, plan: ScenePlan, groups: Strata, events: IntArray, own: np.ndarray
) -> SceneColumns:
    line = rankers.timeline
    removed = uniforms(own, _REMOVED)[:, 0] < plan.removed
    slate_sizes = integers(own, _SIZE, *as_range(plan.slate_size))
    sizes = np.where(removed, slate_sizes, slate_sizes - 1)
    users, times = line.users[events], line.times[events]
    draft = Draft(
        keys=own,
        users=users,
        times=times,
        starts=line.offsets[users],
        lengths=line.earlier[events],
        chosen=line.items[events],
        sizes=sizes,
        allowed=_allowed(rankers, users, times),
        items=np.zeros((len(events), int(sizes.max(initial=0))), np.int64),
    )
    balanced = plan.balance == "popularity"
    origin = fill_lists(draft, rankers, groups, plan.samplers, balanced=balanced)
    slates, origins = _shuffle(draft, origin, removed)
    lines = np.minimum(integers(own, LINES_STREAM, *as_range(plan.history)), draft.lengths)
    found = (slates != PAD).sum(axis=1)
    columns = SceneColumns(
        dataset=rankers.split.dataset.name,
        user_ids=users,
        timestamps=times,
        first_lines=draft.starts + draft.lengths - lines,
        lines=lines,
        slates=slates,
        origins=origins,
        targets=np.where(removed, found, (slates == draft.chosen[:, None]).argmax(axis=1)),
        items=draft.chosen,
        removed=removed,
        names=np.array([""] * len(events), object),
        timeline=line,
        dropped=Counter(),
    )
    short = found < slate_sizes
    return columns.select(~short, dropped={"too few items left for the list": int(short.sum())})


def _allowed(rankers: Rankers, users: IntArray, times: IntArray) -> BoolArray:
    """``(B, n_items + 1)``: never touched by the user, and published."""
    line = rankers.timeline
    allowed = rankers.published_from[None, :] <= times[:, None]
    flat, rows = spans(line.offsets[users], line.offsets[users + 1] - line.offsets[users])
    allowed[:, PAD] = False
    allowed[rows, line.items[flat]] = False
    return allowed


def _shuffle(draft: Draft, origin: IntArray, removed: BoolArray) -> tuple[IntArray, IntArray]:
    """The true item (unless removed) and its distractors in random order; padding at the end."""
    first = np.where(removed, PAD, draft.chosen)
    items = np.column_stack([first, draft.items])
    origins = np.column_stack([np.where(removed, -1, ORIGINS.index(LOG)), origin])
    ranks = uniforms(draft.keys, _ORDER, items.shape[1])
    order = np.argsort(np.where(items == PAD, 2.0, ranks), axis=1)
    width = max(int((items != PAD).sum(axis=1).max(initial=0)), 1)
    order = order[:, :width]
    return np.take_along_axis(items, order, axis=1), np.take_along_axis(origins, order, axis=1)


def swap_histories(scenes: Sequence[Scene], seed: int = 0) -> list[Scene]:
    """The same lists in front of another user's profile and history, which is as long.

    What a longer history is worth must not count as what the user's own is worth.  A scene of n
    lines gets the newest n of a scene that has at least n, of a different user wherever there is
    one; where nobody else has so many, the longest of another user, which is shorter.  Lines of
    what is on the list are left out.  A donor gives as seldom as can be.
    """
    users = np.array([scene.user_id for scene in scenes], np.int64)
    lengths = np.array([len(scene.history) for scene in scenes], np.int64)
    rng, given = np.random.default_rng(seed), np.zeros(len(scenes), np.int64)
    swapped = list(scenes)
    # The longest first: few can give to them.
    for own in np.lexsort((rng.permutation(len(scenes)), -lengths)):
        others = users != users[own]
        if not others.any():
            continue
        enough = others & (lengths >= min(lengths[own], lengths[others].max()))
        rows = np.flatnonzero(enough)
        donor = rng.choice(rows[given[rows] == given[rows].min()])
        given[donor] += 1
        swapped[own] = _remembering(scenes[own], scenes[donor])
    return swapped


def _remembering(scene: Scene, donor: Scene) -> Scene:
    """A scene with the memory of another, of which no more lines than it had.

    Lines of what is on the list are left out: the user's own history hardly ever has them, and
    who knows that nobody takes the same twice would be told the answer.
    """
    told = [row for row, item in enumerate(donor.history) if item not in scene.slate]
    lines = told[max(len(told) - len(scene.history), 0) :]
    pick = lambda values: tuple(values[row] for row in lines) if values else ()  # noqa: E731
    return replace(
        donor, history=pick(donor.history), ratings=pick(donor.ratings), ages=pick(donor.ages),
        behaviours=pick(donor.behaviours), slate=scene.slate, target=scene.target,
        name=scene.name, notes=scene.notes,
    )  # fmt: skip
