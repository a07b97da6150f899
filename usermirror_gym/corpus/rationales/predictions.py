"""What a predictor expects the user to choose, after each rationale and without any.

``P(Y | X, D)`` over the letters of a scene X, read by the letters readout behind each rationale D
(Wei et al., *Mirroring Users*, ACL 2026), and ``P(Y | X)`` behind none.  Every reading is a record
of a journal, like the rationales themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Literal

import numpy as np

from usermirror_gym.corpus.rationales.journal import Journal, Record, records_as, texts_version
from usermirror_gym.corpus.rationales.plan import ROLES, Rationale
from usermirror_gym.corpus.rationales.write import (
    Question,
    answer_missing,
    stop_if_dead,
    stop_if_hopeless,
)
from usermirror_gym.engines.base import Engine
from usermirror_gym.errors import EngineError, RunError, SceneError
from usermirror_gym.foreign import masked
from usermirror_gym.progress import Display
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.scenes.words.prompt import ANSWER_PREFIX, PromptBuilder
from usermirror_gym.scenes.words.rationale_prompt import (
    prompt_version,
    questions_version,
    reading_prompt,
)
from usermirror_gym.types import Message, Prompt

Source = Literal["strong", "weak", "none"]
"""Whose rationale was read before the choice."""
Key = tuple[str, Source, int]
"""Scene, whose rationale, and its index: what a reading is of."""
_KEY = ("scene_id", "role", "index")
_ORDER = ("none", *ROLES)
_PROBE = Prompt((Message("user", "Say A or B."),), ANSWER_PREFIX, ("A", "B"), "the test question")


@dataclass(frozen=True, slots=True)
class Prediction:
    """One reading: a record of the journal.

    Attributes:
        role: whose rationale; ``"none"`` without one, and then ``index`` is 0.
        probs: of the K + 1 options, *none of these* last; ``None`` if there was an error.
        prompt_tokens: tokens of the question, rationale included.
    """

    scene_id: str
    role: Source
    index: int
    probs: list[float] | None
    error: str | None
    prompt_tokens: int


def predict_choices(
    scenes: Sequence[Scene],
    builder: PromptBuilder,
    engine: Engine,
    rationales: Sequence[Rationale],
    path: Path,
    *,
    batch_size: int = 64,
    display: Display,
) -> dict[str, int]:
    """Read the choice after every usable rationale, and without one, or go on doing so.

    Args:
        scenes, builder, engine, path, display: as for
            :func:`~usermirror_gym.corpus.rationales.write.write_rationales`.
        rationales: of any role; those that are not ``ok`` are left out.
        batch_size: readings between two writes to disk, about: a scene is never divided.

    Returns:
        How many readings of the journal succeeded and failed: ``{"read": , "failed": }``.

    Raises:
        RunError: the journal was begun with another engine, scenes or rationales; a rationale is
            about none of the scenes.
        EngineError: the engine answers nothing any more.
    """
    texts = _texts(scenes, rationales)
    named = {scene.name: scene for scene in scenes}

    def question(key: Key) -> Question:
        scene = named[key[0]]
        return scene, partial(reading_prompt, scene, builder, texts[key])

    def ask(prompts: list[Prompt]) -> list[Record | str]:
        answers = _ask(engine, prompts)
        errors = [answer if isinstance(answer, str) else None for answer in answers]
        stop_if_dead(engine.model_id, errors, lambda: engine.choice_logprobs([_PROBE]))
        return answers

    batches = ({key: question(key) for key in batch} for batch in _batches(texts, batch_size))
    blank = {"probs": None, "error": None, "prompt_tokens": 0}
    header = {
        "journal": "predictions", "model": engine.model_id, "prompt": prompt_version(),
        "scenes": len(scenes),
        "questions": questions_version(reading_prompt(scene, builder) for scene in scenes),
        "rationales": texts_version((*key, text) for key, text in texts.items()),
    }  # fmt: skip
    with Journal(path, header) as journal:
        failed = Counter(record["probs"] is None for record in journal.records())
        with display.phase("predictions", len(texts), "reading") as advance:
            advance(failed.total())
            for new in answer_missing(journal, _KEY, batches, engine, builder, ask, blank):
                advance(len(new))
                failed.update(record["probs"] is None for record in new)
                last = next((one["error"] for one in reversed(new) if one["error"]), None)
                stop_if_hopeless(engine.model_id, failed[False], failed[True], last)
        journal.sort(_place)
    display.say(f"predictions by {engine.model_id}: {failed[False]:,}, failed {failed[True]:,}")
    return {"read": failed[False], "failed": failed[True]}


def read_predictions(path: Path) -> Iterator[Prediction]:
    """Every reading of a journal of predictions.

    Raises:
        RunError: the file is not such a journal, or is unfinished.
    """
    return records_as(path, Prediction, "prediction")


def load_predictions(
    path: Path, scene_ids: Sequence[str], n: int
) -> dict[Source, list[list[list[float] | None]]]:
    """The readings in the form that :meth:`.uncertainty.Predictions.of` takes.

    Args:
        scene_ids: S scenes, in the order wanted.
        n: rationales per scene and role.

    Returns:
        By role: S lists, of n entries (one for ``"none"``), each the K + 1 probabilities of the
        rationale of that index, or ``None`` where it is missing.

    Raises:
        RunError: the file is not such a journal; a rationale has an index of n or more.
    """
    rows: dict[Source, dict[str, list[list[float] | None]]] = {
        role: {name: [None] * (1 if role == "none" else n) for name in scene_ids}
        for role in ("strong", "weak", "none")
    }
    for one in read_predictions(path):
        row = rows[one.role].get(one.scene_id)
        if row is None:
            continue
        if one.index >= len(row):
            raise RunError(
                f"{path}: {one.role} rationale {one.index} of scene {one.scene_id!r}, but there "
                f"should be {n} a scene: load it with the n it was made with."
            )
        row[one.index] = one.probs
    return {role: list(by_scene.values()) for role, by_scene in rows.items()}


def _texts(scenes: Sequence[Scene], rationales: Sequence[Rationale]) -> dict[Key, str]:
    """What is read before each choice: by scene, in the order of the scenes."""
    texts: dict[str, dict[Key, str]] = {s.name: {(s.name, "none", 0): ""} for s in scenes}
    if len(texts) < len(scenes):
        raise SceneError(f"{len(scenes) - len(texts)} scene ids occur twice: they must be unique.")
    for one in rationales:
        if one.scene_id not in texts:
            raise RunError(f"there is a rationale for scene {one.scene_id!r}, but no such scene.")
        if one.ok:
            texts[one.scene_id][one.scene_id, one.role, one.index] = one.text
    return {
        key: of_scene[key]
        for of_scene in texts.values()
        for key in sorted(of_scene, key=lambda key: (_ORDER.index(key[1]), key[2]))
    }


def _batches(keys: Iterable[Key], size: int) -> Iterator[list[Key]]:
    """Whole scenes together, about ``size`` readings: their composition does not depend on what is
    done, and the readings of a scene share its question."""
    batch: list[Key] = []
    for _, group in groupby(keys, key=itemgetter(0)):
        scene = list(group)
        if batch and len(batch) + len(scene) > size:
            yield batch
            batch = []
        batch += scene
    if batch:
        yield batch


def _ask(engine: Engine, prompts: Sequence[Prompt]) -> list[Record | str]:
    """All together and, if that fails, each alone."""
    try:
        scores = engine.choice_logprobs(prompts)
    except EngineError as error:
        if len(prompts) == 1:
            return [masked(f"engine: {error}")]
        return [answer for prompt in prompts for answer in _ask(engine, [prompt])]
    return [
        {"probs": np.exp(s.logprobs).tolist(), "prompt_tokens": s.prompt_tokens} for s in scores
    ]


def _place(record: Record) -> tuple[str, int, int]:
    return record["scene_id"], _ORDER.index(record["role"]), record["index"]
