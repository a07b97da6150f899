"""What both MovieLens sources share: titles, genres and the coded profile fields.

Source: the READMEs of the data sets (Harper & Konstan, ACM TiiS 5(4):19, 2015).
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pandas as pd

from usermirror_gym.errors import DataError

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


def read_delimited(path: Path, *, sep: str, names: list[str], header: bool) -> pd.DataFrame:
    """Read a latin-1 or UTF-8 table as strings, with an error that names the file and the line.

    Raises:
        DataError: the file is absent, or a line has another number of fields than ``names``.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}. The folder must hold the files as published."
        ) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    # Not splitlines(): it also splits at control characters that a title may hold.
    lines = enumerate(text.split("\n"), start=1)
    rows = []
    for number, line in itertools.islice(lines, 1 if header else 0, None):
        row = line.rstrip("\r").split(sep)
        if row == [""]:
            continue
        if len(row) != len(names):
            raise DataError(
                f"{path}, line {number}: {len(row)} fields, expected {len(names)} ({names})"
            )
        rows.append(row)
    return pd.DataFrame(rows, columns=pd.Index(names), dtype=str)
