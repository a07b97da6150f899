"""Scene: what one user remembers and the list in front of them.  SceneBatch: many, in columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from usermirror_gym.data.split import Memory, TimeSplit
from usermirror_gym.types import PAD, BoolArray, Float32Array, IntArray

UNKNOWN_AGE = -1
"""In ``Scene.ages``: the log has the order of the history, but not this time."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One earlier list of this session and the item chosen from it (0 = none of these)."""

    slate: tuple[int, ...]
    chosen: int


@dataclass(frozen=True, slots=True)
class Scene:
    """Memory M and exposure list L of one choice.

    Attributes:
        user_id: whose profile is shown.
        history: item ids the user interacted with before the session, oldest first.
        ratings: the rating of each history item; NaN where there is none.
        ages: seconds between each history item and the start of the session, >= 0;
            ``UNKNOWN_AGE`` where the log has the order but not the time.
        turns: the lists of this session so far, oldest first.
        slate: item ids of the exposure list, in the order shown; no zeros, no duplicates.
        target: position in ``slate`` of what the real user chose, ``len(slate)`` for *none of
            these*, ``None`` if nobody knows.
        name: how an error message calls this scene.
        behaviours: what else is known of each history item, in words (hours played, a review ...);
            empty, or one per history item, each of which may be empty.
        notes: what the list says of each option at this moment only ("2 friends listened");
            empty, or one per option, each of which may be empty.
    """

    user_id: int
    history: tuple[int, ...]
    ratings: tuple[float, ...]
    ages: tuple[int, ...]
    slate: tuple[int, ...]
    turns: tuple[Turn, ...] = ()
    target: int | None = None
    name: str = "scene"
    behaviours: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class SceneBatch(Sequence[Scene]):
    """B scenes as arrays, padded with 0 on the right; a ``Sequence[Scene]`` that builds its rows.

    The arrays may be the live state of an environment: read them during ``choose``, never keep or
    change them.  H, T and K are the largest history, number of turns and slate in the batch.
    ``behaviours`` and ``notes`` of a scene are not among the columns.
    Columns of a batch made by :meth:`lazy` or :meth:`select` come into being when first read, so
    that a simulator pays only for what it looks at.
    """

    user_ids: IntArray  # (B,)
    history: IntArray  # (B, H)
    ratings: Float32Array  # (B, H)
    ages: IntArray  # (B, H)
    history_lengths: IntArray  # (B,)
    turn_slates: IntArray  # (B, T, K)
    turn_chosen: IntArray  # (B, T)
    turn_counts: IntArray  # (B,)
    slates: IntArray  # (B, K)

    @property
    def slate_size(self) -> int:
        """K, the number of columns of ``slates``."""
        return self.slates.shape[1]

    @classmethod
    def of(cls, scenes: Sequence[Scene]) -> SceneBatch:
        """Columns of any sequence of scenes; a SceneBatch is returned unchanged."""
        if isinstance(scenes, SceneBatch):
            return scenes
        width = max((len(s.slate) for s in scenes), default=0)
        width = max([width, *(len(t.slate) for s in scenes for t in s.turns)])
        depth = max((len(s.turns) for s in scenes), default=0)
        turn_slates = np.zeros((len(scenes), depth, width), np.int64)
        for row, scene in enumerate(scenes):
            for column, turn in enumerate(scene.turns):
                turn_slates[row, column, : len(turn.slate)] = turn.slate
        return cls(
            user_ids=np.array([s.user_id for s in scenes], np.int64),
            history=padded([s.history for s in scenes], np.int64),
            ratings=padded([s.ratings for s in scenes], np.float32),
            ages=padded([s.ages for s in scenes], np.int64),
            history_lengths=np.array([len(s.history) for s in scenes], np.int64),
            turn_slates=turn_slates,
            turn_chosen=padded([[t.chosen for t in s.turns] for s in scenes], np.int64),
            turn_counts=np.array([len(s.turns) for s in scenes], np.int64),
            slates=padded([s.slate for s in scenes], np.int64, width=width),
        )

    @classmethod
    def first_lists(cls, user_ids: IntArray, memory: Memory, slates: IntArray) -> SceneBatch:
        """Lists ``(B, K)`` at the start of sessions: nothing was shown before."""
        turns = np.zeros((*slates.shape, 0), np.int64).swapaxes(1, 2)
        return cls(
            user_ids, memory.items, memory.ratings, memory.ages, memory.lengths, turns,
            turns[:, :, 0], np.zeros(len(slates), np.int64), slates,
        )  # fmt: skip

    @classmethod
    def lazy(
        cls,
        size: int,
        load: Callable[[str], np.ndarray],
        *,
        at_t0: TimeSplit | None = None,
    ) -> SceneBatch:
        """``size`` scenes whose columns are made by ``load(name)``, each when it is first read.

        Args:
            at_t0: see the attribute.
        """
        batch = object.__new__(cls)
        batch.__dict__.update(_size=size, _load=load, _at_t0=at_t0)
        return batch

    @property
    def at_t0(self) -> TimeSplit | None:
        """The split whose users' histories at T0 these are, each row's that of its ``user_ids``, if
        whoever made the batch says so: a simulator that knows them need not read them again."""
        return self.__dict__.get("_at_t0")

    def select(self, rows: IntArray | BoolArray) -> SceneBatch:
        """The given rows as a new batch; its columns are copies."""
        numbers = np.arange(len(self))[rows]
        return SceneBatch.lazy(
            len(numbers), lambda name: getattr(self, name)[numbers], at_t0=self.at_t0
        )

    def __getattr__(self, name: str) -> np.ndarray:
        # Python asks here only for what is not there: a column that nobody has read yet.
        if name not in type(self).__dataclass_fields__ or "_load" not in self.__dict__:
            raise AttributeError(f"SceneBatch has no attribute {name!r}")
        column = self.__dict__[name] = self.__dict__["_load"](name)
        return column

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).__dataclass_fields__}

    def __len__(self) -> int:
        size = self.__dict__.get("_size")
        return len(self.user_ids) if size is None else size

    @overload
    def __getitem__(self, row: int) -> Scene: ...
    @overload
    def __getitem__(self, row: slice) -> SceneBatch: ...
    def __getitem__(self, row: int | slice) -> Scene | SceneBatch:
        if isinstance(row, slice):
            return self.select(np.arange(len(self))[row])
        h, t = self.history_lengths[row], self.turn_counts[row]
        return Scene(
            user_id=int(self.user_ids[row]),
            history=tuple(self.history[row, :h].tolist()),
            ratings=tuple(self.ratings[row, :h].tolist()),
            ages=tuple(self.ages[row, :h].tolist()),
            slate=_ids(self.slates[row]),
            turns=tuple(
                Turn(_ids(self.turn_slates[row, i]), int(self.turn_chosen[row, i]))
                for i in range(t)
            ),
            name=f"row {row} (user {self.user_ids[row]})",
        )

    def __iter__(self) -> Iterator[Scene]:
        return (self[row] for row in range(len(self)))


def _ids(padded: IntArray) -> tuple[int, ...]:
    return tuple(padded[padded != PAD].tolist())


def padded(rows: Sequence[Sequence[float]], dtype: type, width: int | None = None) -> np.ndarray:
    """Rows of any lengths as an array, padded with 0 on the right."""
    width = max((len(r) for r in rows), default=0) if width is None else width
    out: np.ndarray = np.zeros((len(rows), width), dtype)
    for row, values in enumerate(rows):
        out[row, : len(values)] = values
    return out
