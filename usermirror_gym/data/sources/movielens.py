"""What both MovieLens sources share: titles, genres and the form of the files.

Source: the READMEs of the data sets (Harper & Konstan, ACM TiiS 5(4):19, 2015).
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd

from usermirror_gym.data.raw.raw_files import byte_lines, find_file
from usermirror_gym.data.raw.read_log import ReadLog
from usermirror_gym.errors import DataError

TERMS = (
    "Research use with acknowledgement; no redistribution without separate permission, no "
    "commercial use."
)
CITATION = (
    "F. M. Harper, J. A. Konstan, The MovieLens Datasets: History and Context, "
    "ACM TiiS 5(4):19, 2015."
)

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
    raw = [line for _, line in byte_lines(path, log)]
    try:
        lines = [None if line is None else line.decode("utf-8") for line in raw]
    except UnicodeDecodeError:
        lines = [None if line is None else line.decode("latin-1") for line in raw]
    rows = []
    for number, line in itertools.islice(enumerate(lines, start=1), 1 if header else 0, None):
        if not line:
            continue
        row = line.split(sep)
        if len(row) != len(names):
            raise DataError(
                f"{path}, line {number}: {len(row)} fields, expected {len(names)} ({names})"
            )
        rows.append(row)
    return pd.DataFrame(rows, columns=pd.Index(names), dtype=str)
