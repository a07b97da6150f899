"""Whole histories, as a small network reads them: each kept once, however many lists it met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Self

import numpy as np

from usermirror_gym.data import TimeSplit
from usermirror_gym.scenes.scene import SceneBatch
from usermirror_gym.simulators.affinity.affinity import newest_lines
from usermirror_gym.simulators.session.session import (
    MOST_PASSED,
    passed_over,
    rating_scale,
    refused,
)
from usermirror_gym.types import PAD, BoolArray, IntArray

_NEXT = 32
"""Bits of an item's number in a key."""


@dataclass(frozen=True, eq=False)
class LineStore:
    """U histories one after another, the lines of each oldest first.

    Attributes:
        items: ``(N,)``.
        ages: ``(N,)`` classes, see ``session_net.age_classes``.
        marks: ``(N,)`` classes of ratings, see ``session_net.rating_classes``.
        starts: ``(U + 1,)`` where each begins; last, N.
    """

    items: IntArray
    ages: IntArray
    marks: IntArray
    starts: IntArray

    @cached_property
    def newest(self) -> IntArray:
        """``(U,)`` age class of each newest line; 0 without any."""
        last = np.r_[self.ages, 0][self.starts[1:] - 1]
        found: IntArray = np.where(np.diff(self.starts) > 0, last, 0)
        return found

    @cached_property
    def _keys(self) -> IntArray:
        rows = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        return np.sort(rows << _NEXT | self.items)

    def has(self, of: IntArray, slates: IntArray) -> BoolArray:
        """``(B, K)`` which items are in the history ``of`` their row."""
        if not len(self.items):
            return np.zeros(slates.shape, np.bool_)
        keys = of[:, None] << _NEXT | slates
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        found: BoolArray = self._keys[places] == keys
        return found

    def lines(self, number: int) -> np.ndarray:
        """``(3, n)`` of one history: items, ages and marks."""
        rows = slice(self.starts[number], self.starts[number + 1])
        return np.stack([self.items[rows], self.ages[rows], self.marks[rows]])

    @classmethod
    def of(cls, histories: Sequence[np.ndarray]) -> Self:
        """Of the ``(3, n)`` lines of each."""
        sizes = [own.shape[1] for own in histories]
        items, ages, marks = np.concatenate([np.zeros((3, 0), np.int64), *histories], axis=1)
        return cls(items, ages, marks, np.cumsum([0, *sizes]))


@dataclass(frozen=True, eq=False)
class Histories:
    """B histories, of which many are the same.

    Attributes:
        store: where they are.
        of: ``(B,)`` which one.
    """

    store: LineStore
    of: IntArray

    @property
    def lengths(self) -> IntArray:
        """``(B,)`` lines."""
        return np.diff(self.store.starts)[self.of]

    def __getitem__(self, rows: Any) -> Histories:
        return Histories(self.store, self.of[rows if isinstance(rows, slice) else np.asarray(rows)])

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """All of them; what is alike is kept once, and what nobody asks for not at all."""
        known: dict[bytes, int] = {}
        histories: list[np.ndarray] = []
        of = []
        for part in parts:
            used, rows = np.unique(part.of, return_inverse=True)
            numbers = np.zeros(len(used), np.int64)
            for place, number in enumerate(used):
                lines = part.store.lines(number)
                numbers[place] = known.setdefault(lines.tobytes(), len(known))
                if len(known) > len(histories):
                    histories.append(lines)
            of.append(numbers[rows])
        return cls(LineStore.of(histories), np.concatenate(of))


@dataclass(frozen=True, eq=False)
class Whole:
    """All that B users did, for a network that reads it; arrays, or tensors alike.

    Attributes:
        histories: before the session; or, ``(B, d + G)``, what the network made of them.
        taken: ``(B, T)`` in the session, newest first, 0 behind; T is 1 at least.
        passed: ``(B, M)`` what was shown and not taken; 0 is nothing, wherever it stands.
        had: ``(B, K)`` which options were taken before.
        count: ``(B,)`` lines of both.
        far: ``(B,)`` whether an hour and more has passed since the newest line.
    """

    histories: Any
    taken: Any
    passed: Any
    had: Any
    count: Any
    far: Any

    def __getitem__(self, rows: Any) -> Whole:
        return Whole(*(getattr(self, field.name)[rows] for field in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """All of them, with room for the longest."""

        def wide(name: str) -> np.ndarray:
            columns = [getattr(part, name) for part in parts]
            room = max(own.shape[1] for own in columns)
            return np.concatenate([np.pad(c, ((0, 0), (0, room - c.shape[1]))) for c in columns])

        return cls(
            Histories.joined([part.histories for part in parts]),
            wide("taken"), wide("passed"), wide("had"),
            np.concatenate([part.count for part in parts]),
            np.concatenate([part.far for part in parts]),
        )  # fmt: skip

    def arrays(self) -> dict[str, np.ndarray]:
        """What a file keeps; see :meth:`of_arrays`."""
        own = Histories.joined([self.histories])
        lines = {f.name: getattr(own.store, f.name) for f in fields(LineStore)}
        others = {f.name: getattr(self, f.name) for f in fields(self)[1:]}
        return {**lines, "of": own.of, **others}

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray]) -> Self:
        """Of :meth:`arrays`; KeyError if one is missing."""
        store = LineStore(*(arrays[field.name] for field in fields(LineStore)))
        others = (arrays[field.name] for field in fields(cls)[1:])
        return cls(Histories(store, arrays["of"]), *others)


class Past:
    """Reads whole histories of scenes.

    Those of a batch that says that its users stand at T0 (``SceneBatch.at_t0``) are known already
    and not read again.

    Args:
        split: whose users they are.
        lines: newest ones of a history that are kept.
    """

    def __init__(self, split: TimeSplit, lines: int) -> None:
        self.split, self.lines = split, lines
        self._scale = rating_scale(split)
        self._kept: IntArray | None = None

    @cached_property
    def at_t0(self) -> LineStore:
        """Of all users, by their id."""
        users = np.arange(self.split.dataset.n_users + 1)
        longest = max((len(own) for own in self.split.histories.values()), default=1)
        memory = self.split.memory(users, min(self.lines, longest))
        return self._stored(memory.items, memory.ratings, memory.ages, memory.lengths)

    @cached_property
    def _passed(self) -> list[IntArray]:
        return passed_over(self.split)

    def of(self, batch: SceneBatch, slates: IntArray) -> Whole:
        """Columns of scenes.

        Args:
            slates: ``(B, K)``, 0 behind.
        """
        from usermirror_gym.simulators.session.session_net import FAR

        known = batch.at_t0 is self.split
        histories = (
            Histories(self.at_t0, batch.user_ids)
            if known
            else Histories(
                self._stored(batch.history, batch.ratings, batch.ages, batch.history_lengths),
                np.arange(len(batch)),
            )
        )
        taken = newest_lines(_session(batch), max(batch.turn_chosen.shape[1], 1))
        had = histories.store.has(histories.of, slates)
        for column in taken.T:
            had |= slates == column[:, None]
        turns = (taken != PAD).sum(axis=1)
        far = (turns == 0) & (histories.store.newest[histories.of] >= FAR)
        return Whole(
            histories, taken, self._refused(batch), had & (slates != PAD),
            np.minimum(histories.lengths + turns, self.lines), far,
        )  # fmt: skip

    def _refused(self, batch: SceneBatch) -> IntArray:
        """``(B, M)`` what was shown and not taken."""
        slates, chosen = batch.turn_slates, batch.turn_chosen
        seen = np.arange(chosen.shape[1]) < batch.turn_counts[:, None]
        if self.split.dataset.impressions is not None or slates[:1].size > MOST_PASSED:
            return refused(batch, seen, self._passed)
        # All of it counts, in any order: it need not be sorted.
        missed = seen[:, :, None] & (slates != chosen[:, :, None])
        return np.where(missed, slates, PAD).reshape(len(slates), -1)

    def newest(self, batch: SceneBatch, taken: IntArray, lines: int) -> IntArray:
        """``(B, lines)`` as :func:`newest_lines` has it.

        Args:
            taken: of :meth:`of`.
        """
        if batch.at_t0 is not self.split:
            return newest_lines(batch, lines)
        behind = np.arange(lines) - (taken != PAD).sum(axis=1)[:, None]
        before = self._newest(lines)[batch.user_ids[:, None], np.maximum(behind, 0)]
        room = max(lines - taken.shape[1], 0)
        return np.where(behind < 0, np.pad(taken, ((0, 0), (0, room)))[:, :lines], before)

    def _newest(self, lines: int) -> IntArray:
        """``(n_users + 1, lines)`` newest lines at T0, newest first, 0 behind."""
        if self._kept is None or self._kept.shape[1] != lines:
            store = self.at_t0
            behind = np.arange(lines)
            rows = store.starts[1:, None] - 1 - behind
            real = rows >= store.starts[:-1, None]
            self._kept = np.where(real, np.r_[store.items, 0][np.maximum(rows, 0)], PAD)
        return self._kept

    def _stored(
        self, items: IntArray, ratings: np.ndarray, ages: IntArray, lengths: IntArray
    ) -> LineStore:
        from usermirror_gym.simulators.session.session_net import age_classes, rating_classes

        behind = lengths[:, None] - 1 - np.arange(items.shape[1])
        kept = (behind >= 0) & (behind < self.lines)
        return LineStore(
            items[kept], age_classes(ages[kept]), rating_classes(ratings[kept], *self._scale),
            np.concatenate([[0], kept.sum(axis=1).cumsum()]),
        )  # fmt: skip


def _session(batch: SceneBatch) -> SceneBatch:
    """The same users, as if nothing had been before."""
    nothing = np.zeros((len(batch), 0), np.int64)
    columns = {
        "history": lambda: nothing, "history_lengths": lambda: np.zeros(len(batch), np.int64),
        "turn_chosen": lambda: batch.turn_chosen, "turn_counts": lambda: batch.turn_counts,
    }  # fmt: skip
    return SceneBatch.lazy(len(batch), lambda name: columns[name]())
