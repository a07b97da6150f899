"""What the teacher is asked: sessions with agents, in parts that are kept once they are played.

Each part is a function of the settings, the seed and its number, so that a run that was killed asks
only for the parts that are missing, and ends with the same answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np

from usermirror_gym.agents import Agent
from usermirror_gym.data import TimeSplit
from usermirror_gym.envs import SlateVectorEnv, make_world
from usermirror_gym.errors import ConfigError
from usermirror_gym.files import load_arrays, save_arrays
from usermirror_gym.progress import Display
from usermirror_gym.scenes.randomness import keys, uniforms
from usermirror_gym.scenes.scene import Scene, SceneBatch
from usermirror_gym.simulators.base import (
    ChoiceBatch,
    UserSimulator,
    Wrapping,
    forget_questions,
)
from usermirror_gym.simulators.surrogate.histories import Past, Whole
from usermirror_gym.simulators.surrogate.surrogate import Questions
from usermirror_gym.train.surrogate.config import NetworkSettings, SurrogateConfig
from usermirror_gym.types import FloatArray, IntArray, Observation

ROLES = ("train", "validation", "new lists", "new users")
"""``new lists``: of users that were learned from.  ``new users``: of others.  The report is of
these two."""
_WIDER = 5
_WHOLE = "whole_"
"""Before the names of the columns of whole histories in a file of answers."""
_ASKED_AT_ONCE = 64
_USERS_STREAM, _PICK_STREAM, _WANDER_STREAM = 1, 2, 3


@dataclass(frozen=True)
class Answers:
    """S questions and what the teacher answered.

    Attributes:
        questions: as the surrogate reads them.
        probs: ``(S, K + 1)``, *none of these* last.
        sources: ``(S,)`` names: whose list it was.
    """

    questions: Questions
    probs: FloatArray
    sources: np.ndarray

    def __len__(self) -> int:
        return len(self.probs)

    def part(self, rows: np.ndarray) -> Answers:
        """Some of them."""
        return Answers(self.questions.part(rows), self.probs[rows], self.sources[rows])

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """All of them, with room for the longest list."""
        width = max(p.questions.slates.shape[1] for p in parts)
        slates = [_widened(p.questions.slates, width) for p in parts]
        probs = [np.column_stack([_widened(p.probs[:, :-1], width), p.probs[:, -1]]) for p in parts]
        users, memory, session = (
            np.concatenate([getattr(p.questions, name) for p in parts])
            for name in ("users", "memory", "session")
        )
        wholes = [p.questions.whole for p in parts if p.questions.whole is not None]
        whole = Whole.joined(wholes) if wholes else None
        questions = Questions(users, memory, session, np.concatenate(slates), whole)
        return cls(questions, np.concatenate(probs), np.concatenate([p.sources for p in parts]))


@dataclass(frozen=True)
class Part:
    """Sessions that are played and kept together."""

    role: str
    number: int
    episodes: int
    slate_size: int
    users: IntArray
    sources: tuple[str, ...]

    @property
    def file(self) -> str:
        """Its name in the folder of answers."""
        return f"{self.role.replace(' ', '-')}-{self.number:05d}.npz"


def ask(
    teacher: UserSimulator,
    scenes: Sequence[Scene],
    lines: int,
    source: str,
    past: Past | None = None,
) -> Answers:
    """The teacher's answers to given scenes.

    Args:
        lines: of the memory that the surrogate reads.
        source: whose lists they are.
        past: reads whole histories, of a surrogate that does.
    """
    forget_questions(teacher)
    parts = []
    for start in range(0, len(scenes), _ASKED_AT_ONCE):
        some = SceneBatch.of(scenes[start : start + _ASKED_AT_ONCE])
        questions = Questions.of(some, lines, past)
        parts.append(_answered(questions, teacher.choose(some), source))
    if not parts:
        raise ConfigError("there are no scenes to ask about: record some first")
    return Answers.joined(parts)


def ask_sessions(
    teacher: UserSimulator,
    split: TimeSplit,
    config: SurrogateConfig,
    agents: Mapping[str, Agent],
    folder: Path,
    *,
    display: Display,
) -> dict[str, Answers]:
    """Play all sessions, or those that are missing in the folder; the answers by role.

    Args:
        agents: fitted; those of the settings.
        folder: of the parts.

    Raises:
        ConfigError: too few users to leave some out.
        RunError: a part that cannot be read.
    """
    plan, past = list(plan_parts(split, config)), past_of(split, config.network)
    total = sum(part.episodes for part in plan) * config.questions.steps
    found: dict[str, list[Answers]] = {role: [] for role in ROLES}
    with display.phase("asking", total, "question") as advance:
        for part in plan:
            path = folder / part.file
            if path.is_file():
                answers = read_answers(path)
            else:
                answers = _play(teacher, split, config, agents, part, past)
                write_answers(path, answers)
            found[part.role].append(answers)
            advance(len(answers))
    return {role: Answers.joined(parts) for role, parts in found.items()}


def past_of(split: TimeSplit, network: NetworkSettings) -> Past | None:
    """What reads whole histories for such a network; ``None`` if it reads none."""
    return Past(split, network.history) if network.history else None


def plan_parts(split: TimeSplit, config: SurrogateConfig) -> Iterator[Part]:
    """All parts; their questions are at most those of the settings."""
    asked = config.questions
    known, new = _users(split, config)
    sessions = asked.total // asked.steps
    of_report = max(int(sessions * asked.report / 2), 1)
    counts = {
        "validation": max(int(sessions * asked.validation), 1),
        "new lists": of_report,
        "new users": of_report,
    }
    counts = {"train": sessions - sum(counts.values()), **counts}
    if counts["train"] < 1:
        raise ConfigError(
            f"{asked.total} questions are {sessions} sessions of {asked.steps} lists, which leaves "
            "none to learn from: raise questions.total"
        )
    for role, count in counts.items():
        sources = asked.agents
        if role.startswith("new"):
            sources += asked.strangers
        for number, first in enumerate(range(0, count, asked.episodes)):
            yield Part(
                role, number, min(asked.episodes, count - first),
                asked.slate_sizes[number % len(asked.slate_sizes)],
                new if role == "new users" else known, sources,
            )  # fmt: skip


def _users(split: TimeSplit, config: SurrogateConfig) -> tuple[IntArray, IntArray]:
    """Users that are learned from, and others."""
    users = split.users_with_history(config.questions.min_history)
    count = round(len(users) * config.questions.new_users)
    if not 0 < count < len(users):
        raise ConfigError(
            f"{len(users)} users with {config.questions.min_history} interactions before T0 cannot "
            f"be parted into known and new ones (questions.new_users = "
            f"{config.questions.new_users}): lower min_history"
        )
    mixed = np.random.default_rng([config.seed, _USERS_STREAM]).permutation(users)
    return np.sort(mixed[count:]), np.sort(mixed[:count])


class _Asked(Wrapping):
    """The teacher, in an environment whose every question is kept."""

    def __init__(self, teacher: UserSimulator, lines: int, past: Past | None) -> None:
        self.inner, self.lines, self.past, self.name = teacher, lines, past, teacher.name
        self.parts: list[Answers] = []

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        answer = self.inner.choose(scenes)
        self.parts.append(_answered(Questions.of(scenes, self.lines, self.past), answer, ""))
        return answer


def _play(
    teacher: UserSimulator,
    split: TimeSplit,
    config: SurrogateConfig,
    agents: Mapping[str, Agent],
    part: Part,
    past: Past | None,
) -> Answers:
    asked, settings = _Asked(teacher, config.network.lines, past), config.questions
    world = make_world(split, simulator=asked, history_size=settings.history_size, users=part.users)
    env = SlateVectorEnv(
        part.episodes, world, slate_size=part.slate_size, session="stay",
        max_episode_steps=None,
    )  # fmt: skip
    place = np.arange(part.episodes)
    size = part.slate_size, min(_WIDER * part.slate_size, split.dataset.n_items)
    own = keys(config.seed, np.full(part.episodes, ROLES.index(part.role)),
               np.full(part.episodes, part.number), place)  # fmt: skip
    # Sources take turns from part to part as well: a small part does not begin anew.
    of_row = (place + part.number * part.episodes) % len(part.sources)
    users = part.users[(uniforms(own, _USERS_STREAM)[:, 0] * len(part.users)).astype(np.int64)]
    seeds = (uniforms(own, _USERS_STREAM, first=1)[:, 0] * 2**31).astype(np.int64).tolist()
    forget_questions(teacher)
    observations, _ = env.reset(seed=seeds, options={"user_id": users})
    for step in range(settings.steps):
        slates = np.zeros((part.episodes, part.slate_size), np.int64)
        for number, source in enumerate(part.sources):
            rows = np.flatnonzero(of_row == number)
            if len(rows):
                seen = {name: values[rows] for name, values in observations.items()}
                slates[rows] = _lists(agents[source], seen, size, own[rows], step, settings.wander)
        observations, *_ = env.step(slates)
    answers = Answers.joined(asked.parts)
    sources = np.tile(np.array(part.sources)[of_row], settings.steps)
    return Answers(answers.questions, answers.probs, sources)


def _lists(
    agent: Agent,
    observations: Observation,
    size: tuple[int, int],
    own: np.ndarray,
    step: int,
    wander: float,
) -> IntArray:
    """An agent's lists ``(n, k)``, some of them from further down its ranking.

    Args:
        size: k, and how much of the ranking is looked at.
        own: ``(n,)`` random keys of the sessions.
    """
    k, width = size
    ranked = agent.recommend(observations, width)
    draws = uniforms(own, _PICK_STREAM, n=width, first=step * width)
    wanders = uniforms(own, _WANDER_STREAM, first=step)[:, 0] < wander
    order = np.where(wanders[:, None], draws, np.arange(width)).argsort(axis=1, kind="stable")
    return np.take_along_axis(ranked, order[:, :k], axis=1)


def _answered(questions: Questions, answer: ChoiceBatch, source: str) -> Answers:
    # The environment's own arrays change with its next step.
    kept = questions.part(np.arange(len(questions)))
    return Answers(kept, np.array(answer.probs, np.float64), np.full(len(kept), source))


def write_answers(path: Path, answers: Answers) -> None:
    """An ``.npz`` file, whole or not at all."""
    columns = dict(vars(answers.questions))
    whole = columns.pop("whole")
    more = {} if whole is None else {_WHOLE + name: c for name, c in whole.arrays().items()}
    save_arrays(path, probs=answers.probs, sources=answers.sources, **columns, **more)


def read_answers(path: Path) -> Answers:
    """What :func:`write_answers` wrote.

    Raises:
        RunError: it cannot be read.
    """
    names = [field.name for field in fields(Questions) if field.name != "whole"]
    found = load_arrays(path, *names, "probs", "sources", cure="Delete it to ask again.")
    more = {n.removeprefix(_WHOLE): c for n, c in found.items() if n.startswith(_WHOLE)}
    whole = Whole.of_arrays(more) if more else None
    questions = Questions(**{name: found[name] for name in names}, whole=whole)
    return Answers(questions, found["probs"], found["sources"])


def _widened(columns: np.ndarray, width: int) -> np.ndarray:
    return np.pad(columns, ((0, 0), (0, width - columns.shape[1])))
