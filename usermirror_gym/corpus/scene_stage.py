"""First half of a build: one raw data set becomes tables, rankers and scenes.

Every file is written whole; ``facts/<source>.json``, written last, says that a source is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from usermirror_gym.corpus.config import BuildConfig, SceneSettings, SourceSettings
from usermirror_gym.data import TimeSplit, cut_at, read_dataset, save_dataset, time_cut
from usermirror_gym.data.raw.reading import ReadLog, find_file
from usermirror_gym.data.sources import Source, find_folder, get_source
from usermirror_gym.errors import ConfigError
from usermirror_gym.files import (
    kept_json,
    read_json,
    read_parquet,
    save_arrays,
    sha256,
    write_json,
    write_parquet,
)
from usermirror_gym.progress import Display
from usermirror_gym.scenes.draw.build import ScenePlan, Window, draw_scenes
from usermirror_gym.scenes.draw.columns import SceneColumns
from usermirror_gym.scenes.draw.embeddings import embed_texts
from usermirror_gym.scenes.draw.impressions import draw_impressions
from usermirror_gym.scenes.draw.rankers import Rankers
from usermirror_gym.scenes.table import SPLITS
from usermirror_gym.scenes.words.render import distinct_options, scene_table
from usermirror_gym.scenes.words.template import domain_text
from usermirror_gym.types import TIMESTAMP, UNDATED, Float32Array

_OF_PLAN = {"samplers", "balance", "history", "min_history", "removed"}
"""Settings that a plan of scenes has as they are."""


@dataclass
class SceneStage:
    """The scenes of one source of a build.

    Args:
        config: of the whole build.
        source: which of its sources.
        folder: of the build.
        display: says what is going on.
    """

    config: BuildConfig
    source: SourceSettings
    folder: Path
    display: Display

    @cached_property
    def settings(self) -> SceneSettings:
        """Scene settings of this source."""
        return self.config.scenes_of(self.source)

    def run(self) -> dict[str, Any]:
        """Build what is not there yet; the facts of the source."""
        path = self.folder / "facts" / f"{self.source.slug}.json"
        if not path.is_file():
            write_json(path, self._build())
        return read_json(path)

    def tables(self) -> dict[str, pa.Table]:
        """The finished scenes by split."""
        paths = {name: self._scenes_path(name) for name in SPLITS}
        return {name: read_parquet(path) for name, path in paths.items() if path.is_file()}

    @cached_property
    def split(self) -> TimeSplit:
        """The data set, read once from the raw files and then from the build, cut at T0."""
        folder = self.folder / "tables" / self.source.slug
        if not (folder / "dataset.json").is_file():
            self._read_raw(folder)
        dataset = read_dataset(folder)
        settings = self.settings
        if settings.t0 is not None:
            return cut_at(dataset, settings.t0)
        return time_cut(dataset, settings.fraction)

    def _read_raw(self, folder: Path) -> None:
        raw = get_source(self.source.name)
        place = find_folder(raw, self.source.folder)
        self.display.say(f"{self.source.name}: reading the raw files")
        log = ReadLog(display=self.display)
        write_json(self._sums_path, _checksums(raw, place))  # of what is read, not of what is later
        dataset = raw.load(place, limits=self.source.limits.over(raw.limits), log=log)
        save_dataset(dataset, folder)

    def _build(self) -> dict[str, Any]:
        split, settings = self.split, self.settings
        t_validation = _validation_time(split, settings.validation_fraction)
        dim, seed = settings.collaborative_dim, self.config.seed
        rankers = Rankers(split, embedding=self._embedding(split), dim=dim, seed=seed)
        text = domain_text(split.dataset)
        windows: dict[str, Window] = {
            "train": (None, t_validation),
            "validation": (t_validation, split.t0),
            "eval": (split.t0, None),
        }
        counts, dropped = {}, {}
        for name, drawn in self._draw(rankers, windows):
            wanted = getattr(settings, name)
            columns = distinct_options(drawn, text, wanted)
            table = scene_table(columns, rankers, text, name)
            write_parquet(self._scenes_path(name), table)
            counts[name] = len(table)
            dropped[name] = dict(sorted(columns.dropped.items()))
            fewer = f", not {wanted:,}: the log has no more" if len(table) < wanted else ""
            self.display.say(f"{self.source.name}: {len(table):,} {name} scenes{fewer}")
        self._save_rankers(rankers)
        data, raw = split.dataset, get_source(self.source.name)
        place = find_folder(raw, self.source.folder)
        files = kept_json(self._sums_path, lambda: _checksums(raw, place))
        about = {name: getattr(raw, name) for name in ("title", "homepage", "terms", "citation")}
        return {
            "t0": split.t0,
            "t_validation": t_validation,
            "scenes": counts,
            "dropped": dropped,
            "dataset": data.name,
            "domain": data.domain,
            "users": data.n_users,
            "items": data.n_items,
            "interactions": len(data.interactions),
            "impressions": len(data.impressions or ()),
            "repairs": [asdict(repair) for repair in data.repairs],
            "rankers": {"dim": dim, "seed": seed, "embedding": settings.embedding},
            "files": files,
            **about,
        }

    def _draw(
        self, rankers: Rankers, windows: dict[str, Window]
    ) -> Iterator[tuple[str, SceneColumns]]:
        settings = self.settings
        real = settings.impressions and rankers.split.dataset.impressions is not None
        for name, window in windows.items():
            if not getattr(settings, name):
                continue
            plan = ScenePlan(
                count=_with_spare(getattr(settings, name)),
                slate_size=settings.eval_slate if name == "eval" else settings.train_slate,
                seed=self.config.seed,
                **settings.model_dump(include=_OF_PLAN),
            )
            try:
                drawn = (draw_impressions if real else draw_scenes)(rankers, plan, window)
            except ConfigError as error:
                raise ConfigError(f"{self.source.name}, {name} scenes: {error}") from error
            yield name, drawn

    def _embedding(self, split: TimeSplit) -> Float32Array | None:
        """Item embeddings, if lists are drawn by them."""
        if self.settings.embedding is None or not self.settings.samplers.get("content"):
            return None
        return item_embeddings(split, self.settings.embedding, self.folder / "cache", self.display)

    def _save_rankers(self, rankers: Rankers) -> None:
        arrays: dict[str, np.ndarray] = {
            "popularity": rankers.split.popularity,
            "fitted_before": np.array(rankers.split.t0, np.int64),
        }
        if self.settings.samplers.get("collaborative"):
            arrays["collaborative"] = rankers.collaborative.factors
        if rankers.embedding is not None:
            arrays["embedding"] = rankers.embedding
        save_arrays(self.rankers_path, **arrays)

    @property
    def rankers_path(self) -> Path:
        """Of the finished rankers; see :func:`~usermirror_gym.corpus.built.read_rankers`."""
        return self.folder / "rankers" / f"{self.source.slug}.npz"

    @property
    def _sums_path(self) -> Path:
        return self.folder / "cache" / f"{self.source.slug}.files.json"

    def _scenes_path(self, split_name: str) -> Path:
        return self.folder / "scenes" / split_name / f"{self.source.slug}.parquet"


def item_embeddings(
    split: TimeSplit, model: str, cache: Path | None = None, display: Display | None = None
) -> Float32Array:
    """``(n_items + 1, e)`` of the words of the items, fitted (if at all) on those known before T0;
    row 0 (padding) is 0.  See :func:`~usermirror_gym.scenes.draw.embeddings.embed_texts`."""
    text = domain_text(split.dataset)
    texts = [text.option(item) for item in range(1, split.dataset.n_items + 1)]
    known = np.flatnonzero(split.popularity[1:] > 0)
    vectors = embed_texts(texts, model, fit_rows=known, cache=cache, display=display)
    return np.concatenate([np.zeros((1, vectors.shape[1]), np.float32), vectors])


def _with_spare(count: int) -> int:
    """A few more, in the place of those with two items that read the same."""
    return count + count // 50 + 5


def _validation_time(split: TimeSplit, share: float) -> int:
    """The time from which about ``share`` of the (dated) interactions before T0 lie."""
    before = split.before
    if UNDATED in before:
        before = before[~before[UNDATED].astype(bool)]
    times = before[TIMESTAMP].to_numpy()
    at = int(len(times) * (1 - share))
    return int(times[at]) if at < len(times) else split.t0


def _checksums(raw: Source, folder: Path | None) -> dict[str, str]:
    """SHA-256 of the raw files; none for data that an installed package carries."""
    return {} if folder is None else {n: sha256(find_file(folder, n)) for n in raw.files}
