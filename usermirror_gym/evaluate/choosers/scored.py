"""Recommenders as users: scores of the catalogue become the utilities of a list's options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from scipy.special import log_softmax

from usermirror_gym.evaluate.choosers.outside_logit import OutsideLogit, probabilities
from usermirror_gym.scenes import Scene, SceneBatch
from usermirror_gym.simulators.base import ChoiceBatch
from usermirror_gym.types import PAD, BoolArray, FloatArray, IntArray

_CELLS = 4_000_000
"""Most numbers of one ``(rows, n_items + 1)`` array."""

Columns = Callable[[SceneBatch], FloatArray]
"""S scenes -> features ``(S, K, F)`` of their options; a scene's do not depend on the others."""


class CatalogueScorer(Protocol):
    """A recommender that reads the history of a scene."""

    def catalogue(self, batch: SceneBatch) -> FloatArray:
        """``(S, n_items + 1)``; ``-inf`` where the model knows nothing of an item.

        A scene without a history has zeros.
        """
        ...


class ScoredChooser:
    """A user whose utilities are a conditional logit over features of the options.

    Args:
        name: how reports call it.
        columns: the features.
        logit: their weights.
    """

    def __init__(self, name: str, columns: Columns, logit: OutsideLogit) -> None:
        self.name = name
        self.columns = columns
        self.logit = logit

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        """See :class:`~usermirror_gym.simulators.UserSimulator`."""
        return ChoiceBatch(probabilities(self.log_probs(scenes)))

    def log_probs(self, scenes: Sequence[Scene]) -> FloatArray:
        """``(S, K + 1)`` natural logarithms of the probabilities."""
        batch = SceneBatch.of(scenes)
        if not len(batch):
            return np.zeros((0, batch.slate_size + 1))
        return self.logit.log_probs(self.columns(batch), batch.slates != PAD)

    def utilities(self, scenes: Sequence[Scene]) -> FloatArray:
        """``(S, K)``; 0 where there is no option."""
        batch = SceneBatch.of(scenes)
        return np.where(batch.slates != PAD, self.logit.utilities(self.columns(batch)), 0.0)


Transform = Callable[[FloatArray, BoolArray], FloatArray]


def _raw(scores: FloatArray, known: BoolArray) -> FloatArray:
    return scores


def _z_score(scores: FloatArray, known: BoolArray) -> FloatArray:
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    centred = scores - np.where(known, scores, 0.0).sum(axis=1, keepdims=True) / count
    spread = np.sqrt((np.where(known, centred, 0.0) ** 2).sum(axis=1, keepdims=True) / count)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-12)


def _log_softmax(scores: FloatArray, known: BoolArray) -> FloatArray:
    return log_softmax(np.where(known, scores, -np.inf), axis=1)


def _log_share(scores: FloatArray, known: BoolArray) -> FloatArray:
    positive = np.where(known, np.maximum(scores, 0.0), 0.0)
    mean = positive.sum(axis=1, keepdims=True) / np.maximum(known.sum(axis=1, keepdims=True), 1)
    return np.log1p(np.divide(positive, mean, out=np.zeros_like(positive), where=mean > 0))


TRANSFORMS: dict[str, Transform] = {
    "raw": _raw,
    "z_score": _z_score,
    "log_softmax": _log_softmax,
    "log_share": _log_share,
}
"""Ways from scores ``(S, n_items + 1)`` of the catalogue to utilities, each user by itself.

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
    known = np.isfinite(scores)
    known[:, PAD] = False
    # An item of which nothing is known is as good as the worst of the others.
    worst = np.where(known, scores, np.inf).min(axis=1, keepdims=True)
    scores = np.where(known, scores, np.where(np.isfinite(worst), worst, 0.0))
    return np.stack(
        [
            np.take_along_axis(_finite(TRANSFORMS[name](scores, known)), batch.slates, axis=1)
            for name in transforms
        ],
        axis=2,
    )


def _finite(values: FloatArray) -> FloatArray:
    finite = np.isfinite(values)
    worst = np.where(finite, values, np.inf).min(axis=1, keepdims=True)
    return np.where(finite, values, np.where(np.isfinite(worst), worst, 0.0))
