"""MovieLens-1M from a folder that holds ratings.dat, users.dat and movies.dat as published."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from usermirror_gym.data.dataset import RecDataset
from usermirror_gym.data.sources.movielens import natural_title, read_delimited, split_year
from usermirror_gym.errors import DataError

_AGES = {1: 17, 18: 21, 25: 30, 35: 40, 45: 47, 50: 53, 56: 60}
"""The published code of an age group -> an age inside it, so that both sets share one column."""

_OCCUPATIONS = (
    "other", "educator", "artist", "administrator", "student", "customer service", "doctor",
    "executive", "farmer", "homemaker", "student", "lawyer", "programmer", "retired", "salesman",
    "scientist", "self-employed", "technician", "craftsman", "none", "writer",
)  # fmt: skip


def load(folder: Path | None = None) -> RecDataset:
    """Load ml-1m from ``folder``; users without ratings are left out.

    Raises:
        DataError: no folder given, a file is missing, or a line is malformed.
    """
    if folder is None:
        raise DataError(
            "ml-1m needs the folder that holds ratings.dat, users.dat and movies.dat "
            "(--data-folder, or folder= in load_dataset)"
        )
    ratings = _read(folder, "ratings", ["user_id", "item_id", "rating", "timestamp"])
    users = _read(folder, "users", ["user_id", "gender", "age", "occupation", "zip_code"])
    movies = _read(folder, "movies", ["item_id", "title", "genres"])
    users = users[users["user_id"].isin(ratings["user_id"])].assign(
        age=lambda t: _decode(t["age"], _AGES, folder / "users.dat").astype("Int64"),
        occupation=lambda t: _decode(
            t["occupation"], dict(enumerate(_OCCUPATIONS)), folder / "users.dat"
        ),
    )
    titles, years = split_year(movies["title"])
    movies = movies.assign(
        title=titles.map(natural_title), year=years, genres=movies["genres"].str.replace("|", ", ")
    )
    return RecDataset.from_tables("ml-1m", "movie", users=users, items=movies, interactions=ratings)


def _read(folder: Path, name: str, columns: list[str]) -> pd.DataFrame:
    return read_delimited(folder / f"{name}.dat", sep="::", names=columns, header=False)


def _decode(codes: pd.Series, table: dict, path: Path) -> pd.Series:
    values = pd.to_numeric(codes, errors="coerce").map(table)
    if values.isna().any():
        raise DataError(
            f"{path}: unknown code {codes[values.isna()].iloc[0]!r}; known: {list(table)}"
        )
    return values
