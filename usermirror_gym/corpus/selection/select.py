"""Which scenes become training pairs: the best by a score, inside strata, and why not the others.

Strata are data set x list length K, so that a score that grows with K, as entropies do, cannot
fill the data with long lists (Wei et al. 2026).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from usermirror_gym.corpus.selection.assessment import Answers, Assessment
from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.measures import uncertainty
from usermirror_gym.types import BoolArray, FloatArray

NO_SCORE = "the selector gives it no score"
BELOW_CUT = "below the cut"

Stratum = tuple[str, int]
"""Data set and list length K (without *none of these*)."""

_MODEL = ("total", "epistemic", "aleatoric", "hit_rate")
SCHEMA = pa.schema(
    [
        pa.field("scene_id", pa.string()),
        pa.field("dataset", pa.string()),
        pa.field("list_size", pa.int32()),
        # Bits, and the share of rationales that hit; NaN without rationales.
        *(pa.field(f"weak_{name}", pa.float64()) for name in _MODEL),
        *(pa.field(f"strong_{name}", pa.float64()) for name in _MODEL),
        pa.field("difficulty", pa.float64()),
        # The best pair: numbers of rationales (-1: none), their options and entropies in bits.
        pa.field("chosen", pa.int32()),
        pa.field("chosen_option", pa.int32()),
        pa.field("chosen_entropy", pa.float64()),
        pa.field("rejected", pa.int32()),
        pa.field("rejected_by", pa.string()),  # "weak", "strong" or ""
        pa.field("rejected_option", pa.int32()),
        pa.field("rejected_entropy", pa.float64()),
        pa.field("score", pa.float64()),  # of the selector that was used
        pa.field("kept", pa.bool_()),
        pa.field("reason", pa.string()),  # why it was not kept; "" if it was
    ]
)  # fmt: skip
"""Columns of a selection file, in order; one row per scene, kept or not."""


@dataclass(frozen=True, eq=False)
class Selection:
    """Which of S scenes were kept, and why the others were not.

    Attributes:
        table: rows of :data:`SCHEMA`, in the order of the scenes.
        quotas: how many were kept of each stratum.
    """

    table: pa.Table
    quotas: dict[Stratum, int]

    @property
    def kept(self) -> tuple[str, ...]:
        """Ids of the kept scenes, in the order of the scenes."""
        return tuple(self.table.filter(self.table["kept"]).column("scene_id").to_pylist())

    def dropped(self) -> dict[str, int]:
        """How many scenes were not kept for each reason, most frequent first."""
        reasons = Counter(r for r in self.table.column("reason").to_pylist() if r)
        return dict(reasons.most_common())

    def summary(self) -> str:
        """One line for the console."""
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped().items())
        return f"{len(self.kept):,} preference pairs; scenes not kept: {reasons or 'none'}"


def select(
    assessment: Assessment, *, size: int, selector: str = "difficulty", seed: int = 0
) -> Selection:
    """Keep the scenes with the highest scores, each stratum in proportion to its size.

    Only scenes with a hit and a miss can be kept.  Equal scores are ordered by a random number of
    each scene's own, so the order of the scenes changes nothing.

    Args:
        assessment: all scenes, those without rationales too: they count for the strata's sizes.
        size: how many to keep; fewer are kept if fewer can be.
        selector: a name in :data:`~usermirror_gym.corpus.selection.select.SELECTORS`.
        seed: of the random selector and of ties.

    Raises:
        UnknownNameError: no such selector.
        ConfigError: ``size`` is below 1, or the selector lacks what it needs.
    """
    if selector not in SELECTORS:
        raise UnknownNameError("selector", selector, SELECTORS)
    if size < 1:
        raise ConfigError(f"the size of a selection must be at least 1, got {size}")
    scores = SELECTORS[selector](assessment, seed)
    reasons = np.array(assessment.obstacles(), dtype=object)
    reasons[(reasons == "") & np.isnan(scores)] = NO_SCORE
    able = reasons == ""
    sizes = Counter(assessment.strata)
    room = Counter(s for s, a in zip(assessment.strata, able, strict=True) if a)
    quotas = allocate(sizes, room, size)
    kept = _best(assessment, scores, able, quotas, seed)
    reasons[able & ~kept] = BELOW_CUT
    return Selection(_table(assessment, scores, kept, reasons), quotas)


def allocate(
    sizes: Mapping[Stratum, int], room: Mapping[Stratum, int], total: int
) -> dict[Stratum, int]:
    """Share ``total`` out in proportion to ``sizes`` by largest remainder, never above ``room``.

    What a full stratum cannot take goes to the others, in proportion again.  Equal remainders go
    to the larger stratum, then to the first in order of name.
    """
    quotas = dict.fromkeys(sorted(sizes), 0)
    left = min(total, sum(room.values()))
    unfilled = [s for s in quotas if room.get(s, 0)]
    while True:
        weight = sum(sizes[s] for s in unfilled)
        full = [s for s in unfilled if left * sizes[s] >= room[s] * weight]
        if not full:
            break
        for stratum in full:
            quotas[stratum] = room[stratum]
            left -= room[stratum]
            unfilled.remove(stratum)
    # Every share is below the room now, so that one more always fits.
    for stratum in unfilled:
        quotas[stratum] = left * sizes[stratum] // weight
    missing = left - sum(quotas[s] for s in unfilled)
    unfilled.sort(key=lambda s: (-(left * sizes[s] % weight), -sizes[s], s))
    for stratum in unfilled[:missing]:
        quotas[stratum] += 1
    return quotas


def _best(
    assessment: Assessment,
    scores: FloatArray,
    able: BoolArray,
    quotas: Mapping[Stratum, int],
    seed: int,
) -> BoolArray:
    """``(S,)`` the quota's worth of highest scores in each stratum."""
    draw = uncertainty.scene_generator
    ties = np.array([draw(seed, "ties", s).random() for s in assessment.scene_ids])
    kept = np.zeros(len(scores), np.bool_)
    taken: Counter[Stratum] = Counter()
    for row in np.lexsort((ties, -scores)):
        stratum = assessment.strata[row]
        if able[row] and taken[stratum] < quotas[stratum]:
            kept[row] = True
            taken[stratum] += 1
    return kept


def _table(
    assessment: Assessment, scores: FloatArray, kept: BoolArray, reasons: np.ndarray
) -> pa.Table:
    weak, strong = assessment.weak, assessment.strong
    chosen, rejected = assessment.chosen, assessment.rejected
    by_strong = assessment.rejected_by_strong
    columns = {
        "scene_id": assessment.scene_ids,
        "dataset": [dataset for dataset, _ in assessment.strata],
        "list_size": [size for _, size in assessment.strata],
        "difficulty": uncertainty.difficulty(weak.predictions, strong.predictions),
        "chosen": chosen,
        "chosen_option": _pick(strong.choices, chosen, -1),
        "chosen_entropy": _pick(strong.entropy, chosen, np.nan),
        "rejected": rejected,
        "rejected_by": np.where(rejected < 0, "", np.where(by_strong, "strong", "weak")),
        "score": scores,
        "kept": kept,
        "reason": reasons,
    }
    for name, field, missing in (("option", "choices", -1), ("entropy", "entropy", np.nan)):
        both = [_pick(getattr(m, field), rejected, missing) for m in (strong, weak)]
        columns[f"rejected_{name}"] = np.where(by_strong, *both)
    for role, answers in (("weak", weak), ("strong", strong)):
        columns |= {f"{role}_{name}": value for name, value in _facts(answers).items()}
    return pa.table(
        {f.name: pa.array(columns[f.name], f.type, from_pandas=False) for f in SCHEMA},
        schema=SCHEMA,
    )


def _facts(answers: Answers) -> dict[str, FloatArray]:
    p = answers.predictions
    return {
        "total": uncertainty.total(p),
        "epistemic": uncertainty.epistemic(p),
        "aleatoric": uncertainty.aleatoric(p),
        "hit_rate": answers.hit_rate,
    }


def _pick(values: np.ndarray, columns: np.ndarray, missing: float) -> np.ndarray:
    """``values[row, columns[row]]``, ``missing`` where there is no such column or it is -1."""
    inside = (columns >= 0) & (columns < values.shape[1])
    picked = np.full(len(columns), missing, values.dtype)
    rows = np.flatnonzero(inside)
    picked[rows] = values[rows, columns[rows]]
    return picked


Selector = Callable[[Assessment, int], FloatArray]
"""``(S,)`` the higher, the rather a scene is kept; NaN is no score.  The number is a seed."""


def highest_ifd(assessment: Assessment, seed: int) -> FloatArray:
    """Largest IFD below 1; from 1 on the question does not help, and the scene has no score.

    Raises:
        ConfigError: the assessment comes without IFD.
    """
    if assessment.ifd is None:
        raise ConfigError(
            "the selector 'ifd' needs the difficulty of every chosen answer: compute it with "
            "corpus.selection.ifd.score_answers and pass it to Assessment.with_ifd"
        )
    return np.where(assessment.ifd < 1, assessment.ifd, np.nan)


SELECTORS: dict[str, Selector] = {
    # Epistemic uncertainty of the weak model minus that of the strong one (Wei et al. 2026).
    "difficulty": lambda a, seed: uncertainty.difficulty(a.weak.predictions, a.strong.predictions),
    # A number of each scene's own, in [0, 1).
    "random": lambda a, seed: np.array(
        [uncertainty.scene_generator(seed, "random", scene).random() for scene in a.scene_ids]
    ),
    # Scenes that the strong model gets right, or wrong, or right and the weak one does not.
    "high_accuracy": lambda a, seed: a.strong.hit_rate,
    "low_accuracy": lambda a, seed: -a.strong.hit_rate,
    "accuracy_difference": lambda a, seed: a.strong.hit_rate - a.weak.hit_rate,
    "ifd": highest_ifd,
}
