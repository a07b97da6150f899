"""Recommenders as users: scores of the catalogue become the utilities of a list's options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from usermirror_gym.measures.choice_models import NestedLogit
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
    """A user whose utilities are weighted features of the options.

    Args:
        name: how reports call it.
        columns: the features.
        logit: their weights, and when nothing is taken.
        about: how it was fitted: ``settings`` and ``seconds``.
    """

    def __init__(
        self,
        name: str,
        columns: Columns,
        logit: NestedLogit,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.columns = columns
        self.logit = logit
        self.about = dict(about or {})

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        """See :class:`~usermirror_gym.simulators.UserSimulator`."""
        batch = SceneBatch.of(scenes)
        if not len(batch):
            return ChoiceBatch(np.zeros((0, batch.slate_size + 1)))
        return ChoiceBatch(self.logit.probs(self.columns(batch), batch.slates != PAD))

    def utilities(self, scenes: Sequence[Scene]) -> FloatArray:
        """``(S, K)``, of mean 0 over each list; 0 where there is no option."""
        batch = SceneBatch.of(scenes)
        return centred(self.logit.utilities(self.columns(batch)), batch.slates != PAD)


def centred(values: FloatArray, mask: BoolArray) -> FloatArray:
    """``(S, K)`` minus their mean over each list; 0 where there is no option."""
    shown = np.where(mask, values, 0.0)
    mean = shown.sum(axis=1, keepdims=True) / np.maximum(mask.sum(axis=1, keepdims=True), 1)
    return np.where(mask, shown - mean, 0.0)


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
