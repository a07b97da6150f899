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

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from usermirror_gym.distill.released_files import read_rows
from usermirror_gym.distill.released_frame import LETTERS, PromptFrame
from usermirror_gym.distill.released_rows import (
    RELEASED_ANSWER_PREFIX,
    EvalScene,
    PreferencePair,
    read_pair,
    read_scene,
)
from usermirror_gym.errors import DataError, UnknownNameError
from usermirror_gym.types import IntArray, Message, Prompt

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
        return [
            Prompt(
                (
                    Message("system", frame.system),
                    Message("user", frame.user_message(s.profile, s.history, s.actions, s.dataset)),
                ),
                RELEASED_ANSWER_PREFIX,
                tuple(LETTERS[: len(s.actions)]),
                s.name,
            )
            for s in self.scenes
        ]


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
    for place, raw in read_rows(path_or_name, column):
        row, complete = read(place, raw)
        if complete:
            found.append(row)
        else:
            withheld[row.dataset] += 1
    if not found and not withheld:
        raise DataError(f"{path_or_name} holds no rows")
    kind = ReleasedTrain if split == "train" else ReleasedEval
    return kind(tuple(found), dict(withheld))
