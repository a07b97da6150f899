"""How sure a predictor is of the choice, over the rationales D written for a scene X.

The predictor reads ``P(Y | X, D)`` over the K options for each of n rationales.  In bits:

    total      H( mean_D P(Y | X, D) )
    epistemic  mean_D H( P(Y | X, D) )
    aleatoric  total - epistemic = I(Y; D | X), the mutual information of choice and rationale

This is the usual decomposition of predictive entropy (Depeweg et al., *Decomposition of
Uncertainty in Bayesian Deep Learning*, ICML 2018, eq. 3; the two words in Kendall & Gal, *What
Uncertainties Do We Need*, NeurIPS 2017), under the names of Wei et al., *Mirroring Users*, ACL
2026.  **Those names are the reverse of the usual ones.**  Elsewhere the mean entropy is called
aleatoric (noise that stays once the model is fixed) and the mutual information epistemic (models
disagree).  In Wei et al. what is averaged over is not a model but the user's own train of thought:
people who think differently choose differently, which is aleatoric; what stays open once the
thought is known is what the predictor could not settle, which is epistemic.  This module, its
callers and every file written use the names of Wei et al.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from usermirror_gym.errors import DataError
from usermirror_gym.types import BoolArray, FloatArray, IntArray

TOLERANCE = 1e-4
"""How far the sum of a row may be from 1 (probabilities computed in half precision stay inside)."""
NO_CHOICE = -1
"""Stands for the choice of a rationale that is missing."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """``P(Y | X, D)`` for S scenes, up to n rationales each, up to K options, padded with 0.

    Rows are divided by their sum, so that rounding upstream does not leak into the entropies.
    Usually made by :meth:`of`.

    Attributes:
        role: who wrote the rationales, ``"weak"`` or ``"strong"``; random draws depend on it.
        scene_ids: S different names.
        probs: ``(S, n, K)`` float64; 0 where there is no option or no rationale.
        present: ``(S, n)`` bool, False where a rationale is missing.
        n_options: ``(S,)`` int64, the options of each scene; 0 for a scene without rationales.

    Raises:
        DataError: a row that is not a distribution, or arrays that do not fit; names the row.
    """

    role: str
    scene_ids: tuple[str, ...]
    probs: FloatArray
    present: BoolArray
    n_options: IntArray

    def __post_init__(self) -> None:
        _check_shapes(self)
        inside = np.arange(self.probs.shape[2]) < self.n_options[:, None, None]
        probs = np.where(self.present[:, :, None], self.probs, 0.0)
        with np.errstate(invalid="ignore"):
            sums = probs.sum(axis=2)
            faults = {
                "is not finite": ~np.isfinite(probs).all(axis=2),
                "has a negative probability": (probs < 0).any(axis=2),
                "has probability beyond the last option": ((probs != 0) & ~inside).any(axis=2),
                f"does not sum to 1 within {TOLERANCE:g}": ~(np.abs(sums - 1) <= TOLERANCE),
            }
        for fault, rows in faults.items():
            _refuse(self, rows & self.present, fault)
        object.__setattr__(self, "probs", probs / np.where(self.present, sums, 1.0)[:, :, None])

    @classmethod
    def of(
        cls,
        role: str,
        scene_ids: Sequence[str],
        rows: Sequence[Sequence[Sequence[float] | None]],
    ) -> Predictions:
        """From ragged lists: ``rows[s][d]`` are the K_s probabilities of rationale d of scene s.

        Args:
            role: see :class:`Predictions`.
            scene_ids: one per entry of ``rows``.
            rows: ``None`` stands for a rationale that is missing; a scene may have none at all.

        Raises:
            DataError: rows of one scene that differ in length; see also :class:`Predictions`.
        """
        if len(rows) != len(scene_ids):
            raise DataError(
                f"{role} predictions: {len(rows)} scenes for {len(scene_ids)} scene ids"
            )
        n_options = np.array([_width(role, s, r) for s, r in zip(scene_ids, rows, strict=True)])
        depth = max((len(scene) for scene in rows), default=0)
        probs = np.zeros((len(rows), depth, int(n_options.max(initial=0))))
        present = np.zeros((len(rows), depth), np.bool_)
        for s, scene in enumerate(rows):
            for d, row in enumerate(scene):
                if row is not None:
                    probs[s, d, : len(row)] = row
                    present[s, d] = True
        return cls(role, tuple(scene_ids), probs, present, n_options.astype(np.int64))

    @classmethod
    def concatenate(cls, parts: Sequence[Predictions]) -> Predictions:
        """The scenes of several predictions of one role, one after the other."""
        shape = [max(part.probs.shape[axis] for part in parts) for axis in (1, 2)]
        probs, present = [], []
        for part in parts:
            _, n, k = part.probs.shape
            probs.append(np.pad(part.probs, ((0, 0), (0, shape[0] - n), (0, shape[1] - k))))
            present.append(np.pad(part.present, ((0, 0), (0, shape[0] - n))))
        return cls(
            parts[0].role,
            tuple(scene_id for part in parts for scene_id in part.scene_ids),
            np.concatenate(probs),
            np.concatenate(present),
            np.concatenate([part.n_options for part in parts]),
        )


def entropy(p: Predictions) -> FloatArray:
    """``(S, n)`` bits, ``H(P(Y | X, D))`` of each rationale; NaN where it is missing."""
    return np.where(p.present, _bits(p.probs), np.nan)


def total(p: Predictions) -> FloatArray:
    """``(S,)`` bits, ``H(mean_D P(Y | X, D))``; NaN for a scene without rationales."""
    count = p.present.sum(axis=1)
    mean = p.probs.sum(axis=1) / np.maximum(count, 1)[:, None]
    return np.where(count > 0, _bits(mean), np.nan)


def epistemic(p: Predictions) -> FloatArray:
    """``(S,)`` bits, ``mean_D H(P(Y | X, D))``; NaN for a scene without rationales.

    Named as in Wei et al. 2026; most of the literature calls this part aleatoric.
    """
    count = p.present.sum(axis=1)
    # Absent rows are all zeros, whose entropy sum is 0.
    return np.where(count > 0, _bits(p.probs).sum(axis=1) / np.maximum(count, 1), np.nan)


def aleatoric(p: Predictions) -> FloatArray:
    """``(S,)`` bits, ``total - epistemic``; NaN for a scene without rationales.

    Named as in Wei et al. 2026; most of the literature calls this part epistemic.  It is a mutual
    information and cannot be negative; what rounding leaves below 0 (about 1e-16) is set to 0.
    """
    return np.maximum(total(p) - epistemic(p), 0.0)


def difficulty(weak: Predictions, strong: Predictions) -> FloatArray:
    """``(S,)`` bits, epistemic(weak) - epistemic(strong) (Wei et al. 2026).

    Large where the strong model's reasons settle what the weak model's leave open.  NaN where
    either has no rationale.

    Raises:
        DataError: the two are not about the same scenes in the same order.
    """
    check_same_scenes(weak.scene_ids, strong, "the weak predictions")
    return epistemic(weak) - epistemic(strong)


def sampled_choices(p: Predictions, seed: int = 0) -> IntArray:
    """``(S, n)`` one option drawn from each rationale's distribution; -1 where it is missing.

    Every scene draws from a generator of its own, seeded by a hash of (seed, role, scene id):
    neither the order of the scenes nor which others are in the batch changes a draw.
    """
    n = p.present.shape[1]
    u = np.array([scene_generator(seed, p.role, s).random(n) for s in p.scene_ids])
    ends = np.cumsum(p.probs, axis=2)
    # The bin that reaches the row's sum is open to the right: rounding cannot lead past it.
    ends = np.where(ends >= ends[:, :, -1:], np.inf, ends)
    drawn = (ends <= u.reshape(p.present.shape)[:, :, None]).sum(axis=2)
    return np.where(p.present, drawn, NO_CHOICE)


def likeliest_choices(p: Predictions, seed: int = 0) -> IntArray:
    """``(S, n)`` the likeliest option of each rationale, the first if several are; -1 if missing.

    ``seed`` is not used; it is there so that this can stand in for :func:`sampled_choices`.
    """
    if not p.probs.shape[2]:
        return np.full(p.present.shape, NO_CHOICE)
    return np.where(p.present, p.probs.argmax(axis=2), NO_CHOICE)


READINGS: dict[str, Callable[[Predictions, int], IntArray]] = {
    "sampled": sampled_choices,
    "likeliest": likeliest_choices,
}
"""How a choice is read off a distribution; ``sampled`` is the paper's."""


def hits(p: Predictions, choices: IntArray, targets: Sequence[int] | IntArray) -> BoolArray:
    """``(S, n)`` whether each rationale's choice is what the user really chose.

    Args:
        p: whose choices these are.
        choices: ``(S, n)`` from :func:`sampled_choices` or :func:`likeliest_choices`.
        targets: ``(S,)`` the position of the true option; the last one may be *none of these*.

    Raises:
        DataError: a target that is not among its scene's options.
    """
    positions = np.asarray(targets, np.int64)
    if positions.shape != (len(p.scene_ids),) or choices.shape != p.present.shape:
        raise DataError(
            f"{p.role} predictions of shape {p.present.shape} got choices of shape "
            f"{choices.shape} and targets of shape {positions.shape}"
        )
    known = p.present.any(axis=1)
    wrong = np.flatnonzero(known & ((positions < 0) | (positions >= p.n_options)))
    if len(wrong):
        s = int(wrong[0])
        raise DataError(
            f"scene {p.scene_ids[s]!r}: the true option is number {positions[s]}, but the {p.role} "
            f"predictions have {p.n_options[s]} options (numbered from 0)"
        )
    return p.present & (choices == positions[:, None])


def scene_generator(seed: int, purpose: str, scene_id: str) -> np.random.Generator:
    """The random numbers of one scene for one purpose, wherever the scene stands."""
    # The length keeps ("a", "bc") and ("ab", "c") apart.
    key = f"{seed}|{len(purpose)}|{purpose}|{scene_id}".encode("utf-8", "surrogatepass")
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(key, digest_size=16).digest()))


def check_same_scenes(scene_ids: Sequence[str], p: Predictions, whose: str) -> None:
    """Raise DataError unless ``p`` is about these scenes in this order.

    Args:
        scene_ids: those of ``whose``.
        p: the predictions to compare with them.
        whose: how the message calls the first ones.
    """
    if len(scene_ids) != len(p.scene_ids):
        raise DataError(
            f"{whose} have {len(scene_ids)} scenes, the {p.role} predictions {len(p.scene_ids)}; "
            "give both the same scene ids, with empty lists where rationales are missing"
        )
    for row, (one, other) in enumerate(zip(scene_ids, p.scene_ids, strict=True)):
        if one != other:
            raise DataError(
                f"row {row} is scene {one!r} in {whose}, but {other!r} in the {p.role} "
                "predictions; put them in the same order"
            )


def _bits(probs: FloatArray) -> FloatArray:
    """Entropy over the last axis; 0 log 0 = 0."""
    from scipy.special import entr

    return entr(probs).sum(axis=-1) / np.log(2.0) + 0.0  # no negative zero


def _width(role: str, scene_id: str, rows: Sequence[Sequence[float] | None]) -> int:
    widths = {len(row) for row in rows if row is not None}
    if len(widths) > 1 or widths == {0}:
        raise DataError(
            f"scene {scene_id!r}: its {role} rationales are over {sorted(widths)} options; all "
            "must be over the same list of at least one"
        )
    return widths.pop() if widths else 0


def _check_shapes(p: Predictions) -> None:
    s = len(p.scene_ids)
    fits = (
        p.probs.ndim == 3
        and p.probs.shape[0] == s
        and p.present.shape == p.probs.shape[:2]
        and p.n_options.shape == (s,)
        and bool((p.n_options <= p.probs.shape[2]).all())
    )
    if not fits:
        raise DataError(
            f"{p.role} predictions of {s} scenes need probs (S, n, K), present (S, n) and "
            f"n_options (S,) <= K, got {p.probs.shape}, {p.present.shape}, {p.n_options.shape}"
        )
    if len(set(p.scene_ids)) < s:
        twice = next(i for i in p.scene_ids if p.scene_ids.count(i) > 1)
        raise DataError(f"{p.role} predictions name scene {twice!r} twice")


def _refuse(p: Predictions, rows: BoolArray, fault: str) -> None:
    if rows.any():
        s, d = np.argwhere(rows)[0].tolist()
        raise DataError(
            f"scene {p.scene_ids[s]!r}, {p.role} rationale {d} (counted from 0) {fault}: "
            f"{p.probs[s, d, : p.n_options[s]].tolist()}"
        )
