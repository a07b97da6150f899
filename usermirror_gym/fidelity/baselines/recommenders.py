"""BPR and SASRec: trained by RecBole, asked about the history that a scene shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from usermirror_gym.agents import RecBoleAgent
from usermirror_gym.data import TimeSplit
from usermirror_gym.fidelity.baselines.item_item import history_matrix
from usermirror_gym.fidelity.baselines.readings import Trial, best
from usermirror_gym.fidelity.baselines.scored import CatalogueScorer
from usermirror_gym.scenes import SceneBatch
from usermirror_gym.types import FloatArray

_STRANGER = 0


class AgentScorer:
    """Scores of a RecBole agent for the lines of a scene.

    Everybody is a stranger to the model: what it trained for a user holds all they did before T0,
    of which a scene shows the last lines.  A model with a vector per user folds the lines in, see
    :mod:`usermirror_gym.agents.recbole.serving`.
    """

    def __init__(self, agent: RecBoleAgent, split: TimeSplit) -> None:
        self.agent = agent
        self._known = split.popularity > 0

    def catalogue(self, batch: SceneBatch) -> FloatArray:
        """See :class:`~usermirror_gym.fidelity.baselines.scored.CatalogueScorer`."""
        place = np.arange(batch.history.shape[1])
        history = np.where(place < batch.history_lengths[:, None], batch.history, 0)
        scores = self.agent.scores(
            {
                "user_id": np.full(len(batch), _STRANGER),
                "history_items": history,
                "history_length": batch.history_lengths,
            }
        ).astype(np.float64)
        # The agent answers by popularity here, which is on another scale.
        scores[~self._known[history].any(axis=1)] = 0.0
        return scores


class NeighbourScorer:
    """The cosines of an item's trained vector with those of the lines, summed.

    Scores ``sum_h decay^(lines since h) * cos(v_h, v_i)``.  On ml-100k it serves a stranger with
    few lines far better than the fold-in.
    """

    def __init__(self, agent: RecBoleAgent, decay: float) -> None:
        factors = agent.item_factors().astype(np.float64)
        norms = np.linalg.norm(factors, axis=1, keepdims=True)
        self._unit = np.divide(factors, norms, out=np.zeros_like(factors), where=norms > 0)
        self._decay = decay

    def catalogue(self, batch: SceneBatch) -> FloatArray:
        """See :class:`~usermirror_gym.fidelity.baselines.scored.CatalogueScorer`."""
        return (history_matrix(batch, len(self._unit), self._decay) @ self._unit) @ self._unit.T


HISTORY, NEIGHBOURS = "history", "neighbours"
Serving = tuple[str, float]
"""How a stranger is served: :data:`HISTORY` by the agent itself, :data:`NEIGHBOURS` by the cosine
of item vectors; and what a line is worth against the one after it."""


def serve(agent: RecBoleAgent, split: TimeSplit, serving: Serving) -> CatalogueScorer:
    """The scorer of a serving."""
    how, decay = serving
    return NeighbourScorer(agent, decay) if how == NEIGHBOURS else AgentScorer(agent, split)


def fit_recommender(
    model: str,
    split: TimeSplit,
    *,
    config: dict[str, Any],
    seed: int,
    after_epoch: Callable[[RecBoleAgent], bool] | None = None,
) -> RecBoleAgent:
    """Train before T0.

    Args:
        model: RecBole's name of it.
        config: RecBole's settings.
        after_epoch: see :meth:`usermirror_gym.agents.RecBoleAgent.fit`.
    """
    agent = RecBoleAgent(model, config=config, seed=seed, progress=False)
    return agent.fit(split, after_epoch=after_epoch)


class EarlyStop:
    """Ends a training that has not come nearer to the truth for a while.

    Args:
        look: judges the agent as it stands after so many epochs.
        patience: epochs without a new best before the end.
    """

    def __init__(self, look: Callable[[RecBoleAgent, int], Trial], patience: int) -> None:
        self._look, self._patience = look, patience
        self._trials: list[Trial] = []

    def __call__(self, agent: RecBoleAgent) -> bool:
        """Whether it is time to end."""
        self._trials.append(self._look(agent, len(self._trials) + 1))
        return len(self._trials) - self._trials.index(self.best) > self._patience

    @property
    def best(self) -> Trial:
        """The trial with the lowest loss so far."""
        return best(self._trials)
