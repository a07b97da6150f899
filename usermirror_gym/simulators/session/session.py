"""The session readout: the whole history of a user is one sequence, and every option is scored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from usermirror_gym.data import TimeSplit
from usermirror_gym.data.appeal import appeal
from usermirror_gym.engines.base import Engine
from usermirror_gym.errors import ConfigError
from usermirror_gym.scenes.scene import Scene, SceneBatch
from usermirror_gym.scenes.words.prompt import PromptBuilder
from usermirror_gym.simulators.affinity.affinity import newest_lines, shown_slates, votes
from usermirror_gym.simulators.affinity.affinity_head import LineMemory, lag_weights
from usermirror_gym.simulators.affinity.item_vectors import ItemVectors
from usermirror_gym.simulators.base import ChoiceBatch
from usermirror_gym.simulators.readouts.utility import SessionWeights, session_logprobs
from usermirror_gym.simulators.session.session_head import SessionHead
from usermirror_gym.simulators.session.trained_blocks import TrainedBlocks
from usermirror_gym.simulators.surrogate.profile_codes import profile_codes
from usermirror_gym.threads import one_thread
from usermirror_gym.types import (
    ITEM_ID,
    PAD,
    RATING,
    USER_ID,
    BoolArray,
    Float32Array,
    FloatArray,
    IntArray,
)

MOST_PASSED = 100
"""Newest items that a user was shown and did not take."""
NEVER = 60.0
"""What an item loses that was taken before, where nobody ever takes one twice."""
_STEP = 64
"""Histories are padded to a multiple of it, whatever stands beside them in a batch."""
_ROWS = 256


class SessionScores(NamedTuple):
    """What is said of S lists: the arguments of ``fit_session``."""

    features: FloatArray  # (S, K, 1 + F)
    far: BoolArray  # (S,) whether the newest line is an hour old and more
    mask: BoolArray  # (S, K)


class ItemNumbers(NamedTuple):
    """Of n items, row 0 for padding."""

    past: Float32Array  # (n + 1, d) as lines
    option: Float32Array  # (n + 1, d) as options
    general: FloatArray  # (n + 1, F) the net's bias, then the features of appeal if they count
    follow: tuple[FloatArray, FloatArray] | None  # (n + 1, e) each, as lines and as options


class SessionSimulator:
    """Reads all that a user did, and scores every option for itself.

    It reads the history and what was taken in the session, with ratings and ages; what was shown
    and not taken, before T0 (where the log has lists) and in the session; and the profile.  A list
    is never read as a whole: its order does not matter, and what is said of one option does not
    depend on the others.  Where nobody in the log takes an item twice (ratings), nobody does here.

    Args:
        head: what was trained.
        weights: how much its numbers count.
        split: the data whose users and items are talked about.
        builder: words the items.
        engine: makes the LLM that reads lines which were not in training; not called before one is
            asked about.
        blocks: makes the blocks that read users, if the head has some; called at the first
            question.
        cache: folder that keeps what was read; ``None`` keeps nothing.
        origin: where the readout comes from, for the name.
    """

    def __init__(
        self,
        head: SessionHead,
        weights: SessionWeights,
        split: TimeSplit,
        builder: PromptBuilder,
        *,
        engine: Callable[[], Engine] | None = None,
        blocks: Callable[[TrainedBlocks], Any] | None = None,
        cache: Path | None = None,
        origin: str = "session",
    ) -> None:
        self.head, self.weights, self.split = head, weights, split
        self._builder, self._make, self._cache, self._origin = builder, engine, cache, origin
        self._make_blocks = blocks
        n = split.dataset.n_items + 1
        self._past = np.zeros((n, head.net.shape.dim), np.float32)
        self._option, self._bias = np.zeros_like(self._past), np.zeros(n)
        self._unread = self._take_known()
        self._codes = profile_codes(head.profiles, split.dataset.users)
        self._scale = rating_scale(split)
        self._once = taken_once(split)

    @property
    def history_lines(self) -> int:
        """Most lines of the past that it reads; environments show it so many."""
        return self.head.net.shape.lines

    @property
    def name(self) -> str:
        told = hashlib.sha256(repr(self.weights).encode()).hexdigest()[:6]
        return f"session({self._origin}, net@{self.head.digest[:8]}, {told})"

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        probs = np.exp(session_logprobs(self.weights, *self.scores(scenes)))
        return ChoiceBatch(probs / probs.sum(axis=1, keepdims=True))

    def scores(self, scenes: Sequence[Scene]) -> SessionScores:
        """What the weights are fitted on.

        Raises:
            EngineError: of a line that was not in training, which the LLM cannot read.
        """
        batch = SceneBatch.of(scenes)
        slates = shown_slates(batch, scenes)
        sequences = Sequences.of(batch, self.history_lines, self._scale, self._passed)
        self._read(np.concatenate([slates, sequences.items, sequences.passed], axis=1))
        match = np.zeros(slates.shape)
        for rows, width, refused in sequences.groups():
            part = sequences.part(rows, width, refused)
            match[rows] = self._match(part, self._codes[batch.user_ids[rows]], slates[rows])
        if self._once:
            had = (slates[:, :, None] == sequences.items[:, None, :]).any(axis=2)
            match[had & (slates != PAD)] -= NEVER
        general = [self._bias[slates]]
        if self._follows is not None:
            general.append(self._followed(batch, slates))
        if len(self.weights.general) > len(general):
            general += list(self._appeal.T[:, slates])
        features = np.stack([match, *general], axis=-1)
        return SessionScores(features, sequences.far(), slates != PAD)

    @property
    def takes_once(self) -> bool:
        """Whether nobody takes an item twice here."""
        return self._once

    def tables(self) -> ItemNumbers:
        """What it knows of every item, row 0 for padding; the LLM reads what it did not know."""
        self._read(np.arange(1, len(self._past)))
        general = [self._bias]
        follow = None if self._follows is None else self._follow_tables
        if len(self.weights.general) > 1 + (follow is not None):
            general += list(self._appeal.T)
        return ItemNumbers(self._past, self._option, np.stack(general, axis=1), follow)

    def _match(self, part: Sequences, profiles: IntArray, slates: IntArray) -> FloatArray:
        """``(B, K)`` of users whose lines take equal room."""
        import torch

        from usermirror_gym.simulators.session.session_net import Lines

        shown, rows = np.unique(
            np.concatenate([part.items.ravel(), part.passed.ravel(), slates.ravel(), [PAD]]),
            return_inverse=True,
        )
        cut = (part.items.size, part.items.size + part.passed.size)
        local = [
            torch.from_numpy(own.reshape(like.shape))
            for own, like in zip(
                np.split(rows.ravel()[:-1], cut), (part.items, part.passed, slates), strict=True
            )
        ]
        past, option = (torch.from_numpy(table[shown]) for table in (self._past, self._option))
        lines = Lines(
            local[0], torch.from_numpy(part.ages), torch.from_numpy(part.marks), local[1],
            torch.from_numpy(profiles),
        )  # fmt: skip
        net = self.head.net
        with torch.no_grad(), one_thread():
            query = net.query(lines, past)
            if self._blocks is not None:
                query = query + self._blocks(lines, past)
            return net.match(query, lines, local[2], option, past).double().numpy()

    @cached_property
    def _blocks(self) -> Any:
        """Of the LLM, a :class:`~usermirror_gym.simulators.session.blocks.BlockReader`; or none.

        Unlike the pooled network they are products of matrices, whose rounding depends on how many
        rows a batch has: answers in other batches agree to 1e-5, not to the last bit."""
        if self.head.blocks is None:
            return None
        if self._make_blocks is None:
            raise ConfigError(
                f"the readout {self.head.digest[:8]} reads users by blocks of its LLM, and none "
                "were given: make it by make_simulator, or give SessionSimulator(blocks=...)"
            )
        return self._make_blocks(self.head.blocks)

    def _followed(self, batch: SceneBatch, slates: IntArray) -> FloatArray:
        """``(B, K)`` how much each option is what the newest lines are followed by."""
        assert self._follows is not None
        assert self.head.follow is not None
        ahead, behind = self._follow_tables
        memory = newest_lines(batch, self._follows.shape[1])
        return votes(self._follows, memory, slates, ahead[memory], behind[slates], behind[memory],
                     self.head.follow.floor)  # fmt: skip

    @cached_property
    def _appeal(self) -> FloatArray:
        return appeal(self.split).values

    @cached_property
    def _passed(self) -> list[IntArray]:
        return passed_over(self.split)

    def _take_known(self) -> BoolArray:
        """Fill in what was in training; ``(n + 1,)`` the items that were not."""
        items = np.arange(1, len(self._past))
        lines = self._builder.item_lines(tuple(items.tolist())).options
        follow = self.head.follow
        self._follows = None if follow is None else lag_weights(follow.lags)
        if follow is not None:
            nothing = np.zeros(len(follow.history), np.float32)
            own = LineMemory(self.head.known.digests, follow.history, follow.option, nothing)
            found = own.recall(lines)
            self._follow_tables = tuple(
                np.concatenate([np.zeros((1, table.shape[1])), table])
                for table in (found.history, found.option)
            )
        known = self.head.known.knows(lines)
        told = self.head.known.recall(lines)
        self._past[1:], self._option[1:], self._bias[1:] = told.history, told.option, told.item_bias
        unread = np.zeros(len(self._past), np.bool_)
        unread[1:] = ~known
        self._bias[unread] = told.item_bias[known].min() if known.any() else 0.0
        return unread

    def _read(self, shown: IntArray) -> None:
        """Have the LLM read what was not in training."""
        new = np.unique(shown[self._unread[shown]])
        if not len(new) or self.head.words is None:
            return
        assert self._make is not None
        vectors = ItemVectors(self._make(), self._builder, self.head.words, self._cache)
        vectors.unread(new)
        vectors.read(new)
        self._past[new], self._option[new] = vectors.history(new), vectors.option(new)
        self._bias[new] = vectors.item_bias(new)
        self._unread[new] = False


class Sequences(NamedTuple):
    """What B users did, oldest first, padded on the right, and what they passed over."""

    items: IntArray  # (B, L)
    ages: IntArray  # (B, L) classes
    marks: IntArray  # (B, L) classes
    passed: IntArray  # (B, M) newest first

    @classmethod
    def of(
        cls, batch: SceneBatch, lines: int, scale: tuple[float, float], passed: list[IntArray]
    ) -> Sequences:
        """Of scenes.

        Args:
            lines: newest ones that are kept.
            scale: lowest and highest rating.
            passed: by user, newest first, what was passed over before the session.
        """
        from usermirror_gym.simulators.session.session_net import (
            JUST_NOW,
            age_classes,
            rating_classes,
        )

        history, chosen = batch.history, batch.turn_chosen
        real = np.arange(history.shape[1]) < batch.history_lengths[:, None]
        seen = np.arange(chosen.shape[1]) < batch.turn_counts[:, None]
        taken = seen & (chosen != PAD)
        items = np.concatenate([np.where(real, history, PAD), np.where(taken, chosen, PAD)], axis=1)
        ages = np.concatenate(
            [age_classes(batch.ages), np.full(chosen.shape, JUST_NOW, np.int64)], axis=1
        )
        marks = np.concatenate(
            [rating_classes(batch.ratings, *scale), np.zeros(chosen.shape, np.int64)], axis=1
        )
        # At least one column, of users who did nothing.
        items, ages, marks = (np.pad(c, ((0, 0), (0, 1))) for c in (items, ages, marks))
        kept = (items != PAD) & (_behind(items) < lines)
        order = np.argsort(~kept, axis=1, kind="stable")[
            :, : max(int(kept.sum(axis=1).max(initial=0)), 1)
        ]
        items, ages, marks = (
            np.take_along_axis(np.where(kept, c, 0), order, 1) for c in (items, ages, marks)
        )
        return cls(items, ages, marks, refused(batch, seen, passed))

    def far(self) -> BoolArray:
        """``(B,)`` whether an hour and more has passed since the newest line."""
        from usermirror_gym.simulators.session.session_net import FAR

        newest = np.maximum((self.items != PAD).sum(axis=1) - 1, 0)
        far: BoolArray = np.take_along_axis(self.ages, newest[:, None], axis=1)[:, 0] >= FAR
        return far

    def groups(self) -> Iterator[tuple[IntArray, int, int]]:
        """Rows that take equal room, and how much; a row's room does not depend on the others."""
        room = [-(-(x != PAD).sum(axis=1) // _STEP) * _STEP for x in (self.items, self.passed)]
        room[0] = np.maximum(room[0], 1)  # one empty line of users who did nothing
        kinds, kind = np.unique(np.stack(room, axis=1), axis=0, return_inverse=True)
        for number, (width, refused) in enumerate(kinds.tolist()):
            rows = np.flatnonzero(kind.ravel() == number)
            for start in range(0, len(rows), _ROWS):
                yield rows[start : start + _ROWS], width, refused

    def part(self, rows: IntArray, width: int, refused: int) -> Sequences:
        """Some of them, in just so much room."""
        sizes = (width, width, width, refused)
        return Sequences(*(_room(c[rows], size) for c, size in zip(self, sizes, strict=True)))


def rating_scale(split: TimeSplit) -> tuple[float, float]:
    """Lowest and highest rating before T0; 0 and 1 where there are none."""
    ratings = split.before[RATING].to_numpy(np.float64)
    ratings = ratings[np.isfinite(ratings)]
    return (float(ratings.min()), float(ratings.max())) if len(ratings) else (0.0, 1.0)


def taken_once(split: TimeSplit) -> bool:
    """Whether nobody takes an item twice, as in logs of ratings: of users who took anything more
    than once, no user took the same again."""
    pairs = split.before[[USER_ID, ITEM_ID]]
    return len(pairs) > split.before[USER_ID].nunique() and not pairs.duplicated().any()


def passed_over(split: TimeSplit) -> list[IntArray]:
    """By user id, newest first, what each was shown before T0 and did not take; the newest
    :data:`MOST_PASSED`.  Empty where the log has no lists."""
    found: list[Any] = [np.zeros(0, np.int64)] * (split.dataset.n_users + 1)
    lists = split.dataset.impressions
    if lists is None:
        return found
    count = int(np.searchsorted(lists.timestamps, split.t0))
    stop = lists.offsets[count]
    users = np.repeat(lists.user_ids[:count], np.diff(lists.offsets[: count + 1]))
    refused = ~lists.clicked[:stop]
    users, items = users[refused][::-1], lists.items[:stop][refused][::-1]
    order = np.argsort(users, kind="stable")
    users, items = users[order], items[order]
    cuts = np.flatnonzero(np.diff(users)) + 1
    for own, user in zip(
        np.split(items, cuts), users[np.r_[0, cuts]] if len(users) else (), strict=False
    ):
        found[user] = own[:MOST_PASSED]
    return found


def _behind(items: IntArray) -> IntArray:
    """How many items stand behind each one."""
    real = items != PAD
    behind: IntArray = real[:, ::-1].cumsum(axis=1)[:, ::-1] - 1
    return behind


def refused(batch: SceneBatch, seen: BoolArray, passed: list[IntArray]) -> IntArray:
    """``(B, M)`` what was shown and not taken, newest first: this session's, then that of before.

    Args:
        seen: ``(B, T)`` which turns there were.
        passed: of :func:`passed_over`.
    """
    slates = batch.turn_slates
    missed = seen[:, :, None] & (slates != batch.turn_chosen[:, :, None]) & (slates != PAD)
    missed_items = np.where(missed, slates, PAD)[:, ::-1].reshape(len(slates), -1)
    before = [passed[user] for user in batch.user_ids.tolist()]
    width = max((len(own) for own in before), default=0)
    known = np.zeros((len(before), width), np.int64)
    for row, own in enumerate(before):
        known[row, : len(own)] = own
    both = np.concatenate([missed_items, known], axis=1)
    order = np.argsort(both == PAD, axis=1, kind="stable")
    return np.take_along_axis(both, order, 1)[:, :MOST_PASSED]


def _room(values: np.ndarray, width: int) -> Any:
    """Cut or padded on the right."""
    values = values[:, :width]
    return np.ascontiguousarray(np.pad(values, ((0, 0), (0, width - values.shape[1]))))
