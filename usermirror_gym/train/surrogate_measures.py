"""How near a surrogate is to its teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.stats import kendalltau, spearmanr

from usermirror_gym.evaluate.bootstrap import Interval, UserBootstrap
from usermirror_gym.types import BoolArray, FloatArray, IntArray

_TINY = 1e-12
_BINS = 10
_FEWEST = 5
"""Lists of a user from which their order says something."""


@dataclass(frozen=True)
class Agreement:
    """Two answers to each of S scenes, compared.

    Attributes:
        kl: ``(S,)`` nats from the student's to the teacher's distribution over all options.
        same: ``(S,)`` whether the likeliest option, *none of these* included, is the same.
        variation: ``(S,)`` total variation distance.
        values: ``(2, S)`` what the list is worth, ``1 - P(none of these)``: teacher, student.
    """

    kl: FloatArray
    same: BoolArray
    variation: FloatArray
    values: FloatArray

    @classmethod
    def of(cls, teacher: FloatArray, student: FloatArray) -> Self:
        """Of probabilities ``(S, K + 1)``, *none of these* last."""
        logs = np.log(np.maximum(teacher, _TINY)) - np.log(np.maximum(student, _TINY))
        return cls(
            kl=(np.where(teacher > 0, teacher * logs, 0.0)).sum(axis=1),
            same=teacher.argmax(axis=1) == student.argmax(axis=1),
            variation=np.abs(teacher - student).sum(axis=1) / 2,
            values=1.0 - np.stack([teacher[:, -1], student[:, -1]]),
        )

    def part(self, rows: BoolArray) -> Agreement:
        """Some of them."""
        return Agreement(self.kl[rows], self.same[rows], self.variation[rows], self.values[:, rows])

    @property
    def rank_correlation(self) -> float:
        """Spearman's, of the values of all lists; NaN if all are alike."""
        return _correlation(spearmanr, self.values)


def summary(agreement: Agreement, users: IntArray, seed: int, n_resamples: int) -> dict[str, Any]:
    """What the report says of some scenes.

    Args:
        users: ``(S,)``, whose resampling gives the intervals.

    Returns:
        ``kl``, ``agreement`` and ``total_variation`` as intervals; rank correlations of the
        values of the lists; ``within_user_spearman``, the mean over users of that of their own
        lists; ``outside``, how well P(*none of these*) fits.
    """
    columns = np.column_stack([agreement.kl, agreement.same, agreement.variation])
    kl, same, variation = UserBootstrap(users, n_resamples, seed).intervals(columns)
    return {
        "scenes": len(users),
        "users": len(np.unique(users)),
        "kl": _plain(kl),
        "agreement": _plain(same),
        "total_variation": _plain(variation),
        "spearman": _finite(agreement.rank_correlation),
        "kendall": _finite(_correlation(kendalltau, agreement.values)),
        "within_user_spearman": _finite(_within_users(agreement, users)),
        "outside": outside_calibration(agreement),
    }


def outside_calibration(agreement: Agreement) -> dict[str, float]:
    """Mean P(*none of these*) of both, and ``error``: the mean distance of the two within ten
    equally large groups of lists that the student gives alike probabilities."""
    teacher, student = 1.0 - agreement.values
    groups = np.array_split(np.argsort(student, kind="stable"), min(_BINS, len(student)))
    error = sum(len(g) * abs(teacher[g].mean() - student[g].mean()) for g in groups)
    return {
        "teacher": float(teacher.mean()),
        "student": float(student.mean()),
        "error": float(error / len(student)),
    }


def _within_users(agreement: Agreement, users: IntArray) -> float:
    own = [_correlation(spearmanr, agreement.values[:, users == u]) for u in np.unique(users)]
    known = [value for value in own if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _correlation(kind: Any, values: FloatArray) -> float:
    if values.shape[1] < _FEWEST or np.ptp(values, axis=1).min() == 0:
        return float("nan")
    return float(kind(values[0], values[1]).statistic)


def _plain(interval: Interval) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in interval._asdict().items()}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
