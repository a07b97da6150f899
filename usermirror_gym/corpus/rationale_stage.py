"""Second half of a build: rationales, the predictor's reading of them, and the selected pairs.

Each source has journals of its own under ``rationales/<source>/``; all sources together are
selected from, by data set and list length.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from usermirror_gym.corpus.config import BuildConfig, ModelSettings, RationaleStage
from usermirror_gym.corpus.estimate import Estimate, estimate
from usermirror_gym.corpus.preferences import direct_rows, preference_rows, sft_rows, write_rows
from usermirror_gym.corpus.rationales.batch_files import BatchJob, read_batch_results, write_batch
from usermirror_gym.corpus.rationales.plan import ROLES, RationaleSettings, Role
from usermirror_gym.corpus.rationales.predictions import load_predictions, predict_choices
from usermirror_gym.corpus.rationales.write import (
    Rationale,
    RationaleSummary,
    read_rationales,
    summarise,
    write_rationales,
)
from usermirror_gym.corpus.scene_stage import SceneStage
from usermirror_gym.corpus.selection.assessment import Assessment, assess
from usermirror_gym.corpus.selection.ifd import score_answers
from usermirror_gym.corpus.selection.select import Selection, select
from usermirror_gym.engines import Engine
from usermirror_gym.engines.choosing import SERVER_PREFIX, load_engine
from usermirror_gym.errors import RunError
from usermirror_gym.files import write_parquet
from usermirror_gym.measures.uncertainty import NO_CHOICE, Predictions
from usermirror_gym.progress import Display
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.scenes.table import scenes_of
from usermirror_gym.scenes.words.prompt import PromptBuilder, PromptConfig
from usermirror_gym.scenes.words.rationale_prompt import answer, rationale_prompt
from usermirror_gym.scenes.words.template import domain_text

MakeEngine = Callable[[ModelSettings], Engine]


@dataclass
class SourceRationales:
    """The rationales of one source.

    Args:
        settings: what the build says about rationales.
        stage: the source's finished scenes.
        make_engine: an engine for a model.
    """

    settings: RationaleStage
    stage: SceneStage
    make_engine: MakeEngine

    def __post_init__(self) -> None:
        train = self.stage.tables().get("train")
        if train is None:
            raise RunError(
                f"source {self.stage.source.name!r} has no train scenes to write rationales for: "
                "set scenes.train above 0, or take 'rationales' out"
            )
        self.table = train.slice(0, self.settings.scenes)
        self.scenes: list[Scene] = scenes_of(self.table)
        self.builder = scene_prompts(self.stage)
        self.folder = self.stage.folder / "rationales" / self.stage.source.slug

    def run(self) -> None:
        """Write and read all rationales, or go on doing so.

        Raises:
            RunError: batch files were written, whose results are not there yet.
        """
        display = self.stage.display
        display.say(f"{self.stage.source.name}: rationales for {len(self.scenes):,} scenes")
        for role in ROLES:
            model = self.settings.model(role)
            if model.engine == "batch":
                self._through_files(role, model, display)
            else:
                write_rationales(
                    self.scenes, self.builder, self.make_engine(model), self._journal(role),
                    self._sampling(role), role=role, display=display,
                )  # fmt: skip
        predict_choices(
            self.scenes, self.builder, self.make_engine(self.settings.weak), self.rationales(),
            self.folder / "predictions.jsonl", display=display,
        )  # fmt: skip

    def rationales(self) -> list[Rationale]:
        """What both models wrote."""
        return [r for role in ROLES for r in read_rationales(self._journal(role))]

    def summaries(self) -> list[RationaleSummary]:
        """Counts, tokens and cost of both models."""
        return [summarise(self._journal(role), self._sampling(role)) for role in ROLES]

    def predictions(self) -> dict[Role, Predictions]:
        """The predictor's readings by role."""
        ids = [scene.name for scene in self.scenes]
        n = max(self._sampling(role).n for role in ROLES)
        read = load_predictions(self.folder / "predictions.jsonl", ids, n)
        return {role: Predictions.of(role, ids, read[role]) for role in ROLES}

    def estimates(self) -> list[Estimate]:
        """What both models will take; asks each for a few rationales."""
        return [
            estimate(
                self.scenes, self.builder, self.make_engine(self.settings.model(role)),
                self._sampling(role), role=role,
            )
            for role in ROLES
        ]  # fmt: skip

    def difficulties(self, assessment: Assessment) -> dict[str, float]:
        """IFD of the chosen answers by scene; see :mod:`~usermirror_gym.corpus.selection.ifd`."""
        columns = assessment.columns
        chosen = dict(zip(columns["scene_id"], columns["chosen"].tolist(), strict=True))
        texts = {(r.scene_id, r.index): r.text for r in read_rationales(self._journal("strong"))}
        answers = {}
        for scene in self.scenes:
            # The chosen rationale hits: its letter is that of the true option.
            if scene.target is not None and (index := chosen[scene.name]) != NO_CHOICE:
                letter = self.builder.letters(scene).options[scene.target]
                answers[scene.name] = answer(texts[scene.name, index], letter)
        return score_answers(
            self.scenes, self.builder, self.make_engine(self.settings.weak), answers,
            self.folder / "ifd.jsonl", display=self.stage.display,
        )  # fmt: skip

    def _sampling(self, role: Role) -> RationaleSettings:
        return self.settings.sampling_of(role, self.stage.config.seed)

    def _journal(self, role: str) -> Path:
        return self.folder / f"{role}.jsonl"

    def _through_files(self, role: Role, model: ModelSettings, display: Display) -> None:
        job = BatchJob(
            self.scenes, self.builder, self._sampling(role), role, model.checkpoint,
            self._journal(role), model.options.get("extra_body", {}),
        )  # fmt: skip
        results = sorted(self.folder.glob(f"{role}-results*.jsonl"))
        if results:
            display.say(str(read_batch_results(job, results)))
        requests = write_batch(job, self.folder / f"{role}-batch.jsonl")
        if requests:
            raise RunError(
                f"batch files are waiting to be answered: {', '.join(map(str, requests))}. Submit "
                f"them, save the answers as {self.folder / f'{role}-results-001.jsonl'} (any name "
                f"{role}-results*.jsonl), and give the same command again."
            )


def scene_prompts(stage: SceneStage) -> PromptBuilder:
    """The words of the questions: scene form, as many history lines as scenes may have."""
    lines = stage.settings.history[1]
    config = PromptConfig(form="scene", history_lines=lines, drop_lines=min(5, lines))
    return PromptBuilder(domain_text(stage.split.dataset), config)


def engine_cache() -> MakeEngine:
    """Makes engines; a model that is asked for twice is loaded once."""

    @lru_cache(maxsize=2)
    def make(name: str, kind: str, options: str) -> Engine:
        return load_engine(name, kind, **json.loads(options))

    def make_engine(model: ModelSettings) -> Engine:
        options = json.dumps(model.options, sort_keys=True)
        if model.engine == "openai":
            return make(SERVER_PREFIX + model.checkpoint, "server", options)
        return make(model.checkpoint, model.engine, options)

    return make_engine


def select_pairs(config: BuildConfig, sources: list[SourceRationales], folder: Path) -> Selection:
    """Select among the scenes of all sources and write the files to train on.

    ``selection/scenes.parquet`` says of every scene how uncertain it is and why it was not kept.
    ``train/preferences.jsonl`` and ``train/rationales.jsonl`` (SFT) hold the kept ones; without a
    single pair they are not written.  The selector ``ifd`` asks the weak model for more.
    """
    scenes = pa.concat_tables([source.table for source in sources])
    read = [source.predictions() for source in sources]
    strong, weak = (Predictions.concatenate([p[role] for p in read]) for role in ROLES)
    choice = config.selection
    assessment = assess(scenes, weak, strong, reading=choice.reading, seed=config.seed)
    if choice.selector == "ifd":
        found = {k: v for source in sources for k, v in source.difficulties(assessment).items()}
        values = [found.get(scene_id, np.nan) for scene_id in assessment.columns["scene_id"]]
        assessment = assessment.with_ifd(np.array(values))
    selection = select(assessment, size=choice.size, selector=choice.selector, seed=config.seed)
    write_parquet(folder / "selection" / "scenes.parquet", selection.table)
    if selection.kept:
        prompts = {
            scene.name: rationale_prompt(scene, source.builder)
            for source in sources
            for scene in source.scenes
        }
        texts = _texts(sources)
        for name, rows in (("preferences", preference_rows), ("rationales", sft_rows)):
            pairs = rows(scenes, selection.table, prompts=prompts, rationales=texts)
            write_rows(folder / "train" / f"{name}.jsonl", pairs)
    return selection


def write_direct(stages: list[SceneStage], folder: Path) -> None:
    """``train/direct.jsonl``: the right letter, without reasons, for every train scene."""
    rows: list[Any] = []
    for stage in stages:
        table = stage.tables().get("train")
        if table is not None:
            builder = scene_prompts(stage)
            prompts = {scene.name: builder.letters(scene) for scene in scenes_of(table)}
            rows += direct_rows(table, prompts=prompts)
    if rows:
        write_rows(folder / "train" / "direct.jsonl", rows)


def _texts(sources: list[SourceRationales]) -> dict[str, dict[str, list[str | None]]]:
    texts: dict[str, dict[str, list[str | None]]] = {role: {} for role in ROLES}
    for source in sources:
        for one in source.rationales():
            of_scene = texts[one.role].setdefault(one.scene_id, [])
            of_scene += [None] * (one.index + 1 - len(of_scene))
            of_scene[one.index] = one.text if one.ok else None
    return texts
