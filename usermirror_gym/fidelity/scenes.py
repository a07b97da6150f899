"""The real choices that a fidelity card is about: from a build, or drawn for a data set by name."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

import usermirror_gym
from usermirror_gym.configs import preset_names
from usermirror_gym.corpus.built import BuiltSource, read_build
from usermirror_gym.corpus.config import BuildConfig, SourceSettings, read_config
from usermirror_gym.corpus.scene_stage import SceneStage
from usermirror_gym.data import SOURCES, TimeSplit
from usermirror_gym.data.raw.reading import find_file
from usermirror_gym.data.sources import find_folder, get_source
from usermirror_gym.data.sources.custom import CustomSource
from usermirror_gym.engines.checkpoints import cache_folder
from usermirror_gym.errors import ConfigError, RunError, UnknownNameError
from usermirror_gym.progress import Display
from usermirror_gym.run_folder import locked
from usermirror_gym.types import ITEM_ID, TIMESTAMP, USER_ID

BALANCE_REFUSED = (
    "the lists of {name} are there already: leave balance out, it is for lists that are drawn for "
    "a data set"
)
_SPARE = 1.05
"""More scenes than asked for: how many of them lack the true item is a matter of chance."""


@dataclass(frozen=True)
class CardScenes:
    """Scenes of one source, as tables of :data:`usermirror_gym.scenes.table.SCHEMA`.

    Attributes:
        source: the data set, or what else they come from.
        split: the data behind them, cut at T0; ``None`` where there are only texts.
        train, validation: before T0, for baselines that are fitted; may be empty.
        evaluation: at or after T0, in random order; a shorter card's are the first of a longer's.
    """

    source: str
    split: TimeSplit | None
    train: pa.Table
    validation: pa.Table
    evaluation: pa.Table


def find_scenes(
    name: str,
    *,
    count: int,
    seed: int = 0,
    source: str | None = None,
    balance: str | None = None,
    display: Display,
) -> CardScenes:
    """Scenes by name.

    Args:
        name: the folder of a finished build, or a data set: a preset of ``configs/data``, another
            name of :data:`usermirror_gym.data.SOURCES`, ``amazon:<Category>`` or a YAML file.
            The scenes of a data set are drawn as its preset says and kept in the cache folder.
        count: most evaluation scenes that hold the true item; those without it come on top, in
            the proportion of the source.
        seed: of the drawing; a build has its own.
        source: which data set of a build that has several.
        balance: ``"popularity"`` or ``"none"``, instead of what the preset of a data set says; see
            :attr:`usermirror_gym.scenes.ScenePlan.balance`.
        display: says what is going on.

    Raises:
        UnknownNameError: no such data set, preset or source; suggests the nearest.
        RunError: a build that is not finished or damaged, or whose scenes are on the wrong side of
            T0 or name users and items that its data do not have.
        ConfigError: a build with several sources and none is named, without evaluation scenes, or
            whose lists cannot be balanced any more.
    """
    if count < 1:
        raise ConfigError(f"count must be at least 1, got {count}")
    if Path(name).is_dir():
        if balance is not None:
            raise ConfigError(BALANCE_REFUSED.format(name=name))
        built = _source_of_build(Path(name), source)
    else:
        built = _drawn(_config(name, count, seed, balance), display)
    evaluation = first_scenes(built.scenes("eval"), count)
    if not len(evaluation):
        raise ConfigError(f"{name} has no evaluation scenes: build it with scenes.eval above 0")
    for table, after in ((built.scenes("train"), False), (built.scenes("validation"), False),
                         (evaluation, True)):  # fmt: skip
        _check_scenes(table, built.split, after=after, where=name)
    held = int(has_true_item(evaluation).sum())
    if held < count:
        display.say(f"{name}: {held:,} evaluation scenes with the true item, not {count:,}")
    return CardScenes(
        built.name, built.split, built.scenes("train"), built.scenes("validation"), evaluation
    )


def has_true_item(table: pa.Table) -> np.ndarray:
    """``(S,)`` bool: whether the right answer of each scene is an item of its list."""
    sizes = pc.list_value_length(table["slate"]).to_numpy()
    return np.asarray(table["target"].to_numpy() < sizes)


def first_scenes(table: pa.Table, count: int) -> pa.Table:
    """The scenes up to the ``count``-th that holds its true item."""
    held = np.cumsum(has_true_item(table))
    return table.slice(0, int(np.searchsorted(held, count)) + 1)


def _check_scenes(table: pa.Table, split: TimeSplit, *, after: bool, where: str) -> None:
    """Raise RunError for scenes that the data cannot be the source of."""
    if not len(table):
        return
    users, items = split.dataset.n_users, split.dataset.n_items
    times = table[TIMESTAMP].to_numpy()
    late = times >= split.t0
    wrong = {
        f"not {'at or after' if after else 'before'} T0 = {split.t0}": late != after,
        f"about a user who is not one of {users:,}": _unknown(table, USER_ID, users),
        f"about an item that is not one of {items:,}": _unknown(table, ITEM_ID, items, least=0)
        | _unknown(table, "slate", items)
        | _unknown(table, "history", items),
        "with an item twice in the list": _repeats(table["slate"]),
    }
    for what, rows in wrong.items():
        if rows.any():
            first = table["scene_id"][int(rows.argmax())].as_py()
            raise RunError(
                f"{where}: {int(rows.sum()):,} scenes are {what}, the first is {first}; "
                "build the data again"
            )


def _unknown(table: pa.Table, name: str, most: int, *, least: int = 1) -> np.ndarray:
    """``(S,)`` bool: whether a column, of numbers or of lists, holds an id that does not exist."""
    ids, rows = _values(table[name])
    return np.bincount(rows[(ids < least) | (ids > most)], minlength=len(table)) > 0


def _repeats(lists: pa.ChunkedArray) -> np.ndarray:
    """``(S,)`` bool: which lists hold a value twice."""
    values, rows = _values(lists)
    twice = pd.DataFrame({"row": rows, "value": values}).duplicated().to_numpy()
    return np.bincount(rows[twice], minlength=len(lists)) > 0


def _values(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """All values of a column, of numbers or of lists, and the row of each."""
    column = column.combine_chunks()
    if not pa.types.is_list(column.type):
        return column.to_numpy(), np.arange(len(column))
    rows = column.value_parent_indices().to_numpy()
    return column.flatten().to_numpy(zero_copy_only=False), rows


def _source_of_build(folder: Path, wanted: str | None) -> BuiltSource:
    sources = {source.name: source for source in read_build(folder).sources}
    if wanted is None and len(sources) > 1:
        raise ConfigError(
            f"{folder} has {len(sources)} data sets, a card is about one: name it with --source "
            f"({', '.join(sources)})"
        )
    name = next(iter(sources)) if wanted is None else wanted
    if name not in sources:
        raise UnknownNameError(f"source of {folder}", name, sources)
    return sources[name]


def _config(name: str, count: int, seed: int, balance: str | None) -> BuildConfig:
    """The settings of the data set's preset, for scenes alone and enough of them."""
    if name in preset_names("data"):
        config = read_config(name, {"seed": seed, "rationales": None})
    elif name in SOURCES or ":" in name or name.endswith((".yaml", ".yml")):
        config = BuildConfig(name=name, seed=seed, sources=(SourceSettings(name=name),))
    else:
        raise UnknownNameError("scenes", name, {*preset_names("data"), *SOURCES, "<a folder>"})
    if len(config.sources) > 1:
        raise ConfigError(
            f"the preset {name!r} has {len(config.sources)} data sets, a card is about one: name "
            f"one of them ({', '.join(s.name for s in config.sources)})"
        )
    removed = config.scenes_of(config.sources[0]).removed
    share = max(1 - removed, 0.01)
    source = config.sources[0]
    more: dict[str, Any] = {"eval": math.ceil(count / share * _SPARE) + 10}
    if balance is not None:
        more["balance"] = balance
    source = source.model_copy(update={"scenes": {**source.scenes, **more}})
    return config.model_copy(update={"sources": (source,)})


def _drawn(config: BuildConfig, display: Display) -> BuiltSource:
    """The scenes in the cache folder, drawn if they are not there yet."""
    folder = cache_folder() / "scenes" / f"{config.sources[0].slug}-{_key(config)}"
    with locked(folder, "draws scenes", wait=display.say):
        stage = SceneStage(config, config.sources[0], folder, display)
        facts = stage.run()
    return BuiltSource(stage.source.slug, folder, facts["t0"], facts["t_validation"], facts)


def _key(config: BuildConfig) -> str:
    """Changes with the settings, the version and the raw files."""
    source = get_source(config.sources[0].name)
    folder = find_folder(source, config.sources[0].folder)
    paths: list[Path] = []
    if isinstance(source, CustomSource):
        paths.append(source.path)
        folder = folder or source.path.parent
    if folder is not None:
        paths += [find_file(folder, name) for name in source.files]
    raw = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    content = [usermirror_gym.__version__, config.model_dump_json(exclude={"name"}), raw]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
