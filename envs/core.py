"""The state and the step of N simulated sessions, in arrays; both environments are thin over it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from usermirror_gym.envs.rewards import Outcome, Reward
from usermirror_gym.envs.session import Progress, SessionModel
from usermirror_gym.envs.world import World
from usermirror_gym.errors import UserMirrorError
from usermirror_gym.scenes.scene import SceneBatch
from usermirror_gym.simulators.base import ChoiceBatch
from usermirror_gym.types import BoolArray, FloatArray, IntArray, Observation

_BLOCK = 32  # steps for which a row draws its random numbers in advance
_CHOICE, _RATING, _LEAVE = range(3)


@dataclass(frozen=True)
class StepResult:
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
        self, world: World, num_envs: int, slate_size: int, session: SessionModel, reward: Reward
    ) -> None:
        self.world = world
        self.num_envs = num_envs
        self.slate_size = slate_size
        self.session = session
        self.reward = reward
        n, h, k = num_envs, world.history_size, slate_size
        self.generators: list[np.random.Generator] = [None] * n  # type: ignore[list-item]
        self.user_ids = np.zeros(n, np.int64)
        # Memory at T0, fixed during a session: what the scene calls history.
        self.start_items = np.zeros((n, h), np.int64)
        self.start_ratings = np.zeros((n, h), np.float32)
        self.start_ages = np.zeros((n, h), np.int64)
        self.start_lengths = np.zeros(n, np.int64)
        # The same, growing with every choice: what the agent observes.
        self.items = np.zeros((n, h), np.int64)
        self.ratings = np.zeros((n, h), np.float32)
        self.lengths = np.zeros(n, np.int64)
        self.turn_slates = np.zeros((n, _BLOCK, k), np.int64)
        self.turn_chosen = np.zeros((n, _BLOCK), np.int64)
        self.turns = np.zeros(n, np.int64)
        self.misses = np.zeros(n, np.int64)
        self.last_slates = np.zeros((n, k), np.int64)
        self.last_choices = np.full(n, k, np.int64)
        self._luck = np.zeros((n, _BLOCK, 3))
        self._all = np.arange(n)

    def reset_rows(self, rows: IntArray, user_ids: IntArray | None = None) -> None:
        """Start new sessions in ``rows``, of the given users or of users drawn by the rows."""
        users, memory = self.world.users, self.world.memory
        drawn = np.empty(len(rows))
        for index, row in enumerate(rows.tolist()):
            rng = self.generators[row]
            # Drawn even when the user is given, so that the luck that follows is the same.
            drawn[index] = rng.random()
            rng.random(out=self._luck[row])
        ids = users[(drawn * len(users)).astype(np.int64)] if user_ids is None else user_ids
        self.user_ids[rows] = ids
        self.start_items[rows] = self.items[rows] = memory.items[ids]
        self.start_ages[rows] = memory.ages[ids]
        self.start_ratings[rows] = memory.ratings[ids]
        self.ratings[rows] = self.world.known_ratings[ids]
        self.start_lengths[rows] = self.lengths[rows] = memory.lengths[ids]
        self.turns[rows] = self.misses[rows] = 0
        self.last_slates[rows] = 0
        self.last_choices[rows] = self.slate_size

    def step(self, slates: IntArray, live: BoolArray) -> StepResult:
        """Show ``slates`` (N, K) to the users of the ``live`` rows (at least one)."""
        rows = live.nonzero()[0]
        batch = self.world.simulator.choose(self._scenes(slates, rows))
        probs = self._spread(batch.probs, rows)
        luck = self._luck[self._all, self.turns % _BLOCK]
        choices = self._draw(probs, luck[:, _CHOICE])
        options = np.zeros_like(probs, np.int64)  # last column: no item
        options[:, :-1] = slates
        items = options[self._all, choices]
        ratings = self.world.ratings.sample(self.user_ids, items, luck[:, _RATING])
        ratings[items == 0] = np.nan
        outcome = Outcome(slates, probs, choices, ratings)
        self._remember(outcome, items, rows)
        leaves = self.session.leaves(
            Progress(self.turns, self.misses, probs[:, -1], luck[:, _LEAVE])
        )
        rewards, components = self.reward(outcome)
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
        depth = self.turns.max()
        batch = SceneBatch(
            self.user_ids, self.start_items, self.start_ratings, self.start_ages,
            self.start_lengths, self.turn_slates[:, :depth], self.turn_chosen[:, :depth],
            self.turns, slates,
        )  # fmt: skip
        return batch if len(rows) == self.num_envs else batch.select(rows)

    def _spread(self, answered: FloatArray, rows: IntArray) -> FloatArray:
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

    def _draw(self, probs: FloatArray, uniforms: FloatArray) -> IntArray:
        cumulative = probs.cumsum(axis=1)
        # Written so that NaN fails too.
        if not (probs.min() >= 0 and abs(cumulative[:, -1] - 1).max() < 1e-6):
            worst = int(np.argmin(probs.min(axis=1) - abs(cumulative[:, -1] - 1)))
            raise UserMirrorError(
                f"simulator {self.world.simulator.name!r} answered row {worst} with "
                f"{probs[worst].tolist()}, which is no probability distribution"
            )
        return inverse_transform(cumulative, uniforms)

    def _remember(self, outcome: Outcome, items: IntArray, rows: IntArray) -> None:
        turn = self.turns[rows]
        self._grow(int(turn.max()) + 1)
        everyone = len(rows) == self.num_envs
        slates = outcome.slates if everyone else outcome.slates[rows]
        self.turn_slates[rows, turn] = self.last_slates[rows] = slates
        self.turn_chosen[rows, turn] = items if everyone else items[rows]
        self.last_choices[rows] = outcome.choices if everyone else outcome.choices[rows]
        self.turns[rows] = turn + 1
        self.misses += 1  # a resting row's count is void: its reset clears it
        clicked = items.nonzero()[0]
        self.misses[clicked] = 0
        self._append(clicked, items[clicked], outcome.ratings[clicked])
        for row in rows[(turn + 1) % _BLOCK == 0]:
            self.generators[row].random(out=self._luck[row])

    def _append(self, rows: IntArray, items: IntArray, ratings: FloatArray) -> None:
        end = self.lengths[rows]
        full = rows[end == self.world.history_size]
        if len(full):
            self.items[full, :-1] = self.items[full, 1:]
            self.ratings[full, :-1] = self.ratings[full, 1:]
            end = np.minimum(end, self.world.history_size - 1)
        self.items[rows, end] = items
        self.ratings[rows, end] = np.where(np.isnan(ratings), 0.0, ratings)
        self.lengths[rows] = end + 1

    def _grow(self, turns: int) -> None:
        """Double the room for turns when a session outgrows it."""
        more = self.turn_chosen.shape[1]
        if turns > more:
            self.turn_slates = np.pad(self.turn_slates, ((0, 0), (0, more), (0, 0)))
            self.turn_chosen = np.pad(self.turn_chosen, ((0, 0), (0, more)))


def inverse_transform(cumulative: FloatArray, uniforms: FloatArray) -> IntArray:
    """One option per row; an option of probability 0 is never drawn.

    Args:
        cumulative: ``(N, M)`` cumulative probabilities, last column about 1.
        uniforms: ``(N,)`` in [0, 1).
    """
    return (cumulative <= (uniforms * cumulative[:, -1])[:, None]).sum(axis=1)
