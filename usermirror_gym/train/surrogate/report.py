"""What a distillation came to: on lists and users that were not learned from, and how fast."""

from __future__ import annotations

import timeit
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.stats import kendalltau, spearmanr

from usermirror_gym.data import TimeSplit
from usermirror_gym.files import to_json_types
from usermirror_gym.measures.bootstrap import UserBootstrap
from usermirror_gym.scenes.scene import SceneBatch
from usermirror_gym.simulators import UserSimulator
from usermirror_gym.simulators.base import history_lines
from usermirror_gym.simulators.surrogate.surrogate import SurrogateSimulator
from usermirror_gym.train.surrogate.answers import Answers
from usermirror_gym.train.surrogate.config import SurrogateConfig
from usermirror_gym.types import BoolArray, FloatArray, IntArray

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
    lines = max(config.questions.history_size, history_lines(student))
    few, many = (_scenes(split, rows[:n], config, lines) for n in (_FEW, _MANY))
    student.choose(many)
    own = _MANY / _seconds(student, many)
    slow = _seconds(teacher, few, 1) > _SLOW
    return own * _seconds(teacher, few if slow else many) / (_FEW if slow else _MANY)


def _seconds(simulator: UserSimulator, scenes: SceneBatch, times: int = 3) -> float:
    """The fastest of some calls: others may be using the machine."""
    return min(timeit.repeat(lambda: simulator.choose(scenes), number=1, repeat=times))


def _scenes(split: TimeSplit, users: IntArray, config: SurrogateConfig, lines: int) -> SceneBatch:
    """Random lists at T0, as an environment has them."""
    longest = max((len(own) for own in split.histories.values()), default=1)
    memory = split.memory(users, min(lines, longest))
    k, rng = config.questions.slate_sizes[0], np.random.default_rng(config.seed)
    n_items = split.dataset.n_items
    slates = np.stack([rng.choice(n_items, min(k, n_items), replace=False) + 1 for _ in users])
    batch = SceneBatch.first_lists(users, memory, slates)
    known = split if config.network.history else None
    return SceneBatch.lazy(len(batch), lambda name: getattr(batch, name), at_t0=known)


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


_TINY = 1e-12
_BINS = 10
_FEWEST = 5
"""Lists of a user from which their order says something."""


@dataclass(frozen=True)
class Agreement:
    """Two answers to each of S scenes, compared.

    Attributes:
        kl: ``(S,)`` nats from the student's to the teacher's distribution over all options.
        same: ``(S,)`` whether the likeliest option, *none of these* included, is the same.
        variation: ``(S,)`` total variation distance.
        values: ``(2, S)`` what the list is worth, ``1 - P(none of these)``: teacher, student.
    """

    kl: FloatArray
    same: BoolArray
    variation: FloatArray
    values: FloatArray

    @classmethod
    def of(cls, teacher: FloatArray, student: FloatArray) -> Self:
        """Of probabilities ``(S, K + 1)``, *none of these* last."""
        logs = np.log(np.maximum(teacher, _TINY)) - np.log(np.maximum(student, _TINY))
        return cls(
            kl=(np.where(teacher > 0, teacher * logs, 0.0)).sum(axis=1),
            same=teacher.argmax(axis=1) == student.argmax(axis=1),
            variation=np.abs(teacher - student).sum(axis=1) / 2,
            values=1.0 - np.stack([teacher[:, -1], student[:, -1]]),
        )

    def part(self, rows: BoolArray) -> Agreement:
        """Some of them."""
        return Agreement(self.kl[rows], self.same[rows], self.variation[rows], self.values[:, rows])


def summary(agreement: Agreement, users: IntArray, seed: int, n_resamples: int) -> dict[str, Any]:
    """What the report says of some scenes.

    Args:
        users: ``(S,)``, whose resampling gives the intervals.

    Returns:
        ``kl``, ``agreement`` and ``total_variation`` as intervals; rank correlations of the
        values of the lists; ``within_user_spearman``, the mean over users of that of their own
        lists; ``outside``, how well P(*none of these*) fits.
    """
    columns = np.column_stack([agreement.kl, agreement.same, agreement.variation])
    kl, same, variation = UserBootstrap(users, n_resamples, seed).intervals(columns)
    found: dict[str, Any] = to_json_types({
        "scenes": len(users),
        "users": len(np.unique(users)),
        "kl": kl._asdict(),
        "agreement": same._asdict(),
        "total_variation": variation._asdict(),
        "spearman": _correlation(spearmanr, agreement.values),
        "kendall": _correlation(kendalltau, agreement.values),
        "within_user_spearman": _within_users(agreement, users),
        "outside": outside_calibration(agreement),
    })  # fmt: skip
    return found


def outside_calibration(agreement: Agreement) -> dict[str, float]:
    """Mean P(*none of these*) of both, and ``error``: the mean distance of the two within ten
    equally large groups of lists that the student gives alike probabilities."""
    teacher, student = 1.0 - agreement.values
    groups = np.array_split(np.argsort(student, kind="stable"), min(_BINS, len(student)))
    error = sum(len(g) * abs(teacher[g].mean() - student[g].mean()) for g in groups)
    return {
        "teacher": float(teacher.mean()),
        "student": float(student.mean()),
        "error": float(error / len(student)),
    }


def _within_users(agreement: Agreement, users: IntArray) -> float:
    own = [_correlation(spearmanr, agreement.values[:, users == u]) for u in np.unique(users)]
    known = [value for value in own if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _correlation(kind: Any, values: FloatArray) -> float:
    if values.shape[1] < _FEWEST or np.ptp(values, axis=1).min() == 0:
        return float("nan")
    return float(kind(values[0], values[1]).statistic)
