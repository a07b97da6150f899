"""MovieLens-100K: no download needed, RecBole's wheel carries it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pandas as pd

from usermirror_gym.data.raw.raw_files import has_file
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
from usermirror_gym.errors import DataError, MissingDependencyError
from usermirror_gym.types import AVAILABLE_FROM, USER_ID

_RATING = [USER_ID, "item_id", "rating", "timestamp"]
_USER = [USER_ID, "age", "gender", "occupation", "zip_code"]
_ITEM = ["item_id", "title", "year", "genres"]
_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip
"""In the order of the flags in ``u.item``."""


class ML100K(Source):
    """Films and their ratings, from the installed RecBole or from a folder.

    The folder may hold the published files (``u.data, u.item, u.user``) or RecBole's
    (``ml-100k.inter, .item, .user``); both give the same data set, but for the year of film 1412,
    which RecBole's files have lost.

    Items: ``title, year, genres`` and ``available_from`` (1 January of the year).  Interactions:
    ``rating`` (1 - 5).  Users: ``age, gender, occupation, zip_code``.  Places are left out, see
    :class:`~.ml_1m.ML1M`.
    """

    name = "ml-100k"
    domain = "movie"
    title = "MovieLens-100K"
    homepage = "https://grouplens.org/datasets/movielens/100k/"
    terms = TERMS
    citation = CITATION
    files = ("u.data", "u.item", "u.user")
    downloads = (
        Download(
            "https://files.grouplens.org/datasets/movielens/ml-100k.zip",
            tuple(f"ml-100k/{name}" for name in files),
            md5="0e33842e24a9c977be4e0107933c0723",
        ),
    )
    how_to_get = "RecBole's wheel carries it: no files are needed."
    included = True

    def read(self, folder: Path | None, log: ReadLog, limits: Limits) -> Tables:
        """See :meth:`Source.read`; without a folder, RecBole's files."""
        folder = folder or _recbole_folder()
        atomic = has_file(folder, "ml-100k.inter") and not has_file(folder, "u.data")
        tables = (_read_atomic if atomic else _read_published)(folder, log)
        ages = pd.to_numeric(tables.users["age"], errors="coerce")
        items = tables.items
        return Tables(
            tables.users.assign(age=ages.astype("Int64")),
            items.assign(
                title=items["title"].map(natural_title),
                **{AVAILABLE_FROM: start_of_year(items["year"])},
            ),
            apply_limits(tables.interactions, limits),
        )


def _read_published(folder: Path, log: ReadLog) -> Tables:
    ratings = read_delimited(folder, "u.data", log, sep="\t", names=_RATING)
    users = read_delimited(folder, "u.user", log, sep="|", names=_USER)
    columns = ["item_id", "title", "released", "video", "url", *_GENRES]
    films = read_delimited(folder, "u.item", log, sep="|", names=columns)
    titles, years = split_year(films["title"].str.removesuffix(" (V)"))  # V: a video, film 1412
    genres = [
        ", ".join(name for name, flag in zip(_GENRES[1:], flags, strict=True) if flag == "1")
        for flags in films[list(_GENRES[1:])].itertuples(index=False)
    ]
    nameless = titles == "unknown"
    films = pd.DataFrame(
        {
            "item_id": films["item_id"],
            "title": titles.mask(nameless, ""),
            "year": years,
            "genres": genres,
        }
    )
    return Tables(users, films, ratings)


def _read_atomic(folder: Path, log: ReadLog) -> Tables:
    users, films, ratings = (
        read_delimited(folder, f"ml-100k.{kind}", log, sep="\t", names=names, header=True)
        for kind, names in (("user", _USER), ("item", _ITEM), ("inter", _RATING))
    )
    # One entry of the published data, item 267, has no film behind it; the wheel spells it so.
    nameless = films["title"].isin(["unkonwn", "unknown"])
    films = films.assign(
        title=films["title"].mask(nameless, ""),
        year=pd.to_numeric(films["year"], errors="coerce").astype("Int64"),
        genres=films["genres"].replace("unknown", "").str.replace(" ", ", "),
    )
    return Tables(users, films, ratings)


def _recbole_folder() -> Path:
    # find_spec does not import RecBole, which would load torch.
    spec = importlib.util.find_spec("recbole")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError("recbole", "dev")
    folder = Path(spec.submodule_search_locations[0]) / "dataset_example" / "ml-100k"
    if not folder.is_dir():
        raise DataError(f"this RecBole carries no ml-100k at {folder}; install recbole==1.2.0")
    return folder
