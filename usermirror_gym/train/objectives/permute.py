"""What changes from epoch to epoch: the order of the options, the length of the history.

Every draw is a function of the seed, the epoch and the scene's name alone, so that neither the
batch size nor a kill in the middle of an epoch changes what a scene looks like.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from usermirror_gym.scenes.randomness import KeyArray, integers, keys, uniforms
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.types import IntArray

# Random streams, see scenes/randomness.py.
_ORDER, _LINES, _REJECTED, _ROWS = range(32, 36)


def name_keys(names: Sequence[str]) -> IntArray:
    """``(B,)`` a whole number for each name, the same in every process."""
    digests = (hashlib.blake2b(n.encode("utf-8", "replace"), digest_size=8) for n in names)
    return np.array([int.from_bytes(d.digest(), "little") for d in digests], np.uint64).astype(
        np.int64
    )


def epoch_keys(seed: int, epoch: int, names: IntArray) -> KeyArray:
    """``(B,)`` what all draws of an epoch begin with.

    Args:
        names: ``(B,)`` from :func:`name_keys`.
    """
    return keys(seed, np.full(len(names), epoch, np.int64), names)


def orders(own: KeyArray, counts: IntArray) -> list[tuple[int, ...]]:
    """A permutation of ``0 .. counts[i] - 1`` for each key, uniform over all of them.

    Args:
        own: ``(B,)`` from :func:`epoch_keys`.
        counts: ``(B,)`` number of options.
    """
    width = int(counts.max(initial=0))
    ranks = uniforms(own, _ORDER, width) if width else np.zeros((len(own), 0))
    ranks = np.where(np.arange(width) < counts[:, None], ranks, np.inf)
    places = np.argsort(ranks, axis=1, kind="stable")
    return [tuple(row[:count].tolist()) for row, count in zip(places, counts, strict=True)]


def wrong_options(own: KeyArray, counts: IntArray, targets: IntArray) -> IntArray:
    """``(B,)`` an option of ``0 .. counts - 1`` that is not the target, all equally likely."""
    drawn = integers(own, _REJECTED, 0, counts - 2)
    return drawn + (drawn >= targets)


def shortened(scene: Scene, own: KeyArray, lines: tuple[int, int] | None) -> Scene:
    """The scene with as many of its latest history lines as the epoch's draw says.

    Args:
        own: ``(1,)`` from :func:`epoch_keys`.
        lines: the range, both ends inclusive; ``None`` leaves the history as it is.
    """
    if lines is None:
        return scene
    keep = int(integers(own, _LINES, *lines)[0])
    start = max(len(scene.history) - keep, 0)
    return replace(
        scene,
        history=scene.history[start:],
        ratings=scene.ratings[start:],
        ages=scene.ages[start:],
        behaviours=scene.behaviours[start:],
    )


def shuffled_rows(seed: int, epoch: int, count: int) -> IntArray:
    """``(count,)`` the examples of an epoch in random order."""
    own = epoch_keys(seed, epoch, np.arange(count))
    return np.argsort(uniforms(own, _ROWS)[:, 0], kind="stable")
