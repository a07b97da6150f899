"""Profiles as numbers: what a small network can read of the users' table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from usermirror_gym.types import TOKEN, IntArray

_MOST_VALUES = 32
"""A column of more different texts (a postal code, a name) says nothing that could be learned."""
_BINS = 5


@dataclass(frozen=True)
class ProfileFeature:
    """One column of the users' table.

    Attributes:
        column: its name.
        values: the texts that are told apart; empty for numbers.
        edges: ascending bounds between the bins of numbers.
    """

    column: str
    values: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """How many codes there are; an unknown value has none."""
        return len(self.values) or len(self.edges) + 1

    def codes(self, users: pd.DataFrame) -> IntArray:
        """``(n,)`` 1 .. size, 0 where the value is unknown or the column is absent."""
        if self.column not in users:
            return np.zeros(len(users), np.int64)
        column = users[self.column]
        if self.values:
            code = {value: number for number, value in enumerate(self.values, start=1)}
            texts = column.astype("string").fillna("").str.strip()
            return np.array([code.get(text, 0) for text in texts], np.int64)
        numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        bins = np.searchsorted(np.array(self.edges), numbers, side="right") + 1
        return np.where(np.isnan(numbers), 0, bins).astype(np.int64)


def profile_features(users: pd.DataFrame) -> tuple[ProfileFeature, ...]:
    """Columns that tell groups of users apart: few texts, or numbers, cut at their quantiles."""
    found = (_feature(name, users[name]) for name in users.columns if name != TOKEN)
    return tuple(feature for feature in found if feature is not None)


def profile_codes(features: tuple[ProfileFeature, ...], users: pd.DataFrame) -> IntArray:
    """``(n_users + 1, C)`` one code per user and feature, no two features sharing any; 0 unknown.

    Row 0, of padding, is unknown.
    """
    codes = np.zeros((len(users) + 1, len(features)), np.int64)
    first = 0
    for column, feature in enumerate(features):
        own = feature.codes(users)
        codes[1:, column] = np.where(own > 0, own + first, 0)
        first += feature.size
    return codes


def _feature(name: str, column: pd.Series) -> ProfileFeature | None:
    numbers = pd.to_numeric(column, errors="coerce")
    if pd.api.types.is_numeric_dtype(column) and numbers.nunique() > 1:
        levels = np.quantile(numbers.dropna().astype(float), np.arange(1, _BINS) / _BINS)
        return ProfileFeature(name, edges=tuple(np.unique(levels).tolist()))
    texts = column.astype("string").dropna().str.strip()
    values = sorted(set(texts) - {""})
    return ProfileFeature(name, tuple(values)) if 1 < len(values) <= _MOST_VALUES else None
