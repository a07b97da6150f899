"""Column names and the small types that several rooms share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

# Column names of the unified tables.
USER_ID: Final = "user_id"
ITEM_ID: Final = "item_id"
TIMESTAMP: Final = "timestamp"
RATING: Final = "rating"
TITLE: Final = "title"
TOKEN: Final = "token"
AVAILABLE_FROM: Final = "available_from"
"""Item column, nullable integer seconds: lists of earlier moments must not show the item."""
UNDATED: Final = "undated"
"""Interaction column, bool: the order is known, the time is not (see the MIND source)."""
FRIEND_ID: Final = "friend_id"

PAD: Final = 0
"""Item and user id that means *nothing*; real ids start at 1 in every table and matrix."""

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Observation = dict[str, NDArray]
"""A batched observation: every value has shape ``(num_envs, ...)``."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question to an LLM, independent of the runtime that answers it.

    ``messages`` go through the checkpoint's chat template; without messages ``answer_prefix`` is
    plain text.  ``answer_prefix`` is what the assistant has already begun to say, and each of
    ``options`` is a possible continuation of it: a letter, or the text of an item.
    Markup of the model that occurs inside any of these strings is encoded as plain text.
    """

    messages: tuple[Message, ...]
    answer_prefix: str
    options: tuple[str, ...]
    name: str = "prompt"
    """How an error message calls this prompt (usually the scene's id)."""
