"""How what is chosen spreads over the items: the best classifier need not be the best simulator.

Who always takes the likeliest item may be right most often and still take far fewer items than
people do (Hazrati & Ricci, Learning choice models for simulating users' interactions with
recommender systems, CEUR Workshop Proceedings 3228, 2022).
"""

from __future__ import annotations

import numpy as np

from usermirror_gym.measures.choice_scores import ObservedChoices, forced
from usermirror_gym.types import FloatArray, IntArray

SPREADS = ("gini", "entropy", "coverage")
_DRAWS = 100


def spread(
    probs: FloatArray, choices: ObservedChoices, seed: int = 0
) -> dict[str, dict[str, float]] | None:
    """What a chooser takes, on the lists that hold the true item, beside what was really taken.

    A choice is drawn from every list, again and again.  The sum of the probabilities would not do:
    it is smoother than any choices, those of real users included.

    ``gini``: 0 if all items on the lists are taken equally often, towards 1 if it is a few.
    ``entropy``: of the shares of the items, in nats.  ``coverage``: the share of the items that are
    taken at all.

    Args:
        probs: ``(S, K + 1)``; *none of these* is left out.
        choices: of the same scenes, which are at hand.
        seed: of the draws.

    Returns:
        for each of :data:`SPREADS` the ``mean`` over the draws, ``low`` and ``high`` (95 % of the
        draws lie between them), and ``real``.  ``None`` if no list holds its true item.
    """
    held = choices.contains_choice
    if not held.any():
        return None
    shown, slates = choices.shown[held], choices.batch.slates[held]
    # Items by number, those of the lists alone.
    number = np.zeros(slates.shape, np.int64)
    offered, number[shown] = np.unique(slates[shown], return_inverse=True)
    rows = np.arange(len(slates))
    upto = np.cumsum(forced(probs[held], shown), axis=1)
    rng = np.random.default_rng(seed)
    draws = np.array([
        _spread(number[rows, _draw(upto, rng)], len(offered)) for _ in range(_DRAWS)
    ])  # fmt: skip
    real = _spread(number[rows, choices.targets[held]], len(offered))
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    return {
        name: {
            "mean": float(draws[:, i].mean()), "low": float(low[i]), "high": float(high[i]),
            "real": real[i],
        }
        for i, name in enumerate(SPREADS)
    }  # fmt: skip


def _draw(upto: FloatArray, rng: np.random.Generator) -> IntArray:
    """``(S,)`` a column from each row of cumulated probabilities ``(S, K)``."""
    drawn: IntArray = (rng.random((len(upto), 1)) * upto[:, -1:] >= upto).sum(axis=1)
    return drawn


def _spread(taken: IntArray, n_items: int) -> tuple[float, float, float]:
    """:data:`SPREADS` of items that were taken, of ``n_items``."""
    counts = np.sort(np.bincount(taken, minlength=n_items))
    shares = counts[counts > 0] / counts.sum()
    rank = 2 * np.arange(1, n_items + 1) - n_items - 1
    gini = float((rank * counts).sum() / (n_items * counts.sum()))
    return gini, float(-(shares * np.log(shares)).sum() + 0.0), len(shares) / n_items
