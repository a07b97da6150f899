"""The interaction experiment: do recommenders get better by feedback of simulated users?

After Wei et al., *Mirroring Users* (ACL 2026), with the controls that it takes to read the answer:
recommenders are fitted on what was before T0, then anew with feedback added, as much from every
source (see :mod:`feedback`), and judged by what users really took from T1
on.  Within a model and a seed all arms have the same users, the same test items and the same items
that may be recommended.  A run folder goes on where it was::

    run.json                          settings; a folder with other settings is refused
    feedback/<model>-<seed>.json      what each arm was given
    scores/<model>-<seed>-<arm>.json  metrics by user
    retraining.json                   the outcome, written last
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from usermirror_gym.agents import RecBoleAgent, observations_from_split
from usermirror_gym.agents.ranking import top_k
from usermirror_gym.benchmark.offline import list_scores
from usermirror_gym.data import load_dataset, time_cut
from usermirror_gym.envs import World, make_world
from usermirror_gym.errors import ConfigError, DataError
from usermirror_gym.experiments.retraining.config import RetrainConfig
from usermirror_gym.experiments.retraining.feedback import (
    ARMS,
    Feedback,
    Timeline,
    draw_feedback,
    make_logging_policy,
    taken_later,
)
from usermirror_gym.experiments.retraining.summary import METRICS, summarise_retraining
from usermirror_gym.files import kept_json, read_json, write_json
from usermirror_gym.progress import Display
from usermirror_gym.run_folder import run_folder
from usermirror_gym.simulators.checkpoint import find_simulator
from usermirror_gym.types import IntArray


def retrain(
    config: RetrainConfig, folder: str | Path, *, display: Display | None = None
) -> dict[str, Any]:
    """Run, or go on with, the experiment; returns the content of ``retraining.json``.

    Raises:
        RunError: the folder holds a run with other settings, or something else, or another process
            works in it.
        ConfigError: the cuts do not fit, or the simulated user was trained on what came after T0.
        DataError: nobody has all that is needed.
    """
    folder, display = Path(folder), display or Display(quiet=True)
    split = time_cut(load_dataset(config.dataset, config.data_folder), config.cut)
    check_knowledge(config.simulator, split.dataset.name, split.t0)
    timeline = Timeline.of(split, config.until, config.min_history)
    world = make_world(
        split, simulator=config.simulator, simulator_options=config.simulator_options,
        min_history=config.min_history,
    )  # fmt: skip
    with run_folder(folder, config.settings(), inputs=world.inputs):
        cells = [(model, seed) for model in config.models for seed in range(config.seeds)]
        with display.phase("trainings", len(cells) * len(ARMS), "trainings") as progress:
            runs = [_Cell(config, timeline, world, folder, *cell).run(progress) for cell in cells]
        results = summarise_retraining(config.settings(), timeline, runs)
        write_json(folder / "retraining.json", results)
    return results


@dataclass(frozen=True)
class _Cell:
    config: RetrainConfig
    timeline: Timeline
    world: World
    folder: Path
    model: str
    seed: int

    def run(self, progress: Callable[[int], None]) -> dict[str, Any]:
        """Fits what is not there yet.

        Returns:
            ``model`` and ``seed``; ``users``: ids of the U tested ones; ``scores``: by arm and
            metric, a value per tested user; ``amount``: items that each arm was given in all;
            ``taken``: by arm, how many of them the users really took after T0.
        """
        feedback = self._feedback()
        tests = self.timeline.tests(feedback)
        if not tests:
            raise DataError(
                f"{self.model}, seed {self.seed}: no test item is left that no arm was given; "
                "take a smaller amount, or move the cuts"
            )
        scores = {}
        for arm in ARMS:
            scores[arm] = self._scores(arm, feedback, tests)
            progress(1)
        return {
            "model": self.model, "seed": self.seed, "users": list(tests), "scores": scores,
            "amount": taken_later(self.timeline, feedback["real"])[1],
            "taken": {arm: taken_later(self.timeline, feedback[arm])[0] for arm in ARMS},
        }  # fmt: skip

    def _feedback(self) -> Feedback:
        def make() -> Feedback:
            policy = make_logging_policy(
                self.config.logging_policy, self._base(), self.timeline.split, self.seed
            )
            return draw_feedback(
                self.timeline, self.world, policy, amount=self.config.amount,
                lists=self.config.lists, slate_size=self.config.slate_size, seed=self.seed,
            )  # fmt: skip

        stored = kept_json(self.folder / "feedback" / f"{self.model}-{self.seed}.json", make)
        return {arm: {int(user): own for user, own in stored[arm].items()} for arm in ARMS}

    def _base(self) -> RecBoleAgent:
        """The recommender as it is before any feedback: it makes the lists and is the first arm."""
        home = self.folder / "base" / f"{self.model}-{self.seed}"
        return self._agent().fit_once(self.timeline.split, home)

    def _agent(self) -> RecBoleAgent:
        options = self.config.model_options
        return RecBoleAgent(self.model, config=options, seed=self.seed, progress=False)

    def _scores(
        self, arm: str, feedback: Feedback, tests: dict[int, IntArray]
    ) -> dict[str, list[float]]:
        def make() -> dict[str, Any]:
            seen = self.timeline.with_feedback(feedback[arm])
            agent = self._base() if arm == "nothing" else self._agent().fit(seen)
            users = np.array(list(tests), np.int64)
            asked = observations_from_split(seen, users, slate_size=self.config.k)
            mask = self.timeline.blocked(feedback, users.tolist())
            shown = top_k(np.where(mask, -np.inf, agent.scores(asked)), mask, self.config.k)
            return list_scores(shown, list(tests.values()), METRICS)

        path = self.folder / "scores" / f"{self.model}-{self.seed}-{arm}.json"
        return dict(kept_json(path, make))


def check_knowledge(simulator: str, dataset: str, t0: int) -> None:
    """Refuse a trained simulated user who has seen what it is going to be compared with.

    Raises:
        ConfigError: it was trained on choices of these data after ``t0``.
    """
    home = find_simulator(simulator) if simulator not in ("popularity", "uniform") else None
    if home is None or not (home / "training.json").is_file():
        return
    sources = read_json(home / "training.json").get("data", {}).get("sources", {})
    for source in sources.values():
        if source.get("dataset") == dataset and source.get("t0", 0) > t0:
            raise ConfigError(
                f"{simulator!r} was trained on choices of {dataset!r} until {source['t0']}, and T0 "
                f"is {t0}: it knows what shall be foretold. Cut later, or train one for this cut: "
                "usermirror train --set data.scenes.fraction=SHARE"
            )
