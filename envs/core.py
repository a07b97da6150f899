"""The state and the step of N simulated sessions, in arrays; both environments are thin over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from usermirror_gym.envs.rewards import Outcome, Reward, RewardSpec
from usermirror_gym.envs.session import Progress, SessionModel, session_model
from usermirror_gym.envs.world import World
from usermirror_gym.errors import ConfigError, UserMirrorError
from usermirror_gym.scenes.scene import SceneBatch
from usermirror_gym.simulators.base import ChoiceBatch
from usermirror_gym.types import BoolArray, FloatArray, IntArray, Observation

_BLOCK = 32  # events (steps, starts of sessions) for which a row draws its numbers in advance
_CHOICE, _RATING, _LEAVE = range(3)
_USER = 0  # a start of a session needs one number only


class StepResult(NamedTuple):
    """One step of N rows.  A resting row saw nothing: it took *none of these* for certain."""

    live: BoolArray
    """``(N,)`` rows that took part."""
    rows: IntArray
    """Their numbers; ``batch`` has one entry for each."""
    outcome: Outcome
    items: IntArray
    """``(N,)`` chosen item ids, 0 = none of these."""
    rewards: FloatArray
    components: dict[str, FloatArray]
    terminated: BoolArray
    batch: ChoiceBatch


class SessionCore:
    """N sessions side by side.

    Every row draws from a generator of its own, and always the same numbers in the same order, so
    that a session does not depend on how many others run beside it.
    """

    def __init__(
        self,
        world: World,
        num_envs: int,
        slate_size: int,
        session: SessionModel | str | int,
        reward: RewardSpec,
    ) -> None:
        self.world = world
        self.num_envs = num_envs
        self.slate_size = slate_size
        self.session = session_model(session)
        self.reward = Reward(reward)
        n, h, k = num_envs, world.history_size, slate_size
        self.generators: list[np.random.Generator | None] = [None] * n
        self.user_ids = np.zeros(n, np.int64)
        # What the agent observes: the memory at T0, growing with every choice.
        self.items = np.zeros((n, h), np.int64)
        self.ratings = np.zeros((n, h), np.float32)
        self.lengths = np.zeros(n, np.int64)
        # What happened in this session; only the first ``turns`` entries of a row count.
        self.turn_slates = np.zeros((n, _BLOCK, k), np.int64)
        self.turn_chosen = np.zeros((n, _BLOCK), np.int64)
        self.turns = np.zeros(n, np.int64)
        self.misses = np.zeros(n, np.int64)
        self.last_slates = np.zeros((n, k), np.int64)
        self.last_choices = np.full(n, k, np.int64)
        self._uniforms = np.zeros((n, _BLOCK, 3))
        self._cursor = np.zeros(n, np.int64)  # the next number of its block that a row takes
        self._draws_left = _BLOCK  # for so many draws no row can run out
        self._all = np.arange(n)

    def seed_row(self, row: int, generator: np.random.Generator) -> None:
        """Let ``row`` draw from ``generator`` from now on."""
        self.generators[row] = generator
        generator.random(out=self._uniforms[row])
        self._cursor[row] = 0

    def reset_rows(self, rows: IntArray, user_ids: IntArray | None = None) -> None:
        """Start new sessions in ``rows``, of the given users or of users drawn by the rows."""
        users, memory = self.world.users, self.world.memory
        # Used up even when the user is given, so that the numbers that follow are the same.
        drawn = self._uniforms[rows, self._cursor[rows], _USER]
        self._cursor[rows] += 1
        self._refill()
        ids = users[(drawn * len(users)).astype(np.int64)] if user_ids is None else user_ids
        self.user_ids[rows] = ids
        self.items[rows] = memory.items.take(ids, axis=0)
        self.ratings[rows] = self.world.known_ratings.take(ids, axis=0)
        self.lengths[rows] = memory.lengths[ids]
        self.turns[rows] = self.misses[rows] = 0
        self.last_slates[rows] = 0
        self.last_choices[rows] = self.slate_size

    def step(self, slates: IntArray, live: BoolArray) -> StepResult:
        """Show ``slates`` (N, K) to the users of the ``live`` rows (at least one).

        Nothing changes if the simulator fails.
        """
        rows = live.nonzero()[0]
        batch = self.world.simulator.choose(self._scenes(slates, rows))
        probs = self._spread(np.asarray(batch.probs), rows)
        uniforms = self._uniforms[self._all, self._cursor]
        choices = inverse_transform(self._cumulative(probs), uniforms[:, _CHOICE])
        options = np.zeros(probs.shape, np.int64)  # last column: no item
        options[:, :-1] = slates
        items = options[self._all, choices]
        clicked = items.nonzero()[0]
        ratings = np.full(self.num_envs, np.nan)
        ratings[clicked] = self.world.ratings.sample(
            self.user_ids[clicked], items[clicked], uniforms[clicked, _RATING]
        )
        outcome = Outcome(
            slates, probs, choices, ratings, items, self.user_ids, self.turns, self.items,
            self.lengths,
        )  # fmt: skip
        rewards, components = self.reward(outcome)
        self._remember(outcome, items, clicked, live)
        if not np.isfinite(rewards[live]).all():
            raise ConfigError(f"the reward ({', '.join(components)}) is not a finite number")
        progress = Progress(self.turns, self.misses, probs[:, -1], uniforms[:, _LEAVE])
        leaves = np.asarray(self.session.leaves(progress))
        if leaves.shape != live.shape or leaves.dtype != np.bool_:
            raise ConfigError(
                f"session {self.session!r} answered with {leaves.dtype} of shape {leaves.shape}, "
                f"expected bool of shape {live.shape}: who leaves, one per row"
            )
        self._cursor += live
        self._refill()
        if len(rows) < self.num_envs:
            rewards = np.where(live, rewards, 0.0)
        return StepResult(live, rows, outcome, items, rewards, components, leaves & live, batch)

    def observe(self) -> Observation:
        """Observations of all rows, freshly copied."""
        return {
            "user_id": self.user_ids.copy(),
            "history_items": self.items.copy(),
            "history_ratings": self.ratings.copy(),
            "history_length": self.lengths.copy(),
            "last_slate": self.last_slates.copy(),
            "last_choice": self.last_choices.copy(),
            "turns": self.turns[:, None].copy(),
        }

    def _scenes(self, slates: IntArray, rows: IntArray) -> SceneBatch:
        """The live rows' scenes; the history is that at T0, this session follows in turns."""
        users = self.user_ids[rows]
        past = self.world.remembered(users)
        columns: dict[str, Callable[[], np.ndarray]] = {
            "user_ids": lambda: users,
            "history": lambda: past("items"),
            "ratings": lambda: past("ratings"),
            "ages": lambda: past("ages"),
            "history_lengths": lambda: past("lengths"),
            "turn_slates": lambda: self.turn_slates[rows, : self.turns[rows].max()],
            "turn_chosen": lambda: self.turn_chosen[rows, : self.turns[rows].max()],
            "turn_counts": lambda: self.turns[rows],
            "slates": lambda: slates[rows],
        }
        known = self.world.split if self.world.shows_whole else None
        return SceneBatch.lazy(len(rows), lambda name: columns[name](), at_t0=known)

    def _spread(self, answered: np.ndarray, rows: IntArray) -> FloatArray:
        """Probabilities over all N rows; a resting row takes none of these."""
        shape = (len(rows), self.slate_size + 1)
        if answered.shape != shape:
            raise UserMirrorError(
                f"simulator {self.world.simulator.name!r} answered with shape {answered.shape}, "
                f"expected {shape} (scenes, slate size + 1)"
            )
        if len(rows) == self.num_envs:
            return answered.astype(np.float64)  # a copy: the caller may keep it
        probs = np.zeros((self.num_envs, self.slate_size + 1))
        probs[:, -1] = 1.0
        probs[rows] = answered
        return probs

    def _cumulative(self, probs: FloatArray) -> FloatArray:
        cumulative = probs.cumsum(axis=1)
        sums_to_one = np.abs(cumulative[:, -1] - 1.0) < 1e-6
        # Counting what is right, so that NaN counts as wrong.
        if np.count_nonzero(probs >= 0) < probs.size or np.count_nonzero(sums_to_one) < len(probs):
            worst = int(np.argmin((probs >= 0).all(axis=1) & sums_to_one))
            raise UserMirrorError(
                f"simulator {self.world.simulator.name!r} answered row {worst} with "
                f"{probs[worst].tolist()}, which is no probability distribution"
            )
        return cumulative

    def _remember(
        self, outcome: Outcome, items: IntArray, clicked: IntArray, live: BoolArray
    ) -> None:
        if self.turns.max() == self.turn_chosen.shape[1]:
            self._double_room()
        # A resting row writes behind the end of its session, where nobody reads.
        self.turn_slates[self._all, self.turns] = outcome.slates
        self.turn_chosen[self._all, self.turns] = items
        self.turns += live
        self.misses += 1  # void in a resting row, whose reset clears it
        self.misses[clicked] = 0
        np.copyto(self.last_slates, outcome.slates, where=live[:, None])
        np.copyto(self.last_choices, outcome.choices, where=live)
        self._append(clicked, items[clicked], outcome.ratings[clicked])

    def _append(self, rows: IntArray, items: IntArray, ratings: FloatArray) -> None:
        end = self.lengths[rows]
        full = rows[end == self.world.history_size]
        if len(full):
            self.items[full, :-1] = self.items.take(full, axis=0)[:, 1:]
            self.ratings[full, :-1] = self.ratings.take(full, axis=0)[:, 1:]
            end = np.minimum(end, self.world.history_size - 1)
        self.items[rows, end] = items
        self.ratings[rows, end] = np.where(np.isnan(ratings), 0.0, ratings)
        self.lengths[rows] = end + 1

    def _refill(self) -> None:
        """Whose block is used up draws the next; looked at only when that can be."""
        self._draws_left -= 1
        if self._draws_left == 0:
            for row in (self._cursor == _BLOCK).nonzero()[0]:
                self.seed_row(row, self.generators[row])
            self._draws_left = _BLOCK - int(self._cursor.max())

    def _double_room(self) -> None:
        more = self.turn_chosen.shape[1]
        self.turn_slates = np.pad(self.turn_slates, ((0, 0), (0, more), (0, 0)))
        self.turn_chosen = np.pad(self.turn_chosen, ((0, 0), (0, more)))


def inverse_transform(cumulative: FloatArray, uniforms: FloatArray) -> IntArray:
    """One option per row; an option of probability 0 is never drawn.

    Args:
        cumulative: ``(N, M)`` cumulative probabilities, last column about 1.
        uniforms: ``(N,)`` in [0, 1).
    """
    # Just below the total, so that rounding cannot carry a draw past the last option.
    below = np.nextafter(cumulative[:, -1], 0.0)
    return (cumulative > (uniforms * below)[:, None]).argmax(axis=1)
