"""Distilling a simulator into a surrogate: ask it, learn its probabilities, say how near one came.

Knowledge distillation (Hinton, Vinyals & Dean, Distilling the knowledge in a neural network, 2015)
on whole probability vectors, *none of these* included.  The teacher may be slow: every answer is on
the disk soon after it was given, and no question is asked twice.

config.json, teacher.json     the settings, and whose answers these are
answers/                      sessions that were played, with the answers
words.npy                     what the teacher's LLM says of the items
fit.safetensors               where the training is
checkpoint/                   the surrogate; it appears when it is whole
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np

from usermirror_gym.agents import Agent, make_agent
from usermirror_gym.data import TimeSplit
from usermirror_gym.envs import make_world
from usermirror_gym.errors import ConfigError
from usermirror_gym.files import replacing_folder
from usermirror_gym.progress import Display
from usermirror_gym.run_folder import keep_same, run_folder
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.simulators import UserSimulator
from usermirror_gym.simulators.base import fingerprint
from usermirror_gym.simulators.checkpoint import remember_own, write_simulator
from usermirror_gym.simulators.surrogate.profile_codes import profile_features
from usermirror_gym.simulators.surrogate.start import start_as
from usermirror_gym.simulators.surrogate.surrogate import (
    Catalogue,
    SurrogateFacts,
    SurrogateSimulator,
    read_surrogate,
    write_surrogate,
)
from usermirror_gym.simulators.surrogate.surrogate_net import NetShape, SurrogateNet
from usermirror_gym.train.surrogate.answers import Answers, ask, ask_sessions
from usermirror_gym.train.surrogate.card import FACTS_FILE, write_surrogate_card
from usermirror_gym.train.surrogate.config import (
    FitSettings,
    NetworkSettings,
    SurrogateConfig,
)
from usermirror_gym.train.surrogate.fit import fit, item_words
from usermirror_gym.train.surrogate.report import report
from usermirror_gym.types import Float32Array

RENEWAL = FitSettings(epochs=30, batch_size=64, learning_rate=2e-3, weight_decay=0.0, patience=8)
"""Of :func:`redistil`: few scenes, and a network that knows most already."""
_HELD_OUT = 0.2


def train_surrogate(config: SurrogateConfig, folder: str | Path, *, display: Display) -> Path:
    """:func:`distill` with the teacher and the data that the settings name."""
    world = make_world(
        config.dataset, data_folder=config.data_folder, simulator=config.teacher,
        simulator_options=config.teacher_options,
    )  # fmt: skip
    return distill(world.simulator, world.split, config, folder, display=display)


def distill(
    teacher: UserSimulator,
    split: TimeSplit,
    config: SurrogateConfig,
    folder: str | Path,
    *,
    agents: Mapping[str, Agent] | None = None,
    display: Display,
) -> Path:
    """Run a distillation to its end, or go on with it.

    Args:
        teacher: any simulator; asked at most ``config.questions.total`` questions.
        split: the data whose users it plays.
        config: the settings; see
            :func:`~usermirror_gym.train.surrogate.config.read_surrogate_config`.
        folder: the run's own folder.
        agents: fitted ones, by the names that the settings give them; others are made.
        display: says what is going on.

    Returns:
        The folder of the surrogate, for ``make_simulator``.

    Raises:
        RunError: the folder holds a run with other settings, teacher or data, or something
            else, or another process works in it.
        UserMirrorError: whatever a step raises; what was done stays, and the next run goes on.
    """
    folder = Path(folder)
    checkpoint = folder / "checkpoint"
    with run_folder(folder, config, "training run"):
        about = {
            "teacher": fingerprint(teacher), "catalogue": asdict(Catalogue.of(split.dataset)),
            "t0": split.t0, "data": split.dataset.digest,
        }  # fmt: skip
        keep_same(folder / "teacher.json", about, f"{folder} has answers to other questions")
        if (checkpoint / FACTS_FILE).is_file():
            return checkpoint
        given, asked = agents or {}, config.questions
        agents = {
            name: given.get(name) or make_agent(
                name, seed=config.seed, progress=not display.quiet, simulator=teacher
            ).fit(split)
            for name in dict.fromkeys((*asked.agents, *asked.strangers))
        }  # fmt: skip
        words = None
        student = new_student(split, config.network, teacher=teacher.name, seed=config.seed)
        # Before anything is asked: sizes that do not fit are told now.
        own = config.network.items == "teacher" and start_as(student, teacher)
        answers = ask_sessions(teacher, split, config, agents, folder / "answers", display=display)
        if not own:
            words = item_words(
                teacher, split.dataset.n_items, config.network, cache=folder / "words.npy"
            )
            student = new_student(
                split, config.network, words, teacher=teacher.name, seed=config.seed
            )
        with display.phase("learning", config.fit.epochs, "epoch") as advance:
            curve = fit(
                student, answers["train"], answers["validation"], config.fit,
                seed=config.seed, state=folder / "fit.safetensors", progress=advance,
            )  # fmt: skip
        # A folder's name means nothing elsewhere.
        name = teacher.name if Path(config.teacher).expanduser().exists() else config.teacher
        settings = {"checkpoint": name, "readout": "surrogate", "domain": split.dataset.domain}
        with replacing_folder(checkpoint) as new:
            write_surrogate(new, student.net, student.facts)
            write_simulator(new, settings)
            stored = SurrogateSimulator(*read_surrogate(new), split)  # rounded as in the file
            facts = report(stored, teacher, split, answers, config)
            begun: Literal["teacher", "words", "random"] = (
                "teacher" if own else "random" if words is None else "words"
            )
            write_surrogate_card(new, config, stored, split, facts, curve, begun)
            remember_own(new / FACTS_FILE)
    return checkpoint


def redistil(
    surrogate: SurrogateSimulator,
    teacher: UserSimulator,
    scenes: Sequence[Scene] | Answers,
    *,
    replay: Answers | None = None,
    settings: FitSettings = RENEWAL,
    seed: int = 0,
) -> SurrogateSimulator:
    """Teach a surrogate the lists of today, and remind it of those of before.

    Fresh and old questions weigh alike.  A fifth of both says when to stop, so that the surrogate
    is never worse on these than it was.

    Args:
        surrogate: learns; a name of its own follows from its new weights.
        teacher: is asked about the scenes.
        scenes: recorded in drifted sessions, or the teacher's answers to such.
        replay: answers to questions of before
            (:func:`~usermirror_gym.train.surrogate.answers.read_answers`); without any, what is not
            in ``scenes`` may be forgotten.
        settings: of the training.
        seed: of the order of the questions.

    Returns:
        the same surrogate.

    Raises:
        ConfigError: fewer than two scenes.
    """
    fresh = (
        scenes if isinstance(scenes, Answers)
        else ask(teacher, scenes, surrogate.net.shape.lines, "fresh", surrogate.past)
    )  # fmt: skip
    if len(fresh) < 2:
        raise ConfigError(f"{len(fresh)} scenes teach nothing: record at least 2")
    train, validation = _parted(fresh, seed)
    if replay is not None and len(replay) > 1:
        old_train, old_validation = _parted(replay, seed)
        train = Answers.joined(_alike(train, old_train))
        validation = Answers.joined(_alike(validation, old_validation))
    fit(surrogate, train, validation, settings, seed=seed)
    return surrogate


def new_student(
    split: TimeSplit,
    settings: NetworkSettings,
    words: Float32Array | None = None,
    *,
    teacher: str,
    seed: int = 0,
) -> SurrogateSimulator:
    """A surrogate that has learned nothing yet.

    Args:
        words: of :func:`~usermirror_gym.train.surrogate.fit.item_words`.
        teacher: name of whom it shall imitate.
        seed: of the initial weights.
    """
    features = profile_features(split.dataset.users)
    shape = NetShape(
        split.dataset.n_items, sum(feature.size for feature in features), settings.dim,
        settings.tastes, settings.lines, settings.hidden, settings.history, settings.follow,
        settings.once,
    )  # fmt: skip
    net = SurrogateNet(shape, split.popularity, seed=seed, words=words)
    facts = SurrogateFacts(teacher, Catalogue.of(split.dataset), features)
    return SurrogateSimulator(net, facts, split)


def _parted(answers: Answers, seed: int) -> tuple[Answers, Answers]:
    """What is learned from, and what says when to stop; at least one question each."""
    order = np.random.default_rng(seed).permutation(len(answers))
    count = min(max(round(_HELD_OUT * len(answers)), 1), len(answers) - 1)
    return answers.part(np.sort(order[count:])), answers.part(np.sort(order[:count]))


def _alike(one: Answers, other: Answers) -> list[Answers]:
    """Both, the shorter one repeated until it is as long as the other."""
    size = max(len(one), len(other))
    return [answers.part(np.arange(size) % len(answers)) for answers in (one, other)]
