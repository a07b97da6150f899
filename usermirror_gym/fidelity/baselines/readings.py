"""Which way from a recommender's scores to utilities foretells the calibration choices best."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from usermirror_gym.fidelity.baselines.past import Choices, Past
from usermirror_gym.fidelity.baselines.scored import (
    TRANSFORMS,
    CatalogueScorer,
    Columns,
    catalogue_columns,
    centred,
)
from usermirror_gym.measures.choice_models import NestedLogit, fit_nested_logit, forced_log_loss
from usermirror_gym.types import FloatArray

Settings = dict[str, Any]
"""What was chosen, in plain types."""


@dataclass(frozen=True)
class Trial:
    """Settings that were tried, and what came of them.

    Attributes:
        settings: which.
        logit: weights of the features under these settings.
        loss: forced log-loss on the calibration scenes.
        utilities: ``(S, K)`` of the calibration scenes, see
            :meth:`~usermirror_gym.fidelity.baselines.scored.ScoredChooser.utilities`.
    """

    settings: Settings
    logit: NestedLogit
    loss: float
    utilities: FloatArray


def judge(settings: Settings, values: FloatArray, choices: Choices, *, ridge: float = 1.0) -> Trial:
    """A trial of features ``(S, K, F)`` of the calibration scenes."""
    logit = fit_nested_logit(values, choices.mask, choices.targets, ridge=ridge)
    utilities = centred(logit.utilities(values), choices.mask)
    return Trial(settings, logit, forced_log_loss(utilities, choices.mask, choices.targets),
                 utilities)  # fmt: skip


def best_reading(
    scorer: CatalogueScorer, past: Past, choices: Choices, settings: Settings
) -> Trial:
    """The best of all transforms of the scores, each with and without popularity beside it.

    One or two weights are fitted, too few to need scenes of their own for the comparison.
    """
    names = list(TRANSFORMS)
    values = catalogue_columns(scorer, names, past.popularity)(choices.batch)
    return best(
        judge({**settings, "transform": name, "popularity": popularity}, values[:, :, used],
              choices)
        for column, name in enumerate(names)
        for popularity, used in ((False, [column]), (True, [column, -1]))
    )  # fmt: skip


def reading(scorer: CatalogueScorer, past: Past, settings: Settings) -> Columns:
    """The features that a :func:`best_reading` with these settings weighs."""
    columns = catalogue_columns(scorer, [settings["transform"]], past.popularity)
    if settings["popularity"]:
        return columns
    return lambda batch: columns(batch)[:, :, :1]


def best(trials: Iterable[Trial]) -> Trial:
    """The trial with the lowest loss; of equal ones the first."""
    return min(trials, key=lambda trial: trial.loss)


def descend(
    grid: Mapping[str, Sequence[Any]],
    attempt: Callable[[Settings], Trial],
) -> Trial:
    """One setting after the other, each with the best values found so far for the others.

    Args:
        grid: values by name; the first is where the others start from.
        attempt: tries settings that have a value for every name.
    """
    start = {name: values[0] for name, values in grid.items()}
    found = attempt(start)
    for name, values in grid.items():
        base = {key: found.settings[key] for key in grid}
        found = best([found, *(attempt({**base, name: v}) for v in values if v != base[name])])
    return found
