"""Whether the rankers of a build were fitted before T0: each is fitted again and compared.

Every comparison is also made with a fit on all interactions.  Where that cannot be told from the
right one, the verdict is ``"too few"``: the check could not have failed.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from usermirror_gym.corpus.checks.leaks import Finding, Verdict, judge, shown
from usermirror_gym.corpus.scene_stage import item_embeddings
from usermirror_gym.data import TimeSplit
from usermirror_gym.scenes.draw.embeddings import TFIDF
from usermirror_gym.scenes.draw.rankers import fit_collaborative
from usermirror_gym.types import ITEM_ID, TIMESTAMP, Float32Array, FloatArray, IntArray

TOLERANCE = 1e-4
"""Largest difference of two item-item products that counts as rounding; entries are within 1."""
_SAMPLE = 500


def fitted_before(source: str, stored: int, t0: int) -> Finding:
    """The rankers say the same T0 as the manifest."""
    verdict: Verdict = "passed" if stored == t0 else "failed"
    return Finding("rankers: T0", source, verdict, f"T0 of the rankers {stored}, of the build {t0}")


def popularity_fit(source: str, split: TimeSplit, stored: IntArray) -> Finding:
    """The stored counts are those of the interactions before T0, exactly."""
    expected, later = split.popularity, _of_everything(split).popularity
    same = stored.shape == expected.shape and bool((stored == expected).all())
    compared = (
        f"counts of {split.dataset.n_items} items with {len(split.before)} interactions before "
        f"T0; counting all would change {int((later != expected).sum())} of them"
    )
    power = bool((later != expected).any())
    return Finding("rankers: popularity", source, _verdict(same, power), compared)


def collaborative_fit(source: str, split: TimeSplit, stored: FloatArray, seed: int = 0) -> Finding:
    """The stored factors span what a new fit before T0, with the same seed, spans.

    Factors are only defined up to rotation within equal singular values and sign, hence their
    item-item products are compared, on the items that occur most often in the whole log.
    """
    dim = stored.shape[1]
    expected = fit_collaborative(split, dim, seed).factors
    later = fit_collaborative(_of_everything(split), dim, seed).factors
    items = _frequent(split)
    compared = f"factors {stored.shape} with a new fit before T0, on {len(items)} items"
    found = _fits(items, stored, expected, later, compared, "everything")
    return Finding("rankers: collaborative", source, *found)


def embedding_fit(
    source: str, split: TimeSplit, stored: Float32Array, model: str | None
) -> Finding:
    """TF-IDF weights come from the items known before T0; pretrained models are fitted on no log.

    Args:
        stored: ``(n_items + 1, e)``, row 0 for padding.
        model: the name that the build gives.
    """
    name = "rankers: embedding"
    if model is None:
        return Finding(
            name, source, "failed", "the manifest does not say whose embeddings lie here"
        )
    if model != TFIDF:
        compared = f"nothing: {model} is pretrained, no part of it is fitted on the log"
        return Finding(name, source, "passed", compared)
    expected, later = (item_embeddings(s, TFIDF) for s in (split, _of_everything(split)))
    compared = f"TF-IDF {stored.shape} with a new fit on the items known before T0"
    found = _fits(_frequent(split), stored, expected, later, compared, "all items")
    return Finding(name, source, *found)


def collaborative_company(source: str, scenes: pd.DataFrame, split: TimeSplit) -> Finding:
    """What the collaborative sampler showed had interactions before T0, else it saw later ones."""
    options = shown(scenes)
    sampler = np.concatenate([np.asarray(s, object) for s in scenes["samplers"]])
    options = options[sampler == "collaborative"]
    known = split.popularity > 0
    unknown = int((~known[1:] & (_of_everything(split).popularity[1:] > 0)).sum())
    compared = f"{len(options)} options it showed with {known.sum()} items known before T0"
    name = "rankers: what collaborative showed"
    wrong = np.zeros(len(scenes), np.bool_)
    wrong[options["row"].to_numpy()[~known[options[ITEM_ID].to_numpy()]]] = True
    if not len(options) or (not unknown and not wrong.any()):
        return Finding(name, source, "too few", f"{compared}, {unknown} only later")
    return judge(name, source, scenes, wrong, f"{compared}, {unknown} only later")


def _frequent(split: TimeSplit) -> IntArray:
    """The items that occur most often in the whole log."""
    return np.argsort(-_of_everything(split).popularity, kind="stable")[:_SAMPLE]


def _of_everything(split: TimeSplit) -> TimeSplit:
    """The same log with T0 behind its end."""
    return TimeSplit(split.dataset, int(split.dataset.interactions[TIMESTAMP].max()) + 1)


def _fits(
    items: IntArray, stored: np.ndarray, expected: np.ndarray, later: np.ndarray,
    compared: str, on: str,
) -> tuple[Verdict, str]:  # fmt: skip
    """Verdict, and what was compared: the largest differences of inner products of some items."""

    def distance(vectors: np.ndarray) -> float:
        if len(vectors) != len(expected):
            return float("inf")
        a, b = vectors[items], expected[items]
        return float(np.abs(a @ a.T - b @ b.T).max(initial=0))

    difference, power = distance(stored), distance(later)
    compared += f": largest difference {difference:.1g}; that of a fit on {on} is {power:.1g}"
    return _verdict(difference <= TOLERANCE, power > 10 * TOLERANCE), compared


def _verdict(same: bool, power: bool) -> Verdict:
    if not same:
        return "failed"
    return "passed" if power else "too few"
