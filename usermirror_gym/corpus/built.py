"""A finished build folder, read back; what is missing or damaged is an error that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from usermirror_gym.data import RecDataset, TimeSplit
from usermirror_gym.data.store import read_dataset
from usermirror_gym.errors import RunError
from usermirror_gym.files import load_arrays, read_json, read_parquet, sha256
from usermirror_gym.scenes.table import KINDS, SCHEMA, SPLITS

WORDS = ("profile", "history_texts", "options")
_ONE_LENGTH = (
    ("history", "ratings", "ages", "behaviours", "history_texts"),
    ("slate", "samplers", "notes", "options"),
)


@dataclass(frozen=True)
class BuiltSource:
    """One data set of a build."""

    name: str
    folder: Path
    t0: int
    t_validation: int
    facts: Mapping[str, Any]
    """The source's entry of the manifest."""

    @cached_property
    def dataset(self) -> RecDataset:
        """What the scenes were made from."""
        return read_dataset(self.folder / "tables" / self.name)

    @property
    def split(self) -> TimeSplit:
        """The data set cut where the build says."""
        return TimeSplit(self.dataset, self.t0)

    @cached_property
    def rankers(self) -> dict[str, np.ndarray]:
        """See :func:`read_rankers`."""
        return read_rankers(self.folder / "rankers" / f"{self.name}.npz")

    def scenes(self, split: str) -> pa.Table:
        """The scenes of a split; an empty table if it has none."""
        path = self.folder / "scenes" / split / f"{self.name}.parquet"
        return _read_scenes(path) if path.exists() else SCHEMA.empty_table()

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Scenes of all splits without their words; ``folder`` names the split they lay in."""
        frames = [
            self.scenes(split).drop_columns(list(WORDS)).to_pandas().assign(folder=split)
            for split in SPLITS
        ]
        return pd.concat(frames, ignore_index=True)


@dataclass(frozen=True)
class Build:
    """A build folder and its manifest."""

    folder: Path
    manifest: Mapping[str, Any]
    sources: tuple[BuiltSource, ...]

    def changed_files(self) -> list[str]:
        """Outputs whose content is not what the manifest says."""
        return [
            path for path, checksum in self.manifest["outputs"].items()
            if sha256(self.folder / path) != checksum
        ]  # fmt: skip

    def unlisted_files(self) -> list[str]:
        """Files of scenes, tables and rankers that the manifest does not know."""
        found = {
            path.relative_to(self.folder).as_posix()
            for part in ("scenes", "tables", "rankers")
            for path in (self.folder / part).rglob("*")
            if path.is_file()
        }
        return sorted(found - set(self.manifest["outputs"]))


def read_build(folder: str | Path) -> Build:
    """Open a build folder.

    Raises:
        RunError: there is no manifest, it lacks something, or files it names are missing.
    """
    folder = Path(folder)
    if not (folder / "manifest.json").is_file():
        raise RunError(
            f"{folder} holds no finished build (no manifest.json). Run the build to its end, or "
            "name another folder."
        )
    manifest = read_json(folder / "manifest.json")
    for name in ("sources", "outputs"):
        if not isinstance(manifest, dict) or not isinstance(manifest.get(name), dict):
            raise RunError(f"{folder / 'manifest.json'} has no {name!r}; build the data again")
    if missing := [path for path in manifest["outputs"] if not (folder / path).is_file()]:
        raise RunError(
            f"{folder} is incomplete: {len(missing)} of {len(manifest['outputs'])} files that its "
            f"manifest names are missing ({', '.join(missing[:3])}); build the data again"
        )
    if not manifest["sources"]:
        raise RunError(f"{folder / 'manifest.json'} names no source; build the data again")
    sources = []
    for name, facts in manifest["sources"].items():
        for key in ("t0", "t_validation"):
            if not isinstance(facts, dict) or not isinstance(facts.get(key), int):
                raise RunError(
                    f"{folder / 'manifest.json'}: source {name!r} has no whole number {key!r}; "
                    "build the data again"
                )
        sources.append(BuiltSource(name, folder, facts["t0"], facts["t_validation"], facts))
    return Build(folder, manifest, tuple(sources))


def read_rankers(path: Path) -> dict[str, np.ndarray]:
    """The arrays of ``rankers/<source>.npz`` by name.

    They are popularity and fitted_before, and collaborative and embedding where they were used.

    Raises:
        RunError: the file cannot be read, or lacks one of the first two.
    """
    return load_arrays(path, "popularity", "fitted_before", cure="Build the data again.")


def _read_scenes(path: Path) -> pa.Table:
    table = read_parquet(path, cure="Build the data again.")
    if not table.schema.equals(SCHEMA):
        found = {field.name: field for field in table.schema}
        wrong = [f.name for f in SCHEMA if f.name not in found or not f.equals(found[f.name])]
        raise RunError(
            f"{path} does not have the columns of a scenes file (look at "
            f"{', '.join(wrong) or 'their order and number'}); build the data again"
        )
    _check_form(table, path)
    return table


def _check_form(table: pa.Table, path: Path) -> None:
    """Raise for a row whose values do not fit each other; checks need not think of it then."""
    wrong = np.zeros(table.num_rows, np.bool_)
    for name in table.column_names:
        wrong |= table[name].is_null().to_numpy()
    sizes = {}

    def lengths(name: str) -> np.ndarray:
        return pc.list_value_length(table[name]).fill_null(-1).to_numpy()

    for first, *others in _ONE_LENGTH:
        sizes[first] = lengths(first)
        for other in others:
            wrong |= lengths(other) != sizes[first]
    target = table["target"].to_numpy()
    wrong |= (target < 0) | (target > sizes["slate"]) | (sizes["slate"] == 0)
    wrong |= ~np.isin(table["kind"].to_pylist(), KINDS)
    wrong |= ~np.isin(table["split"].to_pylist(), SPLITS)
    if wrong.any():
        name = table["scene_id"][int(np.flatnonzero(wrong)[0])]
        raise RunError(
            f"{path}: {int(wrong.sum())} scenes are damaged (an empty value, lists of different "
            f"lengths, a target outside the list, an unknown kind or split), the first is {name}; "
            "build the data again"
        )
