"""Choice models over features of the options: what a scene prints, or what its list alone shows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from usermirror_gym.corpus.checks.shortcuts import within_list
from usermirror_gym.data import TimeSplit
from usermirror_gym.data.appeal import appeal
from usermirror_gym.fidelity.baselines.base import (
    Baseline,
    Columns,
    Past,
    Settings,
    Stages,
    Trial,
    best,
    judge,
)
from usermirror_gym.fidelity.baselines.printed import item_numbers, item_words
from usermirror_gym.measures.choice_models import OptionScorer, fit_logit, fit_trees
from usermirror_gym.measures.choice_scores import ObservedChoices
from usermirror_gym.scenes import SceneBatch
from usermirror_gym.types import PAD, BoolArray, FloatArray

Learner = Literal["logit", "trees"]
Examples = list[tuple[ObservedChoices, FloatArray]]
"""Choices, and the features ``(S, K, F)`` of their options."""
_CUTS = (0.2, 0.4, 0.6, 0.8)
"""Of the choices to learn from: those after a cut are set against what was known at it."""


class NonPersonal(Baseline):
    """A conditional logit on :func:`~usermirror_gym.data.appeal.appeal`; it knows no user."""

    def settle(self, stages: Stages) -> Trial:
        values = self.build(stages.inner, {}, None)(stages.calibration.batch)
        return judge({}, values, stages.calibration)

    def build(self, past: Past, settings: Settings, store: Path | None) -> Columns:
        values = appeal(past.split).values
        return lambda batch: values[batch.slates]


@dataclass
class Printed(Baseline):
    """A model over printed features.

    Attributes:
        learner: what it is: see :mod:`usermirror_gym.measures.choice_models`.
        options: settings to try.
    """

    learner: Learner
    options: Sequence[Settings]

    def columns(self, past: Past) -> Columns:
        """The features, from what is known at the end of a past."""
        return past.printed.columns

    def examples(self, past: Past) -> Examples:
        """What is learned from, all of it before the end of the past."""
        return [(past.choices, past.printed_values)]

    def settle(self, stages: Stages) -> Trial:
        choices, inner = stages.calibration, stages.inner
        examples, values = self.examples(inner), self.columns(inner)(choices.batch)

        def attempt(settings: Settings) -> Trial:
            score = self._learn(examples, settings, inner.seed)
            return judge(settings, _feature(values, choices.shown, score), choices)

        return best(attempt(settings) for settings in self.options)

    def build(self, past: Past, settings: Settings, store: Path | None) -> Columns:
        score = self._learn(self.examples(past), settings, past.seed)
        columns = self.columns(past)
        return lambda batch: _feature(columns(batch), batch.slates != PAD, score)

    def _learn(self, examples: Examples, settings: Settings, seed: int) -> OptionScorer:
        """From the lists that contain the choice."""
        kept = [choices.contains_choice for choices, _ in examples]
        rows = list(zip(examples, kept, strict=True))
        values = np.concatenate([v[k] for (_, v), k in rows])
        shown = np.concatenate([c.shown[k] for (c, _), k in rows])
        targets = np.concatenate([c.targets[k] for (c, _), k in rows])
        if self.learner == "logit":
            return fit_logit(values, shown, targets, **settings)
        return fit_trees(values, shown, targets, seed, **settings)


@dataclass
class ListModel(Printed):
    """A model over what the list alone shows: appeal, words and numbers of the items, and ranks.

    A train choice is one of the interactions that are counted.  So that it does not count for
    itself, it is set against what was known at a cut before it.
    """

    learner: Learner = "logit"
    options: Sequence[Settings] = field(
        default_factory=lambda: [{"ridge": ridge} for ridge in (1.0, 10.0, 30.0, 100.0, 300.0)]
    )

    def columns(self, past: Past) -> Columns:
        return list_columns(past.split)

    def examples(self, past: Past) -> Examples:
        times = past.choices.times
        assert times is not None  # Stages knows when a choice was made
        cuts = [*np.unique(np.quantile(times, _CUTS, method="higher")), past.split.t0]
        found = []
        for cut, end in itertools.pairwise(cuts):
            choices = past.choices.select((times >= cut) & (times < end))
            columns = list_columns(TimeSplit(past.split.dataset, int(cut)))
            found.append((choices, columns(choices.batch)))
        return found


def list_columns(split: TimeSplit) -> Columns:
    """Features of options that the items of their list have; the user is nobody.

    The numbers of :func:`~usermirror_gym.data.appeal.appeal` and of the catalogue, each beside how
    it compares with the rest of the list, and the words of columns that have few (genres).
    """
    found = appeal(split)
    numbers = dict(zip(found.names, found.values.T, strict=True)) | item_numbers(split.dataset)
    words = [w.matrix.toarray() for w in item_words(split.dataset).values() if w.each]
    marks = np.hstack([np.zeros((split.dataset.n_items + 1, 0)), *words])

    def columns(batch: SceneBatch) -> FloatArray:
        mask = batch.slates != PAD
        each = [marks[batch.slates]]
        for name, values in numbers.items():
            shown = values[batch.slates]
            each.append(np.stack([shown, *within_list(name, shown, mask).values()], axis=2))
        return np.where(mask[:, :, None], np.concatenate(each, axis=2), 0.0)

    return columns


def _feature(values: FloatArray, mask: BoolArray, score: OptionScorer) -> FloatArray:
    """``(S, K, 1)`` scores of features ``(S, K, F)``; 0 where there is no option."""
    return np.where(mask, score(values, mask), 0.0)[:, :, None]
