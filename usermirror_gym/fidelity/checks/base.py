"""What a check of the fidelity card is, and what it may ask and look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import ConfigError
from usermirror_gym.fidelity.answers import CHUNK, Answer, answer
from usermirror_gym.measures.bootstrap import Interval, UserBootstrap
from usermirror_gym.measures.choice_scores import METRICS, ObservedChoices, scores_given_click
from usermirror_gym.progress import Display
from usermirror_gym.report.plots import Plot
from usermirror_gym.report.tables import View
from usermirror_gym.report.text import Block, shorten
from usermirror_gym.scenes import Scene
from usermirror_gym.simulators.base import UserSimulator
from usermirror_gym.types import FloatArray, IntArray

Card = Mapping[str, Any]
"""The content of ``card.json``."""
Remake = Callable[[TimeSplit], UserSimulator]
"""The simulator, made for another data set."""
BASE, SWAPPED = "base", "swapped history"
"""Other choosers that are the simulator: before it was trained, and in front of the newest lines of
another user, as many as the user's own (:func:`usermirror_gym.scenes.swap_histories`)."""
SHOWN = ("accuracy", "log_loss")
"""What slices and paired differences are given of."""
SHOWN_COLUMNS = [METRICS.index(name) for name in SHOWN]
_ROUNDING = 1e-9


@dataclass(frozen=True)
class CardSizes:
    """How many scenes each check beyond the scores asks about; the first of the evaluation."""

    order: int = 150
    permutations: int = 8
    repeats: int = 60
    ladder: int = 300
    text_attacks: int = 150
    inputs: int = 600
    n_resamples: int = 2000
    """Of the bootstrap over users."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 1 if name in ("permutations", "n_resamples") else 0
            if value < least:
                raise ConfigError(f"{name} must be at least {least}, got {value!r}")


@dataclass(frozen=True)
class Asker:
    """Asks simulators with progress, and keeps what they say in a store."""

    store: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    display: Display = field(default_factory=lambda: Display(quiet=True))

    def __call__(
        self,
        simulator: UserSimulator,
        scenes: Sequence[Scene],
        what: str,
        *,
        part: str = "",
        keep: bool = True,
        chunk: int = CHUNK,
    ) -> Answer:
        """Answers to ``what`` is asked; ``part`` is a store of its own for other questions."""
        store = self.store / part if self.store is not None and keep else None
        with self.display.phase(shorten(what, 28), len(scenes), "choices") as progress:
            # The settings are those of the simulator that is judged, not of its base.
            settings = None if part == BASE else self.settings
            return answer(
                simulator, scenes, store=store, settings=settings, progress=progress, chunk=chunk
            )


@dataclass(frozen=True)
class Answered:
    """A chooser and its answers to the evaluation scenes."""

    name: str
    kind: str
    probs: FloatArray  # (S, K + 1)
    seconds: float = 0.0
    swapped: FloatArray | None = None  # to the same lists in front of another user's history

    @property
    def offers_outside(self) -> bool:
        """Whether the chooser ever gives *none of these* a probability."""
        return bool((self.probs[:, -1] > 0).any())


@dataclass(frozen=True)
class Context:
    """What checks may ask and look at; everybody is scored with one bootstrap over users.

    Attributes:
        choices: the evaluation scenes and what was really chosen.
        answered: everybody's answers to them; the first is the simulator that is judged.
        simulator: that simulator, for further questions.
        split: the data behind the scenes; ``None`` where there are only texts.
        table: the same scenes as rows of :data:`usermirror_gym.scenes.table.SCHEMA`.
        asker: puts further questions.
        remake: makes the simulator for another data set, if that can be done.
        sizes: of the checks.
        seed: of resamples and of whatever the checks draw.
    """

    choices: ObservedChoices
    answered: Sequence[Answered]
    simulator: UserSimulator
    split: TimeSplit | None = None
    table: pa.Table | None = None
    asker: Asker = field(default_factory=Asker)
    remake: Remake | None = None
    sizes: CardSizes = CardSizes()
    seed: int = 0

    @cached_property
    def bootstrap(self) -> UserBootstrap:
        """Over the users of the scenes, so that all differences are paired."""
        return self.resampled(self.choices.users)

    def resampled(self, users: IntArray) -> UserBootstrap:
        """As :attr:`bootstrap`, of other scenes."""
        return UserBootstrap(users, self.sizes.n_resamples, self.seed)

    @cached_property
    def scores(self) -> list[FloatArray]:
        """Of each chooser ``(S, 4)``: :data:`METRICS` among the items."""
        return [scores_given_click(row.probs, self.choices) for row in self.answered]

    @cached_property
    def paired(self) -> list[dict[str, Any]]:
        """The simulator minus everybody else: ``chooser``, ``against`` and :data:`SHOWN`."""
        own, *others = (scores[:, SHOWN_COLUMNS] for scores in self.scores)
        if not others:
            return []
        pairs = by_name(SHOWN, self.bootstrap.intervals(np.hstack([own - o for o in others])))
        return [
            {"chooser": self.answered[0].name, "against": row.name} | pair
            for row, pair in zip(self.answered[1:], pairs, strict=True)
        ]

    def ask(self, scenes: Sequence[Scene], what: str) -> FloatArray:
        """What the simulator answers, ``(S, K + 1)``."""
        return self.asker(self.simulator, scenes, what).probs

    def first(self, count: int) -> IntArray:
        """Rows of the first so many scenes that contain the choice."""
        return np.flatnonzero(self.choices.contains_choice)[:count]


@dataclass(frozen=True)
class Criterion:
    """One thing that must hold before a simulated user is believed.

    Attributes:
        name: what.
        measured: the numbers, in words.
        met: whether it holds; ``None`` where it was not measured.
        sure: whether another draw of users would say the same: the 95 % interval lies on one side
            of the bound.
    """

    name: str
    measured: str = ""
    met: bool | None = None
    sure: bool = True

    @property
    def answer(self) -> str:
        """``yes``, ``no``, ``yes, not certain`` ..."""
        if self.met is None:
            return "not measured"
        return ("yes" if self.met else "no") + ("" if self.sure else ", not certain")

    @classmethod
    def bounded(
        cls, name: str, block: Block | None, text: Callable[[Block], str], *,
        least: float | None = None, most: float | None = None,
    ) -> Criterion:  # fmt: skip
        """An interval that must reach ``least``, or stay within ``most``.

        It is sure if it does not hold the bound.  What never changes has none, and is sure.
        """
        if not block or block["mean"] is None:
            return cls(name)
        mean, low, high = block["mean"], block["low"], block["high"]
        bound = most if least is None else least
        unvaried = low is None or high is None
        sure = abs(mean) < _ROUNDING if unvaried else not low < bound < high
        met = mean <= bound if least is None else mean >= bound
        return cls(name, text(block), met, sure)


class Check:
    """One question that a fidelity card answers of a simulated user.

    A check has everything about its question in one file: it computes its part of the card, and
    says from a card alone, which may be old, what must hold, and what the page shows.  It defines
    what it has of these methods and is named in :data:`usermirror_gym.fidelity.checks.CHECKS`.
    """

    def run(self, context: Context) -> dict[str, Any]:
        """What is added to the card, by key; ``None`` or empty where it cannot be computed.

        Under ``choosers`` stands for everybody who answered what is added to their entry.
        """
        return {}

    def criteria(self, card: Card) -> Sequence[Criterion]:
        """What must hold."""
        return ()

    def sentences(self, card: Card) -> Sequence[str]:
        """What the numbers say; claims no more than they show.  Empty ones are left out."""
        return ()

    def tables(self, card: Card) -> Sequence[View | None]:
        """Tables, ``None`` instead of one without a row."""
        return ()

    def plot(self, card: Card) -> Plot | None:
        """What a plot shows better, if there is something to draw."""
        return None

    def facts(self, card: Card) -> Sequence[tuple[str, Any]]:
        """Further numbers by name, for the list of all that was measured."""
        return ()


def by_name(names: Sequence[str], intervals: Sequence[Interval]) -> list[dict[str, Any]]:
    """Runs of intervals, one per name, as dictionaries."""
    n = len(names)
    return [
        {name: interval._asdict() for name, interval in zip(names, run, strict=True)}
        for run in (intervals[i : i + n] for i in range(0, len(intervals), n))
    ]
