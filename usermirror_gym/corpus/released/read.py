"""The released data sets of Wei et al., *Mirroring Users* (ACL 2026), used as they are.

``Joinn/UserMirrorer`` holds preference pairs for training, ``Joinn/UserMirrorer-eval`` scenes
whose choice is known.  Both are checked row by row::

    train = read_released("Joinn/UserMirrorer", "train")
    test = read_released("Joinn/UserMirrorer-eval", "eval")
    pairs = train.preferences()                  # for trl.DPOTrainer
    prompts = test.prompts(train.frame())        # for any engine's choice_logprobs
    scores = engine.choice_logprobs(prompts)
    right = [s.logprobs.argmax() == t for s, t in zip(scores, test.targets)]

The texts of MIND and MovieLens-1M may not be redistributed: the release has their rows without
them.  Such rows are counted in ``withheld`` and left out.  The authors' notebook
UserMirrorer_GetFullDataset.ipynb puts the texts back from the raw data and writes
``UserMirrorer-Full.jsonl.gz`` and ``UserMirrorer-eval-Full.jsonl.gz``; both are read here too.
"""

from __future__ import annotations

import io
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from usermirror_gym.corpus.released.rows import (
    EvalScene,
    PreferencePair,
    PromptFrame,
    read_pair,
    read_scene,
)
from usermirror_gym.data.raw.raw_files import BoundedGzip
from usermirror_gym.errors import DataError, UnknownNameError
from usermirror_gym.foreign import parse_json
from usermirror_gym.types import IntArray, Prompt

_READ: dict[str, tuple[str, Callable[[str, dict[str, Any]], tuple[Any, bool]]]] = {
    "train": ("messages_chosen", read_pair),
    "eval": ("text", read_scene),
}
"""Of each split: a column that only its files have, and how a row is read."""


@dataclass(frozen=True)
class ReleasedTrain:
    """The train set; ``withheld`` counts rows without their text, by data set."""

    pairs: tuple[PreferencePair, ...]
    withheld: dict[str, int]

    def preferences(self) -> list[dict[str, Any]]:
        """``prompt, chosen, rejected`` in TRL's conversational form, and ``dataset``."""
        return [
            {
                "prompt": [{"role": m.role, "content": m.content} for m in pair.prompt],
                "chosen": [{"role": "assistant", "content": pair.chosen}],
                "rejected": [{"role": "assistant", "content": pair.rejected}],
                "dataset": pair.dataset,
            }
            for pair in self.pairs
        ]

    def frame(self) -> PromptFrame:
        """How these prompts are laid out, for :meth:`ReleasedEval.prompts`.

        Raises:
            DataError: they have no text, or do not look alike.
        """
        return PromptFrame.of(
            (pair.dataset, pair.prompt[0].content, pair.prompt[1].content)
            for pair in self.pairs
            if [message.role for message in pair.prompt] == ["system", "user"]
        )


@dataclass(frozen=True)
class ReleasedEval:
    """The eval set; ``withheld`` counts rows without their text, by data set."""

    scenes: tuple[EvalScene, ...]
    withheld: dict[str, int]

    @property
    def targets(self) -> IntArray:
        """``(N,)`` position of the true option of every scene."""
        return np.array([scene.target for scene in self.scenes], np.int64)

    def prompts(self, frame: PromptFrame) -> list[Prompt]:
        """One question per scene, answered by the letter behind "Behavior: [".

        Args:
            frame: the eval set has neither a system text nor headings: they are those of the train
                set (:meth:`ReleasedTrain.frame`), which is what the released checkpoints learnt.
        """
        return [frame.prompt(scene) for scene in self.scenes]


@overload
def read_released(path_or_name: str | Path, split: Literal["train"]) -> ReleasedTrain: ...
@overload
def read_released(path_or_name: str | Path, split: Literal["eval"]) -> ReleasedEval: ...
def read_released(path_or_name: str | Path, split: str) -> ReleasedTrain | ReleasedEval:
    """Read and check a released data set.

    Args:
        path_or_name: ``"Joinn/UserMirrorer"``, ``"Joinn/UserMirrorer-eval"``, or a file or folder
            with a copy: Parquet, or JSON lines, gzipped or not.
        split: ``"train"`` (preference pairs) or ``"eval"``.

    Raises:
        UnknownNameError: no such split, file or name; suggests the nearest.
        DataError: a row breaks the schema; names file, row, column and what is wrong.
    """
    if split not in _READ:
        raise UnknownNameError("split", split, _READ)
    column, read = _READ[split]
    found: list[Any] = []
    withheld: Counter[str] = Counter()
    for place, raw in _rows(path_or_name, column):
        row, complete = read(place, raw)
        if complete:
            found.append(row)
        else:
            withheld[row.dataset] += 1
    if not found and not withheld:
        raise DataError(f"{path_or_name} holds no rows")
    kind = ReleasedTrain if split == "train" else ReleasedEval
    return kind(tuple(found), dict(withheld))


Row = tuple[str, dict[str, Any]]
"""Where a row is, for messages, and its columns."""

HUB_NAMES = ("Joinn/UserMirrorer", "Joinn/UserMirrorer-eval")
_ENDINGS = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")
_SHARD = re.compile(r"-\d{5}-of-\d{5}(?=\.)")


def _rows(path_or_name: str | Path, column: str) -> Iterator[Row]:
    """All rows of the files that have the column, in order, each with its place."""
    path = Path(path_or_name).expanduser()
    if not path.exists():
        path = _download(str(path_or_name))
    files = [path] if path.is_file() else _files(path, column)
    return itertools.chain.from_iterable(map(_read, files))


def _download(name: str) -> Path:
    """The folder of the hub's copy, in the hub's own cache."""
    parts = name.split("/")
    if len(parts) != 2 or not all(parts) or name.startswith((".", "~")):
        raise UnknownNameError("released data set", name, (*HUB_NAMES, "<a file or a folder>"))
    from huggingface_hub import snapshot_download

    try:
        patterns = [f"*{ending}" for ending in _ENDINGS]
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=patterns))
    except Exception as error:  # the hub, its HTTP library and the disk each have their own
        hint = UnknownNameError("name", name, HUB_NAMES).suggestion
        near = f" Did you mean {hint!r}?" if hint and hint != name else ""
        raise DataError(
            f"cannot get the data set {name} from the hub: {error}.{near} With a copy of its "
            "files, give their folder instead."
        ) from error


def _files(folder: Path, column: str) -> list[Path]:
    candidates = [
        p for p in sorted(folder.rglob("[!.]*")) if p.is_file() and p.name.endswith(_ENDINGS)
    ]
    found = [path for path in candidates if column in _first(path)]
    if not found:
        names = ", ".join(p.name for p in candidates) or f"none of {', '.join(_ENDINGS)}"
        raise DataError(f"no file in {folder} has the column {column!r} (files: {names})")
    parts = {_SHARD.sub("", path.name) if _SHARD.search(path.name) else path for path in found}
    if len(parts) > 1:
        raise DataError(
            f"several files in {folder} have the column {column!r}: "
            f"{', '.join(p.name for p in found)}. Give the one that is meant."
        )
    return found


def _first(path: Path) -> dict[str, Any]:
    """The first row; empty if the file cannot hold the data set."""
    try:
        return next(_read(path), ("", {}))[1]
    except DataError:
        # Other JSON lies beside data sets; a damaged file is reported if it is named.
        return {}


def _read(path: Path) -> Iterator[Row]:
    if path.suffix == ".parquet":
        return _read_parquet(path)
    if not path.name.endswith(_ENDINGS):
        raise DataError(f"{path} ends in none of {', '.join(_ENDINGS)}")
    return _read_lines(path)


def _read_lines(path: Path) -> Iterator[Row]:
    number = 0
    try:
        with BoundedGzip(path) if path.suffix == ".gz" else path.open("rb") as packed:
            for number, line in enumerate(io.BufferedReader(packed), start=1):
                if not line.strip():
                    continue
                row = parse_json(line)
                if not isinstance(row, dict):
                    raise ValueError(f"a {type(row).__name__}, not an object")
                yield f"{path}, line {number}", row
    except (OSError, EOFError, ValueError, RecursionError) as error:
        place = f"{path}, line {max(number, 1)}"
        raise DataError(f"{place}: {error}. The file must hold one JSON object a line.") from error


def _read_parquet(path: Path) -> Iterator[Row]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path} after row {number}: {error}") from error
