"""Random numbers that belong to a scene, not to its place in a batch.

Every number is a hash of (seed, scene, stream, index), so that scenes can be built in any order,
in any batch size, and a longer plan starts with the scenes of a shorter one.  The hash is the
finaliser of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014).
"""

from __future__ import annotations

import numpy as np

from usermirror_gym.types import FloatArray, IntArray

KeyArray = np.ndarray
"""uint64."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def keys(seed: int, *columns: IntArray) -> KeyArray:
    """One key per row of the integer columns, each ``(B,)``; other rows, other keys."""
    key = mix(np.full(len(columns[0]), seed % 2**64, np.uint64))
    for column in columns:
        key = mix(key ^ column.astype(np.uint64))
    return key


def uniforms(keys: KeyArray, stream: int, n: int = 1, first: int = 0) -> FloatArray:
    """``(B, n)`` numbers in [0, 1): the entries ``first .. first + n - 1`` of a stream.

    Args:
        keys: ``(B,)`` from :func:`keys`.
        stream: what the numbers are for; streams are independent of each other.
    """
    index = np.arange(first, first + n, dtype=np.uint64) + (np.uint64(stream + 1) << np.uint64(32))
    bits = mix(keys[:, None] ^ mix(index)[None, :]) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def integers(keys: KeyArray, stream: int, low: IntArray | int, high: IntArray | int) -> IntArray:
    """``(B,)`` integers, uniform over ``low .. high``, both inclusive."""
    width = np.asarray(high) - low + 1
    return (low + np.floor(uniforms(keys, stream)[:, 0] * width)).astype(np.int64)


def mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: a bijection of 64-bit words."""
    with np.errstate(over="ignore"):
        x = x + _GOLDEN
        x = (x ^ (x >> np.uint64(30))) * _FIRST
        x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))
