"""MovieLens-1M: a million ratings of 3,706 films by 6,040 users, 2000 to 2003."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from usermirror_gym.data.raw.read_log import ReadLog
from usermirror_gym.data.sources.base import Download, Limits, Source, Tables, apply_limits
from usermirror_gym.data.sources.movielens import (
    CITATION,
    TERMS,
    natural_title,
    read_delimited,
    split_year,
    start_of_year,
)
from usermirror_gym.errors import DataError
from usermirror_gym.types import AVAILABLE_FROM, USER_ID

_AGES = {1: 17, 18: 21, 25: 30, 35: 40, 45: 47, 50: 53, 56: 60}
"""The published code of an age group -> an age inside it, so that both sets share one column."""

_OCCUPATIONS = (
    "other", "educator", "artist", "administrator", "student", "customer service", "doctor",
    "executive", "farmer", "homemaker", "student", "lawyer", "programmer", "retired", "salesman",
    "scientist", "self-employed", "technician", "craftsman", "none", "writer",
)  # fmt: skip


class ML1M(Source):
    """Films and their ratings.

    Items: ``title, year, genres`` and ``available_from`` (1 January of the year).  Interactions:
    ``rating`` (1 - 5).  Users: ``gender, age, occupation, zip_code``; users without ratings are
    left out, films without ratings are not.

    The paper shows the place that a zip code belongs to.  None of this project's dependencies
    carries such a table, so the profile goes without it.
    """

    name = "ml-1m"
    domain = "movie"
    title = "MovieLens-1M"
    homepage = "https://grouplens.org/datasets/movielens/1m/"
    terms = TERMS
    citation = CITATION
    files = ("ratings.dat", "users.dat", "movies.dat")
    downloads = (
        Download(
            "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
            tuple(f"ml-1m/{name}" for name in files),
            md5="c4d9eecfca2ab87c1945afe126590906",
        ),
    )
    how_to_get = "Unpack ml-1m.zip from the home page."
    # UserMirrorer, DataProcessor_ML1M: users of at least 5 ratings; all published ones have 20.
    limits = Limits()

    def read(self, folder: Path | None, log: ReadLog, limits: Limits) -> Tables:
        """See :meth:`Source.read`.

        Raises:
            DataError: no folder given, a file is missing, or a line is malformed.
        """
        folder = self.data_folder(folder)
        ratings = _read(folder, "ratings", log, [USER_ID, "item_id", "rating", "timestamp"])
        users = _read(folder, "users", log, [USER_ID, "gender", "age", "occupation", "zip_code"])
        movies = _read(folder, "movies", log, ["item_id", "title", "genres"])
        ratings = apply_limits(ratings, limits)
        users = users[users[USER_ID].isin(ratings[USER_ID])].assign(
            age=lambda t: _decode(t["age"], _AGES, folder / "users.dat").astype("Int64"),
            occupation=lambda t: _decode(
                t["occupation"], dict(enumerate(_OCCUPATIONS)), folder / "users.dat"
            ),
        )
        titles, years = split_year(movies["title"])
        genres = movies["genres"].str.replace("|", ", ")
        movies = movies.assign(
            title=titles.map(natural_title),
            year=years,
            genres=genres,
            **{AVAILABLE_FROM: start_of_year(years)},
        )
        return Tables(users, movies, ratings)


def _read(folder: Path, name: str, log: ReadLog, columns: list[str]) -> pd.DataFrame:
    return read_delimited(folder, f"{name}.dat", log, sep="::", names=columns)


def _decode(codes: pd.Series, table: dict, path: Path) -> pd.Series:
    values = pd.to_numeric(codes, errors="coerce").map(table)
    if values.isna().any():
        raise DataError(
            f"{path}: unknown code {codes[values.isna()].iloc[0]!r}; known: {list(table)}"
        )
    return values
