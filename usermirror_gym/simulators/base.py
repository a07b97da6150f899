"""The contract of everything that plays the user."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from usermirror_gym.scenes.scene import Scene
from usermirror_gym.types import FloatArray, IntArray


@dataclass(frozen=True)
class ChoiceBatch:
    """What B users would do with their lists.

    Attributes:
        probs: ``(B, K + 1)`` float64, rows sum to 1.  Column ``j < K`` is the item at slate
            position j (0 where the slate is shorter), column K is *none of these*.
        rationales: one text per scene, if the simulator reasons in words.
        prompt_tokens: ``(B,)`` tokens of each question, if an LLM was asked.
        cached_tokens: ``(B,)`` how many of them were already computed.
    """

    probs: FloatArray
    rationales: tuple[str, ...] | None = None
    prompt_tokens: IntArray | None = None
    cached_tokens: IntArray | None = None


@runtime_checkable
class UserSimulator(Protocol):
    """A categorical distribution over the options of a list, given a memory."""

    @property
    def name(self) -> str:
        """Identifies the simulator, its model and its settings in logs and reports."""
        ...

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        """Choice probabilities of every scene, in order.

        A pure function of its scenes: which option is drawn is the caller's business.
        Environments pass a :class:`~usermirror_gym.scenes.SceneBatch`, whose columns a fast
        simulator reads directly.

        Raises:
            SceneError: a scene cannot be put to this simulator; names the scene.
        """
        ...


class Wrapping:
    """What stands before another simulator, ``inner``, says of its LLM and of what it reads."""

    inner: UserSimulator

    @property
    def engine(self) -> Any:
        """Of the simulator behind it, if that has one."""
        return getattr(self.inner, "engine", None)

    @property
    def history_lines(self) -> int:
        """See :func:`history_lines`."""
        return history_lines(self.inner)


def history_lines(simulator: UserSimulator) -> int:
    """Lines of a history that it wants to be shown, if it says so (``history_lines``); 0: what it
    reads is no more than environments show agents."""
    return int(getattr(simulator, "history_lines", 0))


def fingerprint(simulator: UserSimulator) -> str:
    """The name of a simulator and sixteen hexadecimal digits of its weights and settings.

    What is behind a server, or in an object of somebody else's, is known by its name alone.
    """
    engine = getattr(simulator, "engine", None)
    told = [simulator.name]
    if engine is not None:
        told.append(str(getattr(engine, "identity", None) or getattr(engine, "fingerprint", "")))
    return f"{simulator.name} {hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]}"


def forget_questions(simulator: UserSimulator) -> None:
    """What a simulator answers next does not depend, not even in the last digit, on what it was
    asked before: its LLM, if it has one here, drops the beginnings of prompts that it keeps.

    Whatever a run does between two points from which it can go on begins with this.
    """
    forget = getattr(getattr(simulator, "engine", None), "forget", None)
    if forget is not None:
        forget()
