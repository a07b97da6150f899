"""Preference pairs: rationales of a build, or the right letter against another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from usermirror_gym.errors import ConfigError
from usermirror_gym.train.objectives.letters import Letters, answered
from usermirror_gym.train.objectives.permute import epoch_keys, wrong_options
from usermirror_gym.train.objectives.sequences import Row, Wording
from usermirror_gym.types import IntArray

_SIDES = ("chosen", "rejected")


class ReasonedPairs:
    """Pairs of a chosen and a rejected rationale, each with its answer line.

    Args:
        rows: ``{"prompt": [messages], "chosen": [answer], "rejected": [answer], ...}``.

    Raises:
        ConfigError: none fits into ``max_length``.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], wording: Wording) -> None:
        self._rows = [r for r in (_pair(row, wording) for row in rows) if _longest(r) <=
                      wording.max_length]  # fmt: skip
        self.left_out = len(rows) - len(self._rows)
        if not self._rows:
            raise ConfigError(
                f"none of {len(rows)} preference pairs fits into max_length = "
                f"{wording.max_length} tokens: raise it"
            )

    def sizes(self, epoch: int) -> IntArray:
        """``(n,)`` tokens of the longer side."""
        return np.array([_longest(row) for row in self._rows], np.int64)

    def row(self, epoch: int, index: int) -> Row:
        """The question and both answers."""
        return self._rows[index]


class LetterPairs:
    """The right letter of each scene against another one, which is drawn anew in every epoch."""

    def __init__(self, letters: Letters, *, seed: int) -> None:
        self._letters, self._seed = letters, seed

    def sizes(self, epoch: int) -> IntArray:
        """``(n,)`` lines of history and list."""
        return self._letters.sizes(epoch)

    def row(self, epoch: int, index: int) -> Row:
        """The question and two letters."""
        prefix, letters, target = self._letters.question(epoch, index)
        own = epoch_keys(self._seed, epoch, np.array([index]))
        (other,) = wrong_options(own, np.array([len(letters)]), np.array([target])).tolist()
        return {
            "prompt_ids": list(prefix),
            "chosen_ids": [letters[target]],
            "rejected_ids": [letters[other]],
        }


def _pair(row: Mapping[str, Any], wording: Wording) -> Row:
    chosen, rejected = (answered(row["prompt"], row[side], wording) for side in _SIDES)
    return {
        "prompt_ids": list(chosen.question),
        "chosen_ids": list(chosen.answer),
        "rejected_ids": list(rejected.answer),
    }


def _longest(row: Row) -> int:
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
