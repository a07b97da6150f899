"""The session readout learns from a log: what goes with what, what came next, what was refused.

Four kinds of steps:

taste
    a random part of what a user took, in no order, predicts the rest, by a softmax over the
    catalogue.  The order in which a site lists its items is no help here: what is learned is what
    goes together, not which page stood behind which.
next
    what was taken so far, with its ages, predicts what was taken next, likewise.
openers
    likewise all that was taken before a pause of an hour and more predicts what was taken after it:
    whoever comes back looks for other things than the page before held.
lists
    the log's own lists, where it has them: a nested logit over the items and *none of these*, with
    what the user took and passed over before.

Where blocks of the LLM read users beside the pooled network, they learn in the same steps, or in
the last of them, at a rate of their own.

Vectors of items are a linear map of what the LLM says of their lines, plus what it leaves open.
Where a run is killed it goes on, and ends with the same weights: what a step draws depends on the
seed and its number alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import ConfigError
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.simulators.readouts.utility import SessionWeights
from usermirror_gym.simulators.session.session import MOST_PASSED, rating_scale
from usermirror_gym.simulators.session.session_net import (
    GAIN,
    JUST_NOW,
    LONG_AGO,
    UNKNOWN_TIME,
    ItemTables,
    Lines,
    SessionNet,
    SessionShape,
    age_classes,
    rating_classes,
)
from usermirror_gym.train.config import Session
from usermirror_gym.train.surrogate.fit import read_state, write_state
from usermirror_gym.types import (
    ITEM_ID,
    PAD,
    RATING,
    TIMESTAMP,
    USER_ID,
    Float32Array,
    FloatArray,
    IntArray,
)

if TYPE_CHECKING:
    from usermirror_gym.simulators.session.blocks import BlockReader

SITTING = 3600
"""Seconds after which a choice opens another sitting."""
_LEAST = 3
"""Lines that a user has to have for a step to be about them."""
_TARGETS = 60
"""Most items that a part of a history predicts at once."""
_SESSION = 8
"""Most lines that are told as those of a session."""
_SAVE_EVERY = 50
_FAR = -1e4


@dataclass(frozen=True)
class Log:
    """What users did, as arrays that are quick to cut.

    Attributes:
        items, times, marks: ``(N,)`` ordered by user, then time.
        starts: ``(n_users + 2,)`` where each user's rows begin.
        codes: ``(n_users + 1, C)`` profile features.
        lists: the log's own lists, if it has any.
    """

    items: IntArray
    times: IntArray
    marks: IntArray
    starts: IntArray
    codes: IntArray
    lists: Shown | None

    @classmethod
    def of(cls, split: TimeSplit, codes: IntArray) -> Log:
        """Of what was before the cut."""
        events = split.before.sort_values([USER_ID, TIMESTAMP], kind="stable")
        users = events[USER_ID].to_numpy(np.int64)
        starts = np.searchsorted(users, np.arange(split.dataset.n_users + 2))
        marks = rating_classes(events[RATING].to_numpy(np.float64), *rating_scale(split))
        return cls(
            events[ITEM_ID].to_numpy(np.int64), events[TIMESTAMP].to_numpy(np.int64), marks,
            starts, codes, Shown.of(split),
        )  # fmt: skip

    @property
    def sizes(self) -> IntArray:
        """``(n_users + 1,)`` rows of each."""
        return np.diff(self.starts)

    @cached_property
    def openers(self) -> tuple[IntArray, FloatArray]:
        """Rows of what was taken after a pause, with lines enough before it; and how often each is
        drawn: users who come back a hundred times are not all that counts."""
        users = np.repeat(np.arange(len(self.sizes)), self.sizes)
        place = np.arange(len(users)) - self.starts[users]
        gaps = np.diff(self.times, prepend=self.times[:1])
        rows = np.flatnonzero((place >= _LEAST) & (gaps > SITTING))
        weights = np.bincount(users[rows], minlength=len(self.sizes))[users[rows]] ** -0.5
        return rows, weights / max(weights.sum(), 1e-9)


class Shown(NamedTuple):
    """M lists of at most K items before the cut, and what each user had passed over by then."""

    users: IntArray  # (M,)
    times: IntArray  # (M,)
    slates: IntArray  # (M, K)
    clicked: np.ndarray  # (M, K) bool
    passed: IntArray  # (P,) by user, then time
    passed_at: IntArray  # (P,)
    starts: IntArray  # (n_users + 2,)

    @classmethod
    def of(cls, split: TimeSplit) -> Shown | None:
        lists = split.dataset.impressions
        count = 0 if lists is None else int(np.searchsorted(lists.timestamps, split.t0))
        if lists is None or count == 0:
            return None
        offsets, stop = lists.offsets[: count + 1], lists.offsets[count]
        sizes = np.diff(offsets)
        place = np.arange(sizes.max()) < sizes[:, None]
        slates = np.zeros(place.shape, np.int64)
        clicked = np.zeros(place.shape, np.bool_)
        slates[place], clicked[place] = lists.items[:stop], lists.clicked[:stop]
        users, times = lists.user_ids[:count], lists.timestamps[:count]
        missed = ~lists.clicked[:stop]
        whose = np.repeat(users, sizes)[missed]
        order = np.argsort(whose, kind="stable")  # lists are ordered by time
        return cls(
            users, times, slates, clicked, lists.items[:stop][missed][order],
            np.repeat(times, sizes)[missed][order],
            np.searchsorted(whose[order], np.arange(split.dataset.n_users + 2)),
        )  # fmt: skip


def opener_scenes(
    split: TimeSplit, *, removed: float, slate_size: int, draws: int, seed: int
) -> list[Scene]:
    """Choices of users who come back, an hour and more after their last: whole histories, and
    company as popular as what is chosen.

    Such choices say what taste is worth; among the scenes of a build they are few.

    Args:
        split: openers from its cut on are taken; popularity is that before it.
        removed: share of the lists from which the true item is missing.
        draws: lists of each opener.
        seed: of the drawing.
    """
    events = split.dataset.interactions.sort_values([USER_ID, TIMESTAMP], kind="stable")
    users, items, times, ratings = (
        events[c].to_numpy() for c in (USER_ID, ITEM_ID, TIMESTAMP, RATING)
    )
    place = events.groupby(USER_ID).cumcount().to_numpy()
    gaps = np.diff(times, prepend=times[:1])
    rows = np.flatnonzero((place >= _LEAST) & (gaps > SITTING) & (times >= split.t0))
    rng = np.random.default_rng([seed, 5])
    popular = split.popularity / max(split.popularity.sum(), 1)
    scenes = []
    for row in rows:
        past = slice(row - place[row], row)
        own = items[users == users[row]]
        for _ in range(draws):
            weights = popular.copy()
            weights[own] = weights[PAD] = 0.0
            if np.count_nonzero(weights) < slate_size:
                continue
            company = rng.choice(len(weights), slate_size, replace=False, p=weights / weights.sum())
            target = slate_size if rng.random() < removed else int(rng.integers(slate_size))
            if target < slate_size:
                company[target] = items[row]
            scenes.append(
                Scene(
                    int(users[row]),
                    tuple(items[past].tolist()),
                    tuple(ratings[past].tolist()),
                    tuple((times[row] - times[past]).tolist()),
                    tuple(company.tolist()),
                    target=target,
                    name=f"opener {row}",
                )
            )
    return scenes


class Student(nn.Module):
    """The network and the vectors of one catalogue.

    Args:
        shape: of the network.
        counts: ``(n + 1,)`` how often each item was taken.
        words: ``(n + 1, e)`` what is known of the items' texts, of unit variance.
        ids: whether items have what their words leave open.
        blocks: of the LLM, which read users too.
    """

    words: Tensor | None
    taken: Tensor

    def __init__(
        self,
        shape: SessionShape,
        counts: IntArray,
        words: Float32Array | None,
        settings: Session,
        seed: int,
        blocks: BlockReader | None = None,
    ) -> None:
        super().__init__()
        self.blocks, self.blocks_read = blocks, True
        self.net = SessionNet(shape, seed=seed, dropout=settings.dropout)
        self.id_dropout = settings.id_dropout
        draw = torch.Generator().manual_seed(seed + 1)
        rows = len(counts)

        def normal(*size: int, scale: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(*size, generator=draw) * scale)

        small = 0.05 if settings.ids else 0.0
        self.past, self.option = (normal(rows, shape.dim, scale=small) for _ in range(2))
        logs = np.log1p(counts.astype(np.float64))
        self.bias = nn.Parameter(torch.tensor(logs - logs[1:].mean(), dtype=torch.float32))
        if not settings.ids:
            for own in (self.past, self.option):
                own.requires_grad_(False)
        self.register_buffer("words", None if words is None else torch.from_numpy(words))
        if words is not None:
            e = words.shape[1]
            self.words_past, self.words_option = (
                normal(e, shape.dim, scale=0.5 * e**-0.5) for _ in range(2)
            )
            self.words_bias = nn.Parameter(torch.zeros(e))
        taken = torch.from_numpy(counts > 0).float()[:, None]
        self.register_buffer("taken", taken, persistent=False)
        self.value = nn.Parameter(torch.ones(2))
        self.outside = nn.Parameter(torch.zeros(()))

    def weights(self, split: TimeSplit) -> SessionWeights | None:
        """How much its numbers count, as the log's own lists have taught it; ``None`` if there are
        none.  Where every list was taken from, nothing is known of *none of these*."""
        lists = Shown.of(split)
        if lists is None:
            return None
        untouched = not lists.clicked.any(axis=1).all()
        outside = float(self.outside.detach()) if untouched else None
        match, general = self.value.detach().tolist()
        return SessionWeights(1.0, (1.0,), (), outside, match, general)

    def tables(self) -> ItemTables:
        """Vectors of all items."""
        # What nobody took has nothing but its words: no step has taught its own numbers.
        past, option = self.past * self.taken, self.option * self.taken
        bias: Tensor = self.bias
        if self.training and self.id_dropout and self.words is not None:
            kept = (torch.rand(len(past), 1) >= self.id_dropout).float()
            past, option = past * kept, option * kept
        if self.words is not None:
            past = past + self.words @ self.words_past
            option = option + self.words @ self.words_option
            bias = bias + self.words @ self.words_bias
        real = torch.ones(len(past), 1)
        real[PAD] = 0.0
        return ItemTables(past * real, option * real, bias)

    def query(self, lines: Lines, past: Tensor) -> Tensor:
        """``(B, d)`` what the users look for."""
        query = self.net.query(lines, past)
        if self.blocks is None or not self.blocks_read:
            return query
        added: Tensor = self.blocks(lines, past)
        return query + added

    def size(self) -> Tensor:
        """Sum of the squares of all that is known of single items."""
        weighed = ((GAIN * self.past, 1.0), (self.option, 1.0), (self.bias, 0.2))
        return sum((share * (own**2).sum() for own, share in weighed), torch.zeros(()))


class Batch(NamedTuple):
    """One step's examples."""

    lines: Lines
    targets: Tensor  # (B, T) items that were taken, 0 behind; of lists (B, 1) places
    slates: Tensor | None = None  # (B, K)


def fit_student(
    split: TimeSplit,
    codes: IntArray,
    words: Float32Array | None,
    shape: SessionShape,
    settings: Session,
    *,
    seed: int,
    blocks: BlockReader | None = None,
    state: Path | None = None,
    progress: Callable[[int], None] = lambda steps: None,
) -> Student:
    """Train on what was before the cut of a split.

    Args:
        codes: ``(n_users + 1, C)`` profile features.
        words: ``(n + 1, e)``, see :class:`Student`.
        blocks: those that the settings ask for; they are trained.
        state: file that keeps where the training is; one that is there goes on.
        progress: told how many steps were done since the last call.

    Raises:
        ConfigError: nobody took enough to learn from.
    """
    log = Log.of(split, codes)
    if not (log.sizes > _LEAST).any():
        raise ConfigError(
            f"no user of {split.dataset.name!r} has more than {_LEAST} interactions before the cut:"
            " there is nothing that the session readout could learn from"
        )
    student = Student(shape, split.popularity, words, settings, seed, blocks)
    plan = _plan(settings, log)
    shares = _block_shares(settings, len(plan))
    optimizer = torch.optim.AdamW(
        _groups(student), settings.learning_rate, weight_decay=settings.weight_decay
    )
    done = read_state(state, student, optimizer).get("step", 0)
    progress(done)
    total = len(plan)
    for step in range(done, total):
        kind, rate = plan[step]
        student.blocks_read = shares[step] > 0
        for group, own in zip(
            optimizer.param_groups, _group_rates(settings, rate, shares[step]), strict=True
        ):
            group["lr"] = own
        rng = np.random.default_rng([seed, step])
        batch = _DRAW[kind](log, settings, rng)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            student.train()
            loss = _loss(student, batch)
            if kind == "lists":
                assert log.lists is not None
                loss = loss + settings.list_penalty / len(log.lists.users) * student.size()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
        for group in optimizer.param_groups:  # apart: blocks do not slow the pooled network down
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        optimizer.step()
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == total:
            write_state(state, student, optimizer, {"step": step + 1})
        progress(1)
    return student.eval()


def n_steps(settings: Session, split: TimeSplit) -> int:
    """How many steps a fit takes."""
    lists = split.dataset.impressions
    return settings.steps + (settings.list_steps if lists is not None and len(lists) else 0)


def _plan(settings: Session, log: Log) -> list[tuple[str, float]]:
    """Kind and learning rate of every step."""
    turns = max(round(1 / settings.next_share), 1) if settings.next_share else 0
    kinds = ["next" if turns and i % turns == turns - 1 else "taste" for i in range(settings.steps)]
    if settings.opener_share and len(log.openers[0]):
        every = max(round(1 / settings.opener_share), 1)
        kinds[every - 1 :: every] = ["openers"] * len(kinds[every - 1 :: every])
    phases = [(kinds, settings.learning_rate)]
    if log.lists is not None:
        phases.append((["lists"] * settings.list_steps, settings.list_learning_rate))
    plan = []
    for kinds, rate in phases:
        for i, kind in enumerate(kinds):
            plan.append((kind, rate * _share(i, len(kinds))))
    return plan


def _share(step: int, total: int) -> float:
    """Of a learning rate: it rises for 50 steps, and falls like a cosine."""
    fall = 0.5 * (1 + math.cos(math.pi * step / total)) + 0.02
    return min(1.0, (step + 1) / 50) * fall


def _block_shares(settings: Session, total: int) -> list[float]:
    """Of the blocks' learning rates in every step; 0 where they do not read."""
    if settings.blocks is None:
        return [0.0] * total
    own = min(settings.blocks.steps or total, total)
    return [0.0] * (total - own) + [_share(i, own) for i in range(own)]


def _groups(student: Student) -> list[dict[str, Any]]:
    """What is trained: the pooled network and the items; then maps and weights of blocks."""
    blocks = student.blocks
    apart = set() if blocks is None else set(blocks.parameters())
    groups = [[p for p in student.parameters() if p.requires_grad and p not in apart]]
    if blocks is not None:
        groups += [blocks.maps(), blocks.tuned()]
    return [{"params": group} for group in groups]


def _group_rates(settings: Session, rate: float, share: float) -> list[float]:
    """Learning rates of :func:`_groups`."""
    if settings.blocks is None:
        return [rate]
    return [rate, share * settings.learning_rate, share * settings.blocks.learning_rate]


def _draw_taste(log: Log, settings: Session, rng: np.random.Generator) -> Batch:
    sizes = log.sizes
    weights = np.where(sizes > _LEAST, np.minimum(sizes, 300), 0) ** 0.5
    users = rng.choice(len(sizes), settings.batch_size, p=weights / weights.sum())
    known = rng.random(len(users)) < 0.5
    rows, targets, ages = [], [], []
    for user, dated in zip(users, known, strict=True):
        own = log.starts[user] + rng.permutation(sizes[user])
        count = _length(max(_LEAST, sizes[user] // 2), settings, rng)
        rows.append(own[:count])
        targets.append(log.items[own[count : count + _TARGETS]])
        ages.append(np.full(count, LONG_AGO if dated else UNKNOWN_TIME))
    return Batch(_lines(log, users, rows, ages), _padded(targets))


def _draw_next(log: Log, settings: Session, rng: np.random.Generator) -> Batch:
    sizes = log.sizes
    room = np.maximum(sizes - _LEAST, 0)
    weights = np.minimum(room, 300) ** 0.5
    users = rng.choice(len(sizes), settings.batch_size, p=weights / weights.sum())
    places = [int(rng.integers(_LEAST, sizes[user])) for user in users]
    return _what_came(log, users, log.starts[users] + places, settings.next_lines)


def _draw_openers(log: Log, settings: Session, rng: np.random.Generator) -> Batch:
    found, weights = log.openers
    rows = rng.choice(found, settings.batch_size, p=weights)
    users = np.searchsorted(log.starts, rows, side="right") - 1
    return _what_came(log, users, rows, settings.most_lines)


def _what_came(log: Log, users: IntArray, rows: IntArray, most: int) -> Batch:
    """What was taken at these rows of the log, after at most so many lines of its user."""
    pasts, ages = [], []
    for user, row in zip(users, rows, strict=True):
        past = np.arange(max(log.starts[user], row - most), row)
        pasts.append(past)
        ages.append(age_classes(log.times[row] - log.times[past]))
    return Batch(_lines(log, users, pasts, ages), torch.from_numpy(log.items[rows][:, None]))


def _draw_lists(log: Log, settings: Session, rng: np.random.Generator) -> Batch:
    shown = log.lists
    assert shown is not None
    picked = rng.integers(len(shown.users), size=settings.list_batch_size)
    users, rows, passed = shown.users[picked], [], []
    for user, time in zip(users, shown.times[picked], strict=True):
        start = log.starts[user]
        end = start + log.times[start : log.starts[user + 1]].searchsorted(time)
        rows.append(np.arange(max(start, end - settings.list_lines), end))
        begin = shown.starts[user]
        until = begin + shown.passed_at[begin : shown.starts[user + 1]].searchsorted(time)
        passed.append(shown.passed[max(begin, until - MOST_PASSED) : until][::-1])
    sizes = np.array([len(own) for own in rows])
    told = age_classes(np.repeat(shown.times[picked], sizes) - log.times[np.concatenate(rows)])
    ages = np.split(told, np.cumsum(sizes)[:-1])
    slates, clicked = shown.slates[picked].copy(), shown.clicked[picked]
    places = np.where(clicked.any(axis=1), _one_of(clicked, rng), slates.shape[1])
    chosen = np.arange(slates.shape[1]) == places[:, None]
    slates[clicked & ~chosen] = PAD  # one choice at a time: the others were taken as well
    lines = _as_in_session(_lines(log, users, rows, ages, passed), settings.list_sessions, rng)
    return Batch(lines, torch.from_numpy(places[:, None]), torch.from_numpy(slates))


_DRAW = {
    "taste": _draw_taste, "next": _draw_next, "openers": _draw_openers, "lists": _draw_lists,
}  # fmt: skip


def _loss(student: Student, batch: Batch) -> Tensor:
    tables, lines = student.tables(), batch.lines
    query = student.query(lines, tables.past)
    if batch.slates is None:
        utility = query @ tables.option.T + tables.bias
        had = torch.zeros(utility.shape, dtype=torch.bool).scatter_(1, lines.items, True)
        had[:, PAD] = True
        logs = utility.masked_fill(had, _FAR).log_softmax(dim=1)
        # What was had cannot be predicted, and a target that was had before says nothing.
        real = (batch.targets != PAD) & ~had.gather(1, batch.targets)
        share = real / real.sum(dim=1, keepdim=True).clamp(min=1)
        return -(logs.gather(1, batch.targets) * share).sum() / len(logs)
    mask = batch.slates != PAD
    match = student.net.match(query, lines, batch.slates, tables.option, tables.past)
    general = tables.bias[batch.slates]
    which = (match + general).masked_fill(~mask, _FAR).log_softmax(dim=1)
    value = (student.value[0] * match + student.value[1] * general).masked_fill(~mask, _FAR)
    gain = (value.logsumexp(dim=1) - student.outside)[:, None]
    logs = torch.cat([which + logsigmoid(gain), logsigmoid(-gain)], dim=1)
    return -logs.gather(1, batch.targets).mean()


def _lines(
    log: Log,
    users: IntArray,
    rows: list[IntArray],
    ages: list[IntArray],
    passed: list[IntArray] | None = None,
) -> Lines:
    refused = _padded(passed) if passed else torch.zeros(len(rows), 0, dtype=torch.long)
    return Lines(
        _padded([log.items[own] for own in rows]), _padded(ages),
        _padded([log.marks[own] for own in rows]), refused, torch.from_numpy(log.codes[users]),
    )  # fmt: skip


def _as_in_session(lines: Lines, share: float, rng: np.random.Generator) -> Lines:
    """Of a share of the users the newest lines as the simulator tells those of a session."""
    count = (lines.items != PAD).sum(dim=1)
    told = rng.integers(1, _SESSION + 1, len(count)) * (rng.random(len(count)) < share)
    first = (count - torch.from_numpy(told)).clamp(min=0)[:, None]
    place = torch.arange(lines.items.shape[1])
    newest = (place >= first) & (place < count[:, None])
    return lines._replace(
        ages=lines.ages.masked_fill(newest, JUST_NOW), marks=lines.marks.masked_fill(newest, 0)
    )


def _padded(rows: list[IntArray]) -> Tensor:
    sizes = np.array([len(row) for row in rows])
    real = np.arange(max(sizes.max(), 1)) < sizes[:, None]
    table = np.zeros(real.shape, np.int64)
    table[real] = np.concatenate(rows)
    return torch.from_numpy(table)


def _length(most: int, settings: Session, rng: np.random.Generator) -> int:
    """Of a history: from a few lines to all, log-uniformly."""
    most = min(most, settings.most_lines)
    drawn = math.exp(rng.uniform(math.log(_LEAST), math.log(max(settings.most_lines, _LEAST + 1))))
    return min(most, round(drawn))


def _one_of(clicked: np.ndarray, rng: np.random.Generator) -> IntArray:
    """``(B,)`` a random true column of each row that has one."""
    drawn = rng.random(clicked.shape)
    picked: IntArray = np.where(clicked, drawn, -1.0).argmax(axis=1)
    return picked
