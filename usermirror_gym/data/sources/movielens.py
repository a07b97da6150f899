"""What both MovieLens sources share: titles, genres and the form of the files.

Source: the READMEs of the data sets (Harper & Konstan, ACM TiiS 5(4):19, 2015).
"""

from __future__ import annotations

import importlib.util
import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from usermirror_gym.data.raw.raw_files import ReadLog, byte_lines, find_file, has_file
from usermirror_gym.data.sources.base import Download, Limits, Source, Tables, apply_limits
from usermirror_gym.errors import DataError, MissingDependencyError
from usermirror_gym.types import AVAILABLE_FROM, USER_ID

_ARTICLES = "The|A|An|Les|La|Le|L'|Un|Une|Il|Lo|Gli|I|Das|Der|Die|Den|Det|El|Los|Las|O"
# An article counts only at the end of the title or of a bracket: "Hate (Haine, La)".
_ARTICLE = re.compile(
    rf"(?P<start>^|\()(?P<rest>[^()]+), (?P<article>{_ARTICLES})(?=\s*(?:[()]|$))"
)
_YEAR = re.compile(r"\s*\((?P<year>\d{4})\)\s*$")


def natural_title(title: str) -> str:
    """Move articles to the front: ``"Birdcage, The"`` -> ``"The Birdcage"``.

    A foreign title in brackets is treated alike: ``"Hate (Haine, La)"`` -> ``"Hate (La Haine)"``.
    """
    return _ARTICLE.sub(_article_first, title)


def _article_first(match: re.Match[str]) -> str:
    article = match["article"]
    space = "" if article.endswith("'") else " "
    return f"{match['start']}{article}{space}{match['rest']}"


def split_year(titles: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Split ``"Toy Story (1995)"`` into titles and nullable integer years."""
    years = titles.str.extract(_YEAR, expand=False)
    return titles.str.replace(_YEAR, "", regex=True), years.astype("Int64")


def start_of_year(years: pd.Series) -> pd.Series:
    """``(n,)`` nullable integer seconds of 1 January UTC; negative before 1970.

    The earliest moment at which a film can have been on offer: the files tell no more than the
    year of its release.
    """
    known = years.fillna(1970).to_numpy(np.int64) - 1970
    seconds = known.astype("datetime64[Y]").astype("datetime64[s]").astype(np.int64)
    return pd.Series(seconds, years.index, "Int64").mask(years.isna())


def read_delimited(
    folder: Path, name: str, log: ReadLog, *, sep: str, names: list[str], header: bool = False
) -> pd.DataFrame:
    """Read a latin-1 or UTF-8 table as strings.

    These small files are published without a single bad line, so a line that does not fit means
    that the file is damaged: an error, not a repair.

    Raises:
        DataError: the file is absent, or a line has another number of fields than ``names``;
            names the file and the line.
    """
    path = find_file(folder, name)
    raw = b"\n".join(line or b"" for _, line in byte_lines(path, log))
    try:
        lines = raw.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        lines = raw.decode("latin-1").split("\n")
    rows = []
    for number, line in enumerate(lines[header:], start=1 + header):
        if not line:
            continue
        row = line.split(sep)
        if len(row) != len(names):
            raise DataError(
                f"{path}, line {number}: {len(row)} fields, expected {len(names)} ({names})"
            )
        rows.append(row)
    return pd.DataFrame(rows, columns=pd.Index(names), dtype=str)


_AGES = {1: 17, 18: 21, 25: 30, 35: 40, 45: 47, 50: 53, 56: 60}
"""The published code of an age group -> an age inside it, so that both sets share one column."""

_OCCUPATIONS = (
    "other", "educator", "artist", "administrator", "student", "customer service", "doctor",
    "executive", "farmer", "homemaker", "student", "lawyer", "programmer", "retired", "salesman",
    "scientist", "self-employed", "technician", "craftsman", "none", "writer",
)  # fmt: skip


class _MovieLens(Source):
    domain = "movie"
    terms = (
        "Research use with acknowledgement; no redistribution without separate permission, no "
        "commercial use."
    )
    citation = (
        "F. M. Harper, J. A. Konstan, The MovieLens Datasets: History and Context, "
        "ACM TiiS 5(4):19, 2015."
    )


class ML1M(_MovieLens):
    """Films and their ratings.

    Items: ``title, year, genres`` and ``available_from`` (1 January of the year).  Interactions:
    ``rating`` (1 - 5).  Users: ``gender, age, occupation, zip_code``; users without ratings are
    left out, films without ratings are not.

    The paper shows the place that a zip code belongs to.  None of this project's dependencies
    carries such a table, so the profile goes without it.
    """

    name = "ml-1m"
    title = "MovieLens-1M"
    homepage = "https://grouplens.org/datasets/movielens/1m/"
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

    def read(self, folder: Path, log: ReadLog, limits: Limits) -> Tables:
        read = partial(read_delimited, folder, log=log, sep="::")
        ratings = read("ratings.dat", names=[USER_ID, "item_id", "rating", "timestamp"])
        users = read("users.dat", names=[USER_ID, "gender", "age", "occupation", "zip_code"])
        movies = read("movies.dat", names=["item_id", "title", "genres"])
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


def _decode(codes: pd.Series, table: dict, path: Path) -> pd.Series:
    values = pd.to_numeric(codes, errors="coerce").map(table)
    if values.isna().any():
        raise DataError(
            f"{path}: unknown code {codes[values.isna()].iloc[0]!r}; known: {list(table)}"
        )
    return values


_RATING = [USER_ID, "item_id", "rating", "timestamp"]
_USER = [USER_ID, "age", "gender", "occupation", "zip_code"]
_ITEM = ["item_id", "title", "year", "genres"]
_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip
"""In the order of the flags in ``u.item``."""


class ML100K(_MovieLens):
    """Films and their ratings, from the installed RecBole or from a folder.

    The folder may hold the published files (``u.data, u.item, u.user``) or RecBole's
    (``ml-100k.inter, .item, .user``); both give the same data set, but for the year of film 1412,
    which RecBole's files have lost.

    Items: ``title, year, genres`` and ``available_from`` (1 January of the year).  Interactions:
    ``rating`` (1 - 5).  Users: ``age, gender, occupation, zip_code``.  Places are left out, see
    :class:`ML1M`.
    """

    name = "ml-100k"
    title = "MovieLens-100K"
    homepage = "https://grouplens.org/datasets/movielens/100k/"
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
