"""The affinity readout: lines are read by the LLM one by one, a trained head puts them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from usermirror_gym.engines.base import Engine
from usermirror_gym.errors import ConfigError
from usermirror_gym.scenes.scene import Scene, SceneBatch
from usermirror_gym.scenes.words.prompt import PromptBuilder
from usermirror_gym.simulators.affinity.affinity_head import AffinityHead, risen
from usermirror_gym.simulators.affinity.item_vectors import ItemVectors
from usermirror_gym.simulators.base import ChoiceBatch
from usermirror_gym.simulators.readouts.llm import simulator_name
from usermirror_gym.simulators.readouts.utility import AffinityWeights, affinity_logprobs
from usermirror_gym.types import PAD, BoolArray, Float32Array, FloatArray, IntArray


class AffinityScores(NamedTuple):
    """What the head says about S lists, ``(S, K)`` each: the arguments of ``fit_affinity``."""

    affinity: FloatArray
    item_bias: FloatArray
    mask: BoolArray


@dataclass(eq=False)
class AffinitySimulator:
    """Compares the options with the lines of the memory in the LLM's own space.

    The LLM reads each item's line, as lists show it, once and alone; :class:`AffinityHead` says how
    much an option goes with a memory.  A list is never read as a whole: its order does not matter,
    nor do ratings, behaviours, notes and the profile.  The memory is the history and what was
    chosen in the session, the newest lines of both together; the prompt's form, its blocks of lines
    and its turns play no part.

    ``prompt_tokens`` of an answer are the tokens that were computed for it: those of lines that
    were never read before, counted in the first scene of the batch that shows them.
    ``cached_tokens`` are 0.

    Args:
        engine: reads the lines.
        builder: words them; ``history_lines`` of its configuration limits the memory.
        head: trained on states of the same engine.
        weights: how much affinity and item bias count.
        cache: folder that keeps what was read, for the next start; ``None`` keeps nothing.

    Raises:
        ConfigError: more history lines than the head was trained for.
    """

    engine: Engine
    builder: PromptBuilder
    head: AffinityHead
    weights: AffinityWeights
    cache: Path | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        lines = self.builder.config.history_lines
        if lines > self.head.history_lines:
            raise ConfigError(
                f"history_lines is {lines}, and the affinity head has learned weights for "
                f"{self.head.history_lines} lines: use at most so many"
            )
        self._lag_weights = self.head.lag_weights(lines)  # (n + 1, n)
        self._items = ItemVectors(self.engine, self.builder, self.head, self.cache)

    @property
    def name(self) -> str:
        head = f"head@{self.head.digest[:8]}"
        return simulator_name("affinity", self.engine, self.builder, self.weights, head)

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        scores, tokens = self._ask(scenes)
        probs = np.exp(affinity_logprobs(self.weights, *scores))
        return ChoiceBatch(
            probs / probs.sum(axis=1, keepdims=True),
            prompt_tokens=tokens,
            cached_tokens=np.zeros_like(tokens),
        )

    def scores(self, scenes: Sequence[Scene]) -> AffinityScores:
        """What the weights are fitted on."""
        return self._ask(scenes)[0]

    def take_states(self, items: IntArray, states: Float32Array) -> None:
        """Use what the engine said of items before, instead of reading their lines again.

        Args:
            items: ``(n,)`` different ones.
            states: ``(n, F)`` of ``Engine.item_hidden_states``, with the parts of the head.

        Raises:
            CheckpointError: the states are those of another model.
        """
        self._items.take(items, states)

    def _ask(self, scenes: Sequence[Scene]) -> tuple[AffinityScores, IntArray]:
        batch = SceneBatch.of(scenes)
        slates = shown_slates(batch, scenes)
        memory = newest_lines(batch, self._lag_weights.shape[1])
        tokens = self._read(np.concatenate([slates, memory], axis=1))
        affinity = votes(
            self._lag_weights, memory, slates, self._items.history(memory),
            self._items.option(slates), self._items.option(memory), self.head.floor,
        )  # fmt: skip
        return AffinityScores(affinity, self._items.item_bias(slates), slates != PAD), tokens

    def _read(self, shown: IntArray) -> IntArray:
        """Make sure that all items are known; ``(B,)`` tokens that were computed."""
        tokens = np.zeros(len(shown), np.int64)
        new = self._items.unread(shown)
        if len(new):
            costs = self._items.read(new)
            items, first = np.unique(shown, return_index=True)
            rows = first[np.searchsorted(items, new)] // shown.shape[1]
            np.add.at(tokens, rows, costs)
        return tokens


def votes(
    lag_weights: FloatArray,
    memory: IntArray,
    slates: IntArray,
    history: FloatArray,
    option: FloatArray,
    option_of_memory: FloatArray,
    floor: float,
) -> FloatArray:
    """``(B, K)`` how much each option goes with the lines, 0 without any; see
    :class:`AffinityHead`.

    Args:
        lag_weights: ``(n + 1, n)`` of :meth:`AffinityHead.lag_weights`.
        memory: ``(B, n)`` newest first, 0 behind.
        slates: ``(B, K)``, 0 behind.
        history: ``(B, n, d)`` the lines' vectors.
        option: ``(B, K, d)`` the options'.
        option_of_memory: ``(B, n, d)`` those of the lines as options.
        floor: of the head.
    """
    weights = lag_weights[(memory != PAD).sum(axis=1)]
    taste = np.matmul(weights[:, None, :], history)[:, 0]
    # Sums over one axis, not products of matrices: an option's number does not depend on its
    # place or on the batch.
    match = (option * taste[:, None, :]).sum(axis=-1)
    again = (slates[:, :, None] == memory[:, None, :]) & (memory != PAD)[:, None, :]
    if again.any():  # what each option's own line in the memory adds is taken off
        alone = (history * option_of_memory).sum(axis=-1)
        match -= (again * (weights * alone)[:, None, :]).sum(axis=-1)
    known = (memory[:, :1] != PAD) & (slates != PAD)
    return np.where(known, risen(match, floor), 0.0)


def newest_lines(batch: SceneBatch, count: int) -> IntArray:
    """``(B, count)``: the last items of history and session, newest first, 0 behind them.

    A list from which nothing was chosen leaves no line.
    """
    shown = [
        _until(batch.history, batch.history_lengths),
        _until(batch.turn_chosen, batch.turn_counts),
    ]
    items = np.concatenate(shown, axis=1)[:, ::-1]
    lag = np.cumsum(items != PAD, axis=1) - 1
    rows, columns = np.nonzero((items != PAD) & (lag < count))
    memory = np.full((len(items), count), PAD, np.int64)
    memory[rows, lag[rows, columns]] = items[rows, columns]
    return memory


def shown_slates(batch: SceneBatch, scenes: Sequence[Scene]) -> IntArray:
    """``(B, K)`` of a batch made of these scenes, as wide as the longest list among them."""
    if batch is scenes:
        return batch.slates
    # Lists of earlier turns may be longer.
    return batch.slates[:, : max((len(scene.slate) for scene in scenes), default=0)]


def _until(items: IntArray, counts: IntArray) -> IntArray:
    """With padding behind the first ``counts`` items of each row."""
    return np.where(np.arange(items.shape[1]) < counts[:, None], items, PAD)
