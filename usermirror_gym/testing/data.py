"""A tiny synthetic data set with something to learn, for tests and examples."""

from __future__ import annotations

import numpy as np
import pandas as pd

from usermirror_gym.data import RecDataset, TimeSplit, time_cut

_GENRES = (("Action", "Thriller", "War"), ("Romance", "Drama", "Musical"))
_OCCUPATIONS = ("student", "educator", "engineer", "artist")
_START = 900_000_000  # seconds; a plausible epoch for films of the nineties


def tiny_split(n_users: int = 30, n_items: int = 40, seed: int = 0) -> TimeSplit:
    """Films and users of two taste groups, cut at 80 % of the interactions.

    Odd users prefer the first half of the films, even users the second half (nine choices of
    ten); within a half the first films are the most popular.  Every tenth user appears only
    after T0, and the last film has no interaction before T0.

    Args:
        n_users: at least 10.
        n_items: at least 20.
        seed: same seed, same data.
    """
    rng = np.random.default_rng(seed)
    data = RecDataset.from_tables(
        "tiny",
        "movie",
        users=_users(n_users, rng),
        items=_items(n_items),
        interactions=_interactions(n_users, n_items, rng),
    )
    return time_cut(data, 0.8)


def _users(n: int, rng: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": [f"u{i}" for i in range(1, n + 1)],
            "age": pd.array(rng.integers(18, 60, n), dtype="Int64"),
            "gender": rng.choice(["F", "M"], n),
            "occupation": rng.choice(_OCCUPATIONS, n),
            "zip_code": [f"{z:05d}" for z in rng.integers(10_000, 99_999, n)],
        }
    )


def _items(n: int) -> pd.DataFrame:
    halves = [_half(i, n) for i in range(n)]
    return pd.DataFrame(
        {
            "item_id": [f"i{i}" for i in range(1, n + 1)],
            "title": [f"Film {i}" for i in range(1, n + 1)],
            "year": pd.array([1980 + i % 18 for i in range(n)], dtype="Int64"),
            "genres": [
                f"{_GENRES[half][0]}, {_GENRES[half][1 + i % 2]}" for i, half in enumerate(halves)
            ],
        }
    )


def _half(item: int, n_items: int) -> int:
    return 0 if item < n_items // 2 else 1


def _interactions(n_users: int, n_items: int, rng: np.random.Generator) -> pd.DataFrame:
    per_user = max(8, n_items // 3)
    rows = []
    for user in range(1, n_users + 1):
        late = user % 10 == 0
        weights = _taste(user % 2, n_items, with_last=late)
        items = rng.choice(n_items, per_user, replace=False, p=weights)
        times = np.sort(rng.random(per_user)) * 0.1 + 0.9 if late else rng.random(per_user)
        if not late:
            times = np.sort(times) * 0.95
        liked = np.array([_half(i, n_items) == (user + 1) % 2 for i in items])
        ratings = np.clip(np.where(liked, 4, 2) + rng.integers(-1, 2, per_user), 1, 5)
        rows += [
            (f"u{user}", f"i{item + 1}", _START + int(t * 10_000_000), rating)
            for item, t, rating in zip(items, times, ratings, strict=True)
        ]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "rating"])


def _taste(group: int, n_items: int, *, with_last: bool) -> np.ndarray:
    """Choice weights of one user; ``group`` 1 likes the first half."""
    half = n_items // 2
    rank = np.where(np.arange(n_items) < half, np.arange(n_items), np.arange(n_items) - half)
    weights = 1.0 / (rank + 3.0)
    first = np.arange(n_items) < half
    weights *= np.where(first == bool(group), 0.9, 0.1)
    if not with_last:
        weights[-1] = 0.0
    return weights / weights.sum()
