"""What both MovieLens sources share: titles, genres and the coded profile fields.

Source: the READMEs of the data sets (Harper & Konstan, ACM TiiS 5(4):19, 2015).
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from usermirror_gym.errors import DataError

_ARTICLE = re.compile(r"^(?P<rest>.+), (?P<article>The|A|An|Les|La|Le|L'|Il|Das|Der|Die|El)\b(?P<end>.*)$")
_YEAR = re.compile(r"\s*\((?P<year>\d{4})\)\s*$")


def natural_title(title: str) -> str:
    """``"Birdcage, The"`` -> ``"The Birdcage"``; anything else is returned as it is."""
    match = _ARTICLE.match(title)
    if match is None:
        return title
    article = match["article"]
    return f"{article}{'' if article.endswith(chr(39)) else ' '}{match['rest']}{match['end']}"


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
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    rows = [line.split(sep) for line in text.splitlines()[1 if header else 0 :] if line]
    for number, row in enumerate(rows, start=2 if header else 1):
        if len(row) != len(names):
            raise DataError(f"{path}, line {number}: {len(row)} fields, expected {len(names)} ({names})")
    return pd.DataFrame(rows, columns=pd.Index(names), dtype=str)
