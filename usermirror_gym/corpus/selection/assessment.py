"""What the rationales of the weak and the strong model say of each scene, and its best pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from usermirror_gym.errors import DataError, UnknownNameError
from usermirror_gym.measures import uncertainty
from usermirror_gym.measures.uncertainty import NO_CHOICE, READINGS, Predictions
from usermirror_gym.types import FloatArray, IntArray

NO_STRONG = "no rationale by the strong model"
NO_WEAK = "no rationale by the weak model"
NO_HIT = "the strong model never hits"
NO_MISS = "neither model ever misses"


@dataclass(frozen=True, eq=False)
class Assessment:
    """S scenes with the answers of both models and the best pair of rationales of each.

    *Chosen* is the strong model's hit with the lowest entropy, *rejected* the miss of either
    model with the lowest entropy (Wei et al. 2026).  Of equal entropies the strong model's comes
    first, then the earlier rationale.
    """

    columns: dict[str, Any]
    """``(S,)`` those of :data:`usermirror_gym.corpus.selection.select.SCHEMA` that do not depend on
    a selector; ``reason`` says why a scene cannot become a pair, and is empty where it can."""
    ifd: FloatArray | None = None
    """``(S,)`` of the chosen answers, NaN without one; see :mod:`ifd`.
    Only the selector of that name needs it."""

    def with_ifd(self, ifd: FloatArray) -> Assessment:
        """The same with instruction-following difficulties; DataError unless one per scene."""
        if ifd.shape != (len(self.columns["scene_id"]),):
            raise DataError(f"{ifd.shape} IFD values for {len(self.columns['scene_id'])} scenes")
        return Assessment(self.columns, ifd)


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
    ids, sets, slates, targets = (
        scenes.column(name).to_pylist() for name in ("scene_id", "dataset", "slate", "target")
    )
    if None in targets:
        raise DataError(f"scene {ids[targets.index(None)]!r} does not say what was chosen")
    sizes = [len(slate) for slate in slates]
    columns: dict[str, Any] = {"scene_id": ids, "dataset": sets, "list_size": sizes}
    # Of each model (S, n): the choices (-1 where a rationale is missing), which hit, which miss,
    # and the entropies in bits (NaN).
    choices, right, wrong, entropies = [], [], [], []
    for role, p in (("weak", weak), ("strong", strong)):
        uncertainty.check_same_scenes(ids, p, "the scenes")
        _check_options(p, sizes)
        choices.append(READINGS[reading](p, seed))
        right.append(uncertainty.hits(p, choices[-1], targets))
        wrong.append(p.present & ~right[-1])
        entropies.append(uncertainty.entropy(p))
        hit, count = right[-1].sum(axis=1), p.present.sum(axis=1)
        columns |= {
            f"{role}_total": uncertainty.total(p),
            f"{role}_epistemic": uncertainty.epistemic(p),
            f"{role}_aleatoric": uncertainty.aleatoric(p),
            f"{role}_hit_rate": np.where(count > 0, hit / np.maximum(count, 1), np.nan),
        }
    # The strong model's first: they win where entropies are equal.
    either, bits, misses = (np.concatenate(a[::-1], axis=1) for a in (choices, entropies, wrong))
    n_strong = right[1].shape[1]
    chosen, rejected = _surest(entropies[1], right[1]), _surest(bits, misses)
    by_strong = rejected < n_strong
    no_strong, no_weak = (~p.present.any(axis=1) for p in (strong, weak))
    columns |= {
        "difficulty": uncertainty.difficulty(weak, strong),
        "chosen": chosen,
        "chosen_option": _pick(choices[1], chosen, NO_CHOICE),
        "chosen_entropy": _pick(entropies[1], chosen, np.nan),
        "rejected": np.where(by_strong, rejected, rejected - n_strong),
        "rejected_by": np.select([rejected < 0, by_strong], ["", "strong"], "weak"),
        "rejected_option": _pick(either, rejected, NO_CHOICE),
        "rejected_entropy": _pick(bits, rejected, np.nan),
        "reason": np.select(
            [no_strong, no_weak, chosen < 0, rejected < 0],
            [NO_STRONG, NO_WEAK, NO_HIT, NO_MISS],
            "",
        ),
    }
    return Assessment(columns)


def _surest(entropies: np.ndarray, wanted: np.ndarray) -> IntArray:
    """``(S,)`` column of the lowest entropy among the wanted ones, -1 if there is none."""
    if not wanted.shape[1]:
        return np.full(len(wanted), NO_CHOICE)
    best = np.where(wanted, entropies, np.inf).argmin(axis=1)
    return np.where(wanted.any(axis=1), best, NO_CHOICE)


def _pick(values: np.ndarray, columns: IntArray, missing: float) -> np.ndarray:
    """``values[row, columns[row]]``, ``missing`` where the column is -1."""
    padded = np.pad(values, ((0, 0), (0, 1)), constant_values=missing)
    return padded[np.arange(len(columns)), columns]


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
