"""How each classic chooser is settled on calibration scenes, and then built on all before T0."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from usermirror_gym.agents import RecBoleAgent
from usermirror_gym.errors import AgentError, CheckpointError
from usermirror_gym.fidelity.baselines.item_item import fit_ease, fit_item_knn
from usermirror_gym.fidelity.baselines.learned import Learn, learn_logit, learn_trees, score_feature
from usermirror_gym.fidelity.baselines.past import Past, Stages
from usermirror_gym.fidelity.baselines.readings import (
    Settings,
    Trial,
    best,
    best_reading,
    descend,
    judge,
    reading,
)
from usermirror_gym.fidelity.baselines.recommenders import (
    HISTORY,
    NEIGHBOURS,
    EarlyStop,
    Serving,
    fit_recommender,
    serve,
)
from usermirror_gym.fidelity.baselines.scored import CatalogueScorer, Columns
from usermirror_gym.types import PAD


class Recipe(ABC):
    """One kind of chooser."""

    def describe(self) -> dict[str, Any]:
        """What is tried, in JSON types: a fit that was kept is of use under equal ones only."""
        found = {"kind": type(self).__name__, **vars(self)}
        plain: dict[str, Any] = json.loads(json.dumps(found, default=lambda f: f.__name__))
        return plain

    @abstractmethod
    def settle(self, stages: Stages) -> Trial:
        """The settings that foretell the calibration scenes best, fitted before them."""

    @abstractmethod
    def build(self, past: Past, settings: Settings, store: Path | None) -> Columns:
        """The features under these settings, fitted on all of ``past``.

        Args:
            store: folder in which a fit that takes long is kept, or found.
        """


class Pop(Recipe):
    """``a * log(1 + interactions before T0)``."""

    def settle(self, stages: Stages) -> Trial:
        """See :class:`Recipe`."""
        values = self.build(stages.inner, {}, None)(stages.calibration.batch)
        return judge({}, values, stages.calibration)

    def build(self, past: Past, settings: Settings, store: Path | None) -> Columns:
        """See :class:`Recipe`."""
        weights = np.log1p(past.popularity.astype(np.float64))
        return lambda batch: weights[batch.slates][:, :, None]


class _ItemItem(Recipe):
    """A matrix between items; what it is like is searched one setting after the other."""

    grid: ClassVar[Mapping[str, Sequence[Any]]]

    def describe(self) -> dict[str, Any]:
        """See :class:`Recipe`."""
        return super().describe() | {"grid": {k: list(values) for k, values in self.grid.items()}}

    @abstractmethod
    def fit(self, past: Past, **settings: Any) -> CatalogueScorer:
        """The model; takes the names of the grid."""

    def settle(self, stages: Stages) -> Trial:
        """See :class:`Recipe`."""

        def attempt(settings: Settings) -> Trial:
            scorer = self.fit(stages.inner, **settings)
            return best_reading(scorer, stages.inner, stages.calibration, settings)

        return descend(self.grid, attempt)

    def build(self, past: Past, settings: Settings, store: Path | None) -> Columns:
        """See :class:`Recipe`."""
        scorer = self.fit(past, **{name: settings[name] for name in self.grid})
        return reading(scorer, past, settings)


class ItemKNN(_ItemItem):
    """Neighbours by common users, the plain cosine among them."""

    grid: ClassVar[Mapping[str, Sequence[Any]]] = {
        "list_power": (0.5, 0.25, 0.75, 1.0),
        "past_power": (0.5, 0.25, 0.75, 1.0),
        "user_power": (0.0, 0.25, 0.5, 1.0),
        "decay": (1.0, 0.9, 0.8, 0.65, 0.5),
        "shrink": (0.0, 1.0, 5.0, 20.0),
        "k": (0, 50, 100, 200, 400),
    }

    def fit(self, past: Past, **settings: Any) -> CatalogueScorer:
        """See :func:`fit_item_knn`."""
        return fit_item_knn(past.split, **settings)


class EASE(_ItemItem):
    """The closed-form linear autoencoder."""

    grid: ClassVar[Mapping[str, Sequence[Any]]] = {
        "reg": (1500.0, 50.0, 150.0, 500.0, 5000.0, 15000.0),
        "decay": (1.0, 0.9, 0.8, 0.65, 0.5),
    }

    def fit(self, past: Past, **settings: Any) -> CatalogueScorer:
        """See :func:`fit_ease`."""
        return fit_ease(past.split, **settings)


class Recommender(Recipe):
    """A RecBole model, trained until the calibration scenes are foretold no better.

    Args:
        model: RecBole's name of it.
        configs: RecBole's settings to try.
        servings: ways to serve a stranger, the best of which is taken after every epoch.
        max_epochs: of each.
        patience: epochs without a new best before the end.
    """

    def __init__(
        self,
        model: str,
        configs: Sequence[Settings],
        *,
        servings: Sequence[Serving] = ((HISTORY, 1.0),),
        max_epochs: int,
        patience: int = 4,
    ) -> None:
        self.model, self.configs, self.servings = model, configs, servings
        self.max_epochs, self.patience = max_epochs, patience

    def settle(self, stages: Stages) -> Trial:
        """See :class:`Recipe`."""
        return best(self._attempt(stages, config) for config in self.configs)

    def _attempt(self, stages: Stages, config: Settings) -> Trial:
        inner = stages.inner

        def look(agent: RecBoleAgent, epochs: int) -> Trial:
            trained = {"config": {**config, "epochs": epochs}}
            return best(
                best_reading(
                    serve(agent, inner.split, serving), inner, stages.calibration,
                    {**trained, "serving": list(serving)},
                )
                for serving in self.servings
            )  # fmt: skip

        watch = EarlyStop(look, self.patience)
        fit_recommender(
            self.model, inner.split, config={**config, "epochs": self.max_epochs},
            seed=inner.seed, after_epoch=watch,
        )  # fmt: skip
        return watch.best

    def build(self, past: Past, settings: Settings, store: Path | None) -> Columns:
        """See :class:`Recipe`."""
        folder = None if store is None else store / f"{self.model}-agent"
        agent = _saved(folder, settings["config"])
        if agent is None:
            agent = fit_recommender(
                self.model, past.split, config=settings["config"], seed=past.seed
            )
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


class Printed(Recipe):
    """A model over printed features.

    Args:
        learn: fits it.
        options: settings to try.
    """

    def __init__(self, learn: Learn, options: Sequence[Settings]) -> None:
        self.learn, self.options = learn, options

    def settle(self, stages: Stages) -> Trial:
        """See :class:`Recipe`."""
        choices = stages.calibration
        values = stages.inner.printed.columns(choices.batch)

        def attempt(settings: Settings) -> Trial:
            score = self.learn(stages.inner, settings)
            return judge(settings, score_feature(values, choices.mask, score), choices)

        return best(attempt(settings) for settings in self.options)

    def build(self, past: Past, settings: Settings, store: Path | None) -> Columns:
        """See :class:`Recipe`."""
        score = self.learn(past, settings)
        return lambda batch: score_feature(past.printed.columns(batch), batch.slates != PAD, score)


RECIPES: dict[str, Recipe] = {
    "Pop": Pop(),
    "ItemKNN": ItemKNN(),
    "BPR": Recommender(
        "BPR",
        [
            {"learning_rate": 0.005, "embedding_size": size, "weight_decay": decay}
            for size, decay in ((64, 0.0), (32, 1e-5))
        ],
        servings=((HISTORY, 1.0), *((NEIGHBOURS, decay) for decay in (1.0, 0.8, 0.65))),
        max_epochs=60,
    ),
    "EASE": EASE(),
    "SASRec": Recommender(
        "SASRec",
        [
            {
                "learning_rate": 0.002, "n_layers": 1, "inner_size": 128,
                "hidden_dropout_prob": 0.3, "attn_dropout_prob": 0.3, "MAX_ITEM_LIST_LENGTH": 10,
            },
        ],
        max_epochs=30,
    ),
    "logit": Printed(learn_logit, [{"ridge": ridge} for ridge in (1.0, 10.0, 30.0, 100.0)]),
    "trees": Printed(
        learn_trees,
        [
            {"max_iter": rounds, "learning_rate": 0.06, "max_leaf_nodes": leaves}
            for leaves in (7, 15)
            for rounds in (60, 120, 240)
        ],
    ),
}  # fmt: skip
"""The classic choosers by name."""
