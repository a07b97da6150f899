"""A shortlist of candidates, so that a policy chooses among 50 items instead of the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from gymnasium import spaces

from usermirror_gym.errors import AgentError, ConfigError
from usermirror_gym.types import Float32Array, IntArray, Observation

_HALF_TURNS = 10  # lists after which the turn feature stands at one half


class Retriever(Protocol):
    """Who proposes candidates: any fitted agent."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    def recommend(self, observations: Observation, k: int) -> IntArray:
        """``(N, k)`` item ids, best first."""
        ...


def relative_popularity(counts: IntArray) -> Float32Array:
    """``(n_items + 1,)`` log(1 + counts), relative to that of the most popular item."""
    logs = np.log1p(counts)
    return (logs / max(logs.max(), 1.0)).astype(np.float32)


@dataclass(eq=False)
class Shortlist:
    """Candidates for N observations, and what a policy may know of them.

    Features of candidate c: ``candidate_popularity``, log(1 + interactions before T0) relative to
    the most popular item; ``candidate_shown``, 1 if it was in the last list.  ``features_only``
    replaces the ids, which a network without embeddings cannot use, by ``session_progress``
    (turns / (turns + 10)), ``history_fill`` (history length / H) and ``last_choice`` one-hot.

    Args:
        popularity: ``(n_items + 1,)`` interactions before T0.
        history_size: H.
    """

    source: Retriever
    size: int
    slate_size: int
    popularity: IntArray
    history_size: int
    features_only: bool

    def __post_init__(self) -> None:
        self.n_items = len(self.popularity) - 1
        if not self.slate_size <= self.size <= self.n_items:
            raise ConfigError(
                f"a shortlist needs at least the slate size ({self.slate_size}) and at most the "
                f"catalogue ({self.n_items}), got size {self.size}"
            )
        self._relative = relative_popularity(self.popularity)

    def action_space(self) -> spaces.MultiDiscrete:
        """A slate as positions in the shortlist, from 0."""
        return spaces.MultiDiscrete(np.full(self.slate_size, self.size, np.int64))

    def observation_space(self, base: spaces.Dict) -> spaces.Dict:
        """Single observation space, given that of the environment."""
        shapes = {"candidate_popularity": self.size, "candidate_shown": self.size}
        if self.features_only:
            shapes |= {
                "session_progress": 1, "history_fill": 1, "last_choice": self.slate_size + 1,
            }  # fmt: skip
        features: dict[str, spaces.Space] = {
            name: spaces.Box(0.0, 1.0, (width,), np.float32) for name, width in shapes.items()
        }
        if self.features_only:
            return spaces.Dict(features)
        candidates = spaces.Box(1, self.n_items, (self.size,), np.int64)
        return spaces.Dict({**base.spaces, "candidates": candidates, **features})

    def propose(self, observations: Observation) -> IntArray:
        """Candidates ``(N, size)`` of the source.

        Raises:
            AgentError: the source did not answer with that shape.
        """
        items = np.asarray(self.source.recommend(observations, self.size), np.int64)
        expected = (len(observations["user_id"]), self.size)
        if items.shape != expected:
            raise AgentError(
                f"{self.source.name} proposed candidates of shape {items.shape}, expected "
                f"{expected}"
            )
        return items

    def augment(self, observations: Observation, candidates: IntArray) -> Observation:
        """What the policy sees: N rows of :meth:`observation_space`."""
        shown = (candidates[:, :, None] == observations["last_slate"][:, None, :]).any(axis=2)
        features = {
            "candidate_popularity": self._relative[candidates],
            "candidate_shown": shown.astype(np.float32),
        }
        if not self.features_only:
            return observations | {"candidates": candidates} | features
        return features | self._situation(observations)

    def _situation(self, observations: Observation) -> dict[str, Float32Array]:
        turns = observations["turns"].astype(np.float32)
        fill = observations["history_length"][:, None] / self.history_size
        one_hot = np.eye(self.slate_size + 1, dtype=np.float32)
        return {
            "session_progress": turns / (turns + np.float32(_HALF_TURNS)),
            "history_fill": fill.astype(np.float32),
            "last_choice": one_hot[observations["last_choice"]],
        }
