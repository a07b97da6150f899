"""What a distillation came to: on lists and users that were not learned from, and how fast."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from usermirror_gym.data import TimeSplit
from usermirror_gym.scenes.scene import SceneBatch
from usermirror_gym.simulators import UserSimulator
from usermirror_gym.simulators.surrogate import SurrogateSimulator
from usermirror_gym.train.surrogate_answers import Answers
from usermirror_gym.train.surrogate_config import SurrogateConfig
from usermirror_gym.train.surrogate_measures import Agreement, summary
from usermirror_gym.types import FloatArray, IntArray

_RESAMPLES = 2000
_FEW, _MANY = 8, 1024
_SLOW = 0.1
"""A simulator that takes longer for a few scenes, in seconds, is not asked about many."""


def report(
    student: SurrogateSimulator,
    teacher: UserSimulator,
    split: TimeSplit,
    answers: Mapping[str, Answers],
    config: SurrogateConfig,
) -> dict[str, Any]:
    """Figures of the roles ``new lists`` and ``new users``, by source of the lists.

    ``constant`` is what knowing nothing of list and user comes to: the mean answer of training to
    lists of that length.  ``times_as_fast`` compares both simulators on the same scenes.
    """
    roles = {role: answers[role] for role in ("new lists", "new users")}
    return {
        "questions": {role: len(own) for role, own in answers.items()},
        "report": {role: _by_source(student, own, config.seed) for role, own in roles.items()},
        "constant": {role: _constant(answers["train"], own) for role, own in roles.items()},
        "times_as_fast": speed_ratio(student, teacher, split, config),
    }


def speed_ratio(
    student: UserSimulator, teacher: UserSimulator, split: TimeSplit, config: SurrogateConfig
) -> float:
    """Choices a second of the student, divided by those of the teacher, on this machine now."""
    users = split.users_with_history(config.questions.min_history)
    rows = np.resize(users, _MANY)
    few, many = (_scenes(split, rows[:n], config) for n in (_FEW, _MANY))
    student.choose(many)
    own = _MANY / _seconds(student, many)
    slow = _seconds(teacher, few, 1) > _SLOW
    return own * _seconds(teacher, few if slow else many) / (_FEW if slow else _MANY)


def _seconds(simulator: UserSimulator, scenes: SceneBatch, times: int = 3) -> float:
    """The fastest of some calls: others may be using the machine."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        simulator.choose(scenes)
        found.append(time.perf_counter() - start)
    return min(found)


def _scenes(split: TimeSplit, users: IntArray, config: SurrogateConfig) -> SceneBatch:
    """Random lists at T0."""
    memory = split.memory(users, config.questions.history_size)
    k, rng = config.questions.slate_sizes[0], np.random.default_rng(config.seed)
    n_items = split.dataset.n_items
    slates = np.stack([rng.choice(n_items, min(k, n_items), replace=False) + 1 for _ in users])
    none = np.zeros((len(users), 0), np.int64)
    return SceneBatch(
        user_ids=users, history=memory.items, ratings=memory.ratings, ages=memory.ages,
        history_lengths=memory.lengths, turn_slates=none[:, :, None].repeat(k, axis=2),
        turn_chosen=none, turn_counts=np.zeros(len(users), np.int64), slates=slates,
    )  # fmt: skip


def _by_source(student: SurrogateSimulator, answers: Answers, seed: int) -> dict[str, Any]:
    agreement = Agreement.of(answers.probs, student.answer(answers.questions))
    parts = {"all": np.ones(len(answers), np.bool_)}
    parts |= {str(name): answers.sources == name for name in np.unique(answers.sources)}
    users = answers.questions.users
    return {
        name: summary(agreement.part(rows), users[rows], seed, _RESAMPLES)
        for name, rows in parts.items()
    }


def _constant(train: Answers, answers: Answers) -> dict[str, float]:
    """KL and agreement of the mean answer of training."""
    guess = np.zeros_like(answers.probs)
    sizes, known = ((a.questions.slates != 0).sum(axis=1) for a in (answers, train))
    for size in np.unique(sizes):
        guess[sizes == size] = _mean(train.probs[known == size], int(size), guess.shape[1])
    found = Agreement.of(answers.probs, guess)
    return {"kl": float(found.kl.mean()), "agreement": float(found.same.mean())}


def _mean(probs: FloatArray, size: int, width: int) -> FloatArray:
    """``(width,)`` mean answer to lists of a length; all options alike where there were none."""
    mean = np.zeros(width)
    mean[:size] = probs[:, :size].mean(axis=0) if len(probs) else 1 / (size + 1)
    mean[-1] = 1 - mean[:-1].sum()
    return mean
