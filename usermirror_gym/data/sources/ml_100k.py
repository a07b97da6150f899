"""MovieLens-100K, as RecBole's wheel carries it (atomic files) -- no download needed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pandas as pd

from usermirror_gym.data.dataset import RecDataset
from usermirror_gym.data.sources.movielens import natural_title, read_delimited
from usermirror_gym.errors import DataError, MissingDependencyError

_FILES = {
    "user": ["user_id", "age", "gender", "occupation", "zip_code"],
    "item": ["item_id", "title", "year", "genres"],
    "inter": ["user_id", "item_id", "rating", "timestamp"],
}


def load(folder: Path | None = None) -> RecDataset:
    """Load ml-100k from ``folder`` (RecBole atomic files), or from the installed RecBole."""
    folder = folder or _recbole_folder()
    tables = {
        kind: read_delimited(folder / f"ml-100k.{kind}", sep="\t", names=names, header=True)
        for kind, names in _FILES.items()
    }
    ages = pd.to_numeric(tables["user"]["age"], errors="coerce")
    users = tables["user"].assign(age=ages.astype("Int64"))
    items = tables["item"]
    # One entry of the published data, item 267, has no film behind it; the wheel spells it so.
    nameless = items["title"].isin(["unkonwn", "unknown"])
    items = items.assign(
        title=items["title"].mask(nameless, "").map(natural_title),
        year=pd.to_numeric(items["year"], errors="coerce").astype("Int64"),
        genres=items["genres"].replace("unknown", "").str.replace(" ", ", "),
    )
    return RecDataset.from_tables(
        "ml-100k", "movie", users=users, items=items, interactions=tables["inter"]
    )


def _recbole_folder() -> Path:
    # find_spec does not import RecBole, which would load torch.
    spec = importlib.util.find_spec("recbole")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError("recbole", "dev")
    folder = Path(spec.submodule_search_locations[0]) / "dataset_example" / "ml-100k"
    if not folder.is_dir():
        raise DataError(f"this RecBole carries no ml-100k at {folder}; install recbole==1.2.0")
    return folder
