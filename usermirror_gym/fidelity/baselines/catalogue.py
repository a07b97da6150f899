"""Recommenders as users: scores of the catalogue become the utilities of a list's options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from usermirror_gym.fidelity.baselines.base import (
    Baseline,
    Columns,
    Past,
    Settings,
    Stages,
    Trial,
    best,
    descend,
    judge,
)
from usermirror_gym.measures.choice_scores import ObservedChoices
from usermirror_gym.scenes import SceneBatch
from usermirror_gym.types import PAD, FloatArray, IntArray

_CELLS = 4_000_000
"""Most numbers of one ``(rows, n_items + 1)`` array."""


class CatalogueScorer(Protocol):
    """A recommender that reads the history of a scene."""

    def catalogue(self, batch: SceneBatch) -> FloatArray:
        """``(S, n_items + 1)``; ``-inf`` where the model knows nothing of an item.

        A scene without a history has zeros.
        """
        ...


Transform = Callable[[FloatArray, FloatArray], FloatArray]
"""Scores of the options ``(S, K)`` and of the catalogue ``(S, n_items)`` -> ``(S, K)``."""


def _raw(shown: FloatArray, scores: FloatArray) -> FloatArray:
    return shown


def _z_score(shown: FloatArray, scores: FloatArray) -> FloatArray:
    spread = scores.std(axis=1, keepdims=True)
    centre = shown - scores.mean(axis=1, keepdims=True)
    return np.divide(centre, spread, out=np.zeros_like(centre), where=spread > 1e-12)


def _log_softmax(shown: FloatArray, scores: FloatArray) -> FloatArray:
    highest = scores.max(axis=1, keepdims=True)
    return shown - highest - np.log(np.exp(scores - highest).sum(axis=1, keepdims=True))


def _log_share(shown: FloatArray, scores: FloatArray) -> FloatArray:
    mean = np.maximum(scores, 0.0).mean(axis=1, keepdims=True)
    positive = np.maximum(shown, 0.0)
    return np.log1p(np.divide(positive, mean, out=np.zeros_like(positive), where=mean > 0))


TRANSFORMS: dict[str, Transform] = {
    "raw": _raw,
    "z_score": _z_score,
    "log_softmax": _log_softmax,
    "log_share": _log_share,
}
"""Ways from scores of the catalogue to utilities, each user by itself.

``raw``: as they are.  ``z_score``: standardised over the catalogue.  ``log_softmax``: as the
log-probability of a softmax over the catalogue.  ``log_share``: ``log(1 + score / mean score)``
of non-negative scores.
"""


def catalogue_columns(
    scorer: CatalogueScorer, transforms: Sequence[str], popularity: IntArray
) -> Columns:
    """Features of options: the scores under each transform, then ``log(1 + popularity)``.

    Args:
        transforms: keys of :data:`TRANSFORMS`.
        popularity: ``(n_items + 1,)`` interactions before the cut.
    """
    log_popularity = np.log1p(popularity.astype(np.float64))
    step = max(1, _CELLS // len(popularity))

    def columns(batch: SceneBatch) -> FloatArray:
        parts = [
            _of_options(scorer, batch.select(np.arange(start, min(start + step, len(batch)))),
                        transforms)
            for start in range(0, len(batch), step)
        ]  # fmt: skip
        shown = log_popularity[batch.slates][:, :, None]
        return np.concatenate([np.concatenate(parts), shown], axis=2) if parts else shown

    return columns


def _of_options(
    scorer: CatalogueScorer, batch: SceneBatch, transforms: Sequence[str]
) -> FloatArray:
    scores = np.asarray(scorer.catalogue(batch), np.float64)
    scores[:, PAD] = -np.inf
    # An item of which nothing is known is as good as the worst of the others.
    unknown = ~np.isfinite(scores)
    worst = np.where(unknown, np.inf, scores).min(axis=1, keepdims=True)
    scores = np.where(unknown, np.where(np.isfinite(worst), worst, 0.0), scores)
    shown = np.take_along_axis(scores, batch.slates, axis=1)
    return np.stack([TRANSFORMS[name](shown, scores[:, 1:]) for name in transforms], axis=2)


def best_reading(
    scorer: CatalogueScorer, past: Past, choices: ObservedChoices, settings: Settings
) -> Trial:
    """The best of all transforms of the scores, each with and without popularity beside it.

    One or two weights are fitted, too few to need scenes of their own for the comparison.
    """
    names = list(TRANSFORMS)
    values = catalogue_columns(scorer, names, past.split.popularity)(choices.batch)
    return best(
        judge({**settings, "transform": name, "popularity": popularity}, values[:, :, used],
              choices)
        for column, name in enumerate(names)
        for popularity, used in ((False, [column]), (True, [column, -1]))
    )  # fmt: skip


def reading(scorer: CatalogueScorer, past: Past, settings: Settings) -> Columns:
    """The features that a :func:`best_reading` with these settings weighs."""
    columns = catalogue_columns(scorer, [settings["transform"]], past.split.popularity)
    if settings["popularity"]:
        return columns
    return lambda batch: columns(batch)[:, :, :1]


class Searched(Baseline):
    """A model whose settings are searched one after the other."""

    grid: ClassVar[Mapping[str, Sequence[Any]]]
    fit: ClassVar[Callable[..., CatalogueScorer]]
    """Takes a split and the names of the grid."""

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"grid": {k: list(values) for k, values in self.grid.items()}}

    def settle(self, stages: Stages) -> Trial:
        inner, calibration = stages.inner, stages.calibration

        def attempt(settings: Settings) -> Trial:
            scorer = self.fit(inner.split, **settings)
            return best_reading(scorer, inner, calibration, settings)

        return descend(self.grid, attempt)

    def build(self, past: Past, settings: Settings, store: Path | None) -> Columns:
        scorer = self.fit(past.split, **{name: settings[name] for name in self.grid})
        return reading(scorer, past, settings)
