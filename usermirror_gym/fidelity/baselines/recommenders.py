"""BPR and SASRec: trained by RecBole, asked about the history that a scene shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from usermirror_gym.agents import RecBoleAgent
from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import AgentError, CheckpointError
from usermirror_gym.fidelity.baselines.base import (
    Baseline,
    Columns,
    Past,
    Settings,
    Stages,
    Trial,
    best,
)
from usermirror_gym.fidelity.baselines.catalogue import CatalogueScorer, best_reading, reading
from usermirror_gym.fidelity.baselines.printed import history_matrix
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
        """See :class:`~usermirror_gym.fidelity.baselines.catalogue.CatalogueScorer`."""
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
        """See :class:`~usermirror_gym.fidelity.baselines.catalogue.CatalogueScorer`."""
        return (history_matrix(batch, len(self._unit), self._decay) @ self._unit) @ self._unit.T


HISTORY, NEIGHBOURS = "history", "neighbours"
Serving = tuple[str, float]
"""How a stranger is served: :data:`HISTORY` by the agent itself, :data:`NEIGHBOURS` by the cosine
of item vectors; and what a line is worth against the one after it."""


def serve(agent: RecBoleAgent, split: TimeSplit, serving: Serving) -> CatalogueScorer:
    """The scorer of a serving."""
    how, decay = serving
    return NeighbourScorer(agent, decay) if how == NEIGHBOURS else AgentScorer(agent, split)


@dataclass(kw_only=True)
class Recommender(Baseline):
    """A RecBole model, trained until the calibration scenes are foretold no better.

    Attributes:
        model: RecBole's name of it.
        configs: RecBole's settings to try.
        servings: ways to serve a stranger, the best of which is taken after every epoch.
        max_epochs: of each.
        patience: epochs without a new best before the end.
    """

    model: str
    configs: Sequence[Settings]
    servings: Sequence[Serving] = ((HISTORY, 1.0),)
    max_epochs: int
    patience: int = 4

    def _agent(self, config: Settings, past: Past) -> RecBoleAgent:
        return RecBoleAgent(self.model, config=config, seed=past.seed, progress=False)

    def settle(self, stages: Stages) -> Trial:
        return best(self._attempt(stages, config) for config in self.configs)

    def _attempt(self, stages: Stages, config: Settings) -> Trial:
        inner = stages.inner

        trials: list[Trial] = []

        def after_epoch(agent: RecBoleAgent) -> bool:
            settings = {"config": {**config, "epochs": len(trials) + 1}}
            trials.append(best(
                best_reading(
                    serve(agent, inner.split, serving), inner, stages.calibration,
                    {**settings, "serving": list(serving)},
                )
                for serving in self.servings
            ))  # fmt: skip
            # It is time to end when the training has not come nearer for a while.
            return len(trials) - trials.index(best(trials)) > self.patience

        agent = self._agent({**config, "epochs": self.max_epochs}, inner)
        agent.fit(inner.split, after_epoch=after_epoch)
        return best(trials)

    def build(self, past: Past, settings: Settings, store: Path | None) -> Columns:
        folder = None if store is None else store / f"{self.model}-agent"
        agent = _saved(folder, settings["config"])
        if agent is None:
            agent = self._agent(settings["config"], past).fit(past.split)
            if folder is not None:
                agent.save(folder)
        how, decay = settings["serving"]
        return reading(serve(agent, past.split, (how, decay)), past, settings)


def _saved(folder: Path | None, config: Settings) -> RecBoleAgent | None:
    """The agent kept in a folder, unless it is of other settings or cannot be read."""
    if folder is None or not folder.is_dir():
        return None
    try:
        agent = RecBoleAgent.load(folder, progress=False)
    except (AgentError, CheckpointError):
        return None
    return agent if agent.config == config else None
