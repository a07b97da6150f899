"""What the rationales of the weak and the strong model say of each scene, and its best pair."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from usermirror_gym.errors import DataError, UnknownNameError
from usermirror_gym.measures.uncertainty import (
    NO_CHOICE,
    READINGS,
    Predictions,
    check_same_scenes,
    entropy,
    hits,
)
from usermirror_gym.types import BoolArray, FloatArray, IntArray

NO_STRONG = "no rationale by the strong model"
NO_WEAK = "no rationale by the weak model"
NO_HIT = "the strong model never hits"
NO_MISS = "neither model ever misses"


@dataclass(frozen=True, eq=False)
class Answers:
    """The rationales of one model: what each chooses and how sure it is; arrays ``(S, n)``."""

    predictions: Predictions
    choices: IntArray  # -1 where the rationale is missing
    hits: BoolArray
    entropy: FloatArray  # bits; NaN where the rationale is missing

    @property
    def misses(self) -> BoolArray:
        """``(S, n)`` rationales that are there and choose another option than the user."""
        return self.predictions.present & ~self.hits

    @property
    def hit_rate(self) -> FloatArray:
        """``(S,)`` share of a scene's rationales that hit; NaN without rationales."""
        count = self.predictions.present.sum(axis=1)
        return np.where(count > 0, self.hits.sum(axis=1) / np.maximum(count, 1), np.nan)


@dataclass(frozen=True, eq=False)
class Assessment:
    """S scenes with the answers of both models and the best pair of rationales of each.

    *Chosen* is the strong model's hit with the lowest entropy, *rejected* the miss of either
    model with the lowest entropy (Wei et al. 2026).  Of equal entropies the strong model's comes
    first, then the earlier rationale.
    """

    scene_ids: tuple[str, ...]
    strata: tuple[tuple[str, int], ...]  # (S,) data set and list length K
    weak: Answers
    strong: Answers
    chosen: IntArray  # (S,) index of the strong model's rationale; -1: none
    rejected: IntArray  # (S,) index of the rationale; -1: none
    rejected_by_strong: BoolArray  # (S,) who wrote it
    ifd: FloatArray | None = None
    """``(S,)`` of the chosen answers, NaN without one; see :mod:`ifd`.
    Only the selector of that name needs it."""

    def with_ifd(self, ifd: FloatArray) -> Assessment:
        """The same with instruction-following difficulties; DataError unless one per scene."""
        if ifd.shape != (len(self.scene_ids),):
            raise DataError(f"{ifd.shape} IFD values for {len(self.scene_ids)} scenes")
        return replace(self, ifd=ifd)

    def obstacles(self) -> list[str]:
        """``(S,)`` why a scene cannot become a pair, ``""`` where it can."""
        reasons = np.full(len(self.scene_ids), "", dtype=object)
        for reason, rows in (  # the first that holds is written last
            (NO_MISS, self.rejected < 0),
            (NO_HIT, self.chosen < 0),
            (NO_WEAK, ~self.weak.predictions.present.any(axis=1)),
            (NO_STRONG, ~self.strong.predictions.present.any(axis=1)),
        ):
            reasons[rows] = reason
        return reasons.tolist()


def assess(
    scenes: pa.Table,
    weak: Predictions,
    strong: Predictions,
    *,
    reading: str = "sampled",
    seed: int = 0,
) -> Assessment:
    """Read the choice of every rationale, compare it with the truth, find the best pair.

    Args:
        scenes: rows of :data:`usermirror_gym.scenes.table.SCHEMA`.
        weak: predictions for the same scenes, in the same order.
        strong: likewise.
        reading: a name in :data:`~usermirror_gym.measures.uncertainty.READINGS`.
        seed: of the sampled choices.

    Raises:
        UnknownNameError: no such reading.
        DataError: scenes and predictions do not fit; names the scene.
    """
    if reading not in READINGS:
        raise UnknownNameError("reading", reading, READINGS)
    ids = tuple(scenes.column("scene_id").to_pylist())
    sizes = [len(slate) for slate in scenes.column("slate").to_pylist()]
    strata = tuple(zip(scenes.column("dataset").to_pylist(), sizes, strict=True))
    targets = scenes.column("target").to_pylist()
    if None in targets:
        raise DataError(f"scene {ids[targets.index(None)]!r} does not say what was chosen")
    answers = []
    for predictions in (weak, strong):
        check_same_scenes(ids, predictions, "the scenes")
        _check_options(predictions, sizes)
        choices = READINGS[reading](predictions, seed)
        hit = hits(predictions, choices, targets)
        answers.append(Answers(predictions, choices, hit, entropy(predictions)))
    return _with_pairs(ids, strata, *answers)


def _with_pairs(
    ids: tuple[str, ...], strata: tuple[tuple[str, int], ...], weak: Answers, strong: Answers
) -> Assessment:
    rejected = _surest(
        np.concatenate([strong.entropy, weak.entropy], axis=1),
        np.concatenate([strong.misses, weak.misses], axis=1),
    )
    n_strong = strong.hits.shape[1]
    by_strong = (rejected >= 0) & (rejected < n_strong)
    return Assessment(
        scene_ids=ids,
        strata=strata,
        weak=weak,
        strong=strong,
        chosen=_surest(strong.entropy, strong.hits),
        rejected=np.where(by_strong | (rejected < 0), rejected, rejected - n_strong),
        rejected_by_strong=by_strong,
    )


def _surest(entropies: FloatArray, wanted: BoolArray) -> IntArray:
    """``(S,)`` column of the lowest entropy among the wanted ones, -1 if there is none."""
    if not wanted.shape[1]:
        return np.full(len(wanted), NO_CHOICE)
    best = np.where(wanted, entropies, np.inf).argmin(axis=1)
    return np.where(wanted.any(axis=1), best, NO_CHOICE)


def _check_options(predictions: Predictions, sizes: list[int]) -> None:
    known = predictions.present.any(axis=1)
    extra = predictions.n_options - np.array(sizes, np.int64)
    wrong = np.flatnonzero(known & (extra != 0) & (extra != 1))
    if len(wrong):
        s = int(wrong[0])
        raise DataError(
            f"scene {predictions.scene_ids[s]!r} lists {sizes[s]} items, but the "
            f"{predictions.role} predictions are over {predictions.n_options[s]} options; it must "
            "be as many, or one more with *none of these*"
        )
