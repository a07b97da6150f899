"""Which scenes become training pairs: the best by a score, inside strata, and why not the others.

Strata are data set x list length K, so that a score that grows with K, as entropies do, cannot
fill the data with long lists (Wei et al. 2026).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from usermirror_gym.corpus.selection.assessment import Assessment
from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.measures.uncertainty import scene_generator
from usermirror_gym.types import FloatArray

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
    scenes, scores = assessment.columns, SELECTORS[selector](assessment, seed)
    hopeless = (scenes["reason"] == "") & np.isnan(scores)
    reasons = np.where(hopeless, NO_SCORE, scenes["reason"])
    able = reasons == ""
    strata = list(zip(scenes["dataset"], scenes["list_size"], strict=True))
    room = Counter(itertools.compress(strata, able))
    quotas = allocate(Counter(strata), room, size)
    ties = _random(assessment, "ties", seed)
    kept = np.zeros(len(scores), np.bool_)
    taken: Counter[Stratum] = Counter()
    for row in np.lexsort((ties, -scores)):
        if able[row] and taken[strata[row]] < quotas[strata[row]]:
            kept[row] = True
            taken[strata[row]] += 1
    reasons = np.where(able & ~kept, BELOW_CUT, reasons)
    columns = scenes | {"score": scores, "kept": kept, "reason": reasons}
    arrays = [pa.array(columns[f.name], f.type, from_pandas=False) for f in SCHEMA]
    return Selection(pa.table(arrays, schema=SCHEMA), quotas)


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


def _random(assessment: Assessment, purpose: str, seed: int) -> FloatArray:
    """``(S,)`` a number of each scene's own, in [0, 1)."""
    ids = assessment.columns["scene_id"]
    return np.array([scene_generator(seed, purpose, scene).random() for scene in ids])


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
    "difficulty": lambda a, seed: a.columns["difficulty"],
    "random": lambda a, seed: _random(a, "random", seed),
    # Scenes that the strong model gets right, or wrong, or right and the weak one does not.
    "high_accuracy": lambda a, seed: a.columns["strong_hit_rate"],
    "low_accuracy": lambda a, seed: -a.columns["strong_hit_rate"],
    "accuracy_difference": lambda a, seed: (
        a.columns["strong_hit_rate"] - a.columns["weak_hit_rate"]
    ),
    "ifd": highest_ifd,
}
