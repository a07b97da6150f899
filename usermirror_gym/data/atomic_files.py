"""RecBole's atomic files: a data set in the form that RecBole and its relatives read.

One table each, separated by tabs, whose header says ``field:type`` (Zhao et al., RecBole, CIKM
2021): ``NAME.inter``, ``NAME.item``, ``NAME.user`` in a folder that is called NAME, too.
RecBole reads them with ``dataset=NAME`` and ``data_path=<the folder's parent>``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from usermirror_gym.data.dataset import RecDataset
from usermirror_gym.errors import DataError
from usermirror_gym.files import write_bytes
from usermirror_gym.types import ITEM_ID, RATING, TIMESTAMP, TITLE, TOKEN, USER_ID

_READ_AS_MISSING = {
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
}  # fmt: skip
"""What pandas, with which RecBole reads, takes for a gap."""


def write_atomic_files(folder: Path, dataset: RecDataset, interactions: pd.DataFrame) -> list[Path]:
    """Write the three files of a data set; returns them.

    Ids are those of the raw log, not ours.  Times are seconds; RecBole keeps them as float32, which
    tells moments of our decades only 64 seconds apart, but sorts stably, and the rows are written
    in order of time.

    Args:
        folder: its name becomes the name of the data set.
        interactions: ``user_id, item_id, timestamp`` and ``rating`` in our ids, sorted by time;
            ratings are left out if there are none at all.

    Raises:
        DataError: an id that would be read as something else.
    """
    users = _ids(dataset.users[TOKEN], USER_ID)
    items = _ids(dataset.items[TOKEN], ITEM_ID)
    events = {
        "user_id:token": [users[u - 1] for u in interactions[USER_ID]],
        "item_id:token": [items[i - 1] for i in interactions[ITEM_ID]],
    }
    if interactions[RATING].notna().any():
        events[f"{RATING}:float"] = _numbers(interactions[RATING])
    events[f"{TIMESTAMP}:float"] = _numbers(interactions[TIMESTAMP])
    taken = {USER_ID, ITEM_ID, RATING, TIMESTAMP}
    tables = {
        "inter": events,
        "item": {"item_id:token": items, **_features(dataset.items, "item", taken)},
        "user": {"user_id:token": users, **_features(dataset.users, "user", taken)},
    }
    return [_write(folder / f"{folder.name}.{kind}", table) for kind, table in tables.items()]


def _ids(tokens: pd.Series, what: str) -> list[str]:
    ids = [str(token) for token in tokens]
    for token in ids:
        if token != _line(token) or token in _READ_AS_MISSING:
            raise DataError(
                f"{what} {token!r} cannot stand in an atomic file, where it would be read as "
                "something else: give it a plain name in the raw data"
            )
    return ids


def _features(table: pd.DataFrame, kind: str, taken: set[str]) -> dict[str, list[str]]:
    """Columns by ``field:type``; ``taken`` are names of fields, to which these are added."""
    found = {}
    for column in table.columns.drop(TOKEN):
        name = re.sub(r"\W+", "_", str(column))
        while name in taken:  # RecBole wants one type per name, whatever the file
            name = f"{kind}_{name}"
        taken.add(name)
        values = table[column]
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            found[f"{name}:float"] = _numbers(values)
        elif column == TITLE:
            found[f"{name}:token_seq"] = _texts(values)
        elif values.astype("string").str.contains(", ", regex=False).any():
            found[f"{name}:token_seq"] = _texts(_set(values))
        else:
            found[f"{name}:token"] = _texts(values)
    return found


def _set(values: pd.Series) -> Iterable[object]:
    """``Action, Short story`` as ``Action Short_story``: a space is between two tokens."""
    for value in values:
        parts = [] if pd.isna(value) else str(value).split(", ")
        yield " ".join("_".join(part.split()) for part in parts)


def _texts(values: Iterable[object]) -> list[str]:
    lines = ["" if pd.isna(value) else _line(str(value)) for value in values]  # type: ignore[call-overload]
    return [f"{line}_" if line and line in _READ_AS_MISSING else line for line in lines]


def _line(text: str) -> str:
    """Foreign text in one cell: no control characters, and no quotes, which would open one."""
    shown = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs"))
    return " ".join(shown.replace('"', "'").split())


def _numbers(values: pd.Series) -> list[str]:
    return ["" if pd.isna(value) else f"{value:.15g}" for value in values]


def _write(path: Path, table: dict[str, list[str]]) -> Path:
    rows = ["\t".join(table), *map("\t".join, zip(*table.values(), strict=True))]
    return write_bytes(path, ("\n".join(rows) + "\n").encode("utf-8"))
