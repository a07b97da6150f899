"""BPR and SASRec: trained by RecBole, asked about the history that a scene shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from usermirror_gym.agents import RecBoleAgent
from usermirror_gym.data import TimeSplit
from usermirror_gym.evaluate.choosers.readings import Trial, best
from usermirror_gym.scenes import SceneBatch
from usermirror_gym.types import TIMESTAMP, USER_ID, FloatArray

_STRANGER = 0


class AgentScorer:
    """Scores of a RecBole agent for the lines of a scene.

    Everybody is a stranger to the model: what it trained for a user holds all they did before T0,
    of which a scene shows the last lines.  A model with a vector per user folds the lines in, see
    :mod:`usermirror_gym.agents.recbole_serving`.
    """

    def __init__(self, agent: RecBoleAgent, split: TimeSplit) -> None:
        self.agent = agent
        self._known = split.popularity > 0

    def catalogue(self, batch: SceneBatch) -> FloatArray:
        """See :class:`~usermirror_gym.evaluate.choosers.scored.CatalogueScorer`."""
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
    return agent.fit(shuffle_ties(split, seed), after_epoch=after_epoch)


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


def shuffle_ties(split: TimeSplit, seed: int) -> TimeSplit:
    """The same log with what a user did at one moment in random order.

    The log sorts such rows by item id.  A sequence model would learn that ids rise, which is of
    no use where the history ends before the moment of the choice.
    """
    events = split.dataset.interactions
    order = np.random.default_rng(seed).random(len(events))
    rows = np.lexsort((order, events[USER_ID].to_numpy(), events[TIMESTAMP].to_numpy()))
    shuffled = events.iloc[rows].reset_index(drop=True)
    return TimeSplit(replace(split.dataset, interactions=shuffled), split.t0)
