"""The whole transfer experiment in one folder, stage by stage.

Every file is written whole, so that a run that was killed goes on where it was::

    run.json                     settings; a folder with other settings is refused
    truth/truth.npz              the ground truth, which nothing below it may read but to judge
    log/                         what its users did: all that simulator and policies learn from
    simulator/                   a training run (see usermirror_gym.train.config), simulator-2/ ...
    surrogate/                   a distillation of it, if learners train on one
    agents/<name>/               recommenders fitted on the log
    ranking.json  probes.json    finished stages
    worlds/<kind>-<seed>/        the ranking in another world, with all of the above that it needs
    curves/<learner>-<seed>.npz  one training, judged in every world
    *.svg  report.html  report.md  results.json    the outcome, results.json last
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from usermirror_gym.agents import Agent, RecBoleAgent, make_agent
from usermirror_gym.agents.base import check_names
from usermirror_gym.agents.registry import saved_inputs
from usermirror_gym.agents.returns import Sessions, SessionSettings, play
from usermirror_gym.agents.rollout import Episodes, plan_episodes
from usermirror_gym.corpus.built import read_build
from usermirror_gym.data import RecDataset, TimeSplit, load_dataset, read_dataset, save_dataset
from usermirror_gym.data.split import time_cut
from usermirror_gym.envs import World, make_world
from usermirror_gym.envs.rewards import Reward
from usermirror_gym.envs.session import session_model
from usermirror_gym.errors import ConfigError
from usermirror_gym.experiments.transfer.adversaries import adversarial_agents, adversary_rows
from usermirror_gym.experiments.transfer.config import TransferConfig
from usermirror_gym.experiments.transfer.curves import TRUTH, Curve, analyse, judge, together
from usermirror_gym.experiments.transfer.ground_truth import (
    LatentFactorRatings,
    LatentFactorUser,
    TruthSettings,
)
from usermirror_gym.experiments.transfer.learners import make_learner
from usermirror_gym.experiments.transfer.ranking import (
    NEIGHBOURS,
    POPULARITY,
    SIMULATOR,
    Policies,
    compare_rankings,
    ranked_policies,
)
from usermirror_gym.experiments.transfer.report import write_transfer_report
from usermirror_gym.experiments.transfer.simulated_log import (
    MAPPING,
    LogSettings,
    generate_log,
    log_of,
    save_log,
)
from usermirror_gym.fidelity.baselines import classic_baselines
from usermirror_gym.files import kept_json, load_arrays, read_json, save_arrays, to_json_types
from usermirror_gym.progress import Display
from usermirror_gym.run_folder import run_folder
from usermirror_gym.simulators import PopularityChooser, make_simulator
from usermirror_gym.simulators.base import UserSimulator
from usermirror_gym.types import BoolArray

TIER = "tier"
_SURROGATE = "surrogate"


def run_transfer(
    config: TransferConfig, folder: str | Path, *, display: Display | None = None
) -> dict[str, Any]:
    """Run, or go on with, the experiment; returns the content of ``results.json``.

    Raises:
        RunError: the folder holds a run with other settings, or another process works in it.
        UnknownNameError: a name that does not exist.
    """
    folder = Path(folder)
    run = _Run(config, folder, display or Display(quiet=True))
    for name in config.learners:  # a mistaken name must not leave a folder behind
        make_learner(name, run.sessions)
    Reward(config.reward), session_model(config.leaving)
    inputs = {"data": f"{run.real.name} {run.real.digest}"} | saved_inputs(config.models)
    with run_folder(folder, config.settings(), inputs=inputs):
        results = to_json_types({
            "format": 2, "config": config.settings(), "about": run.about(),
            "ranking": run.kept_ranking(),
            "worlds": {world: run.elsewhere(world) for world in config.worlds},
            "probe_base": run.probe_base, "probes": kept_json(folder / "probes.json", run.probes),
            "curves": run.curves(),
        })  # fmt: skip
        write_transfer_report(results, folder)
    return dict(results)


class _Run:
    """What the stages share; everything is made when it is first needed."""

    def __init__(self, config: TransferConfig, folder: Path, display: Display) -> None:
        self.config, self.folder, self.display = config, folder, display
        # How sessions are played, in training and in all worlds.
        self.sessions = SessionSettings(
            config.steps, config.slate_size, config.leaving, config.reward
        )
        self.resampling: dict[str, Any] = {"n_resamples": config.n_resamples, "seed": config.seed}

    @cached_property
    def real(self) -> RecDataset:
        """The real data: its interactions are for fitting the truth alone."""
        return load_dataset(self.config.dataset, self.config.data_folder)

    @cached_property
    def truth(self) -> LatentFactorUser:
        path = self.folder / "truth" / "truth.npz"
        if not path.is_file():
            self.display.say(f"fitting the ground truth on all of {self.real.name}")
            settings = self.config.of(TruthSettings, "truth")
            LatentFactorUser.fit(self.real, settings).save(path)
        return LatentFactorUser.load(path)

    @cached_property
    def ratings(self) -> LatentFactorRatings:
        return LatentFactorRatings(self.real, self.truth)

    @cached_property
    def split(self) -> TimeSplit:
        """The log, cut at T0."""
        folder = self.folder / "log" / "tables"
        if not (folder / "dataset.json").is_file():
            self._write_log(folder)
        return time_cut(read_dataset(folder))

    @cached_property
    def unseen(self) -> BoolArray:
        """``(n_users + 1,)`` whether the simulator's training sees nothing of a user, by id."""
        n = self.real.n_users
        rng = np.random.default_rng([self.config.seed, 5])
        unseen = np.zeros(n + 1, np.bool_)
        unseen[1 + rng.permutation(n)[: round(self.config.held_out * n)]] = True
        return unseen

    def _write_log(self, folder: Path) -> None:
        settings = self.config.of(LogSettings, "log")
        with self.display.phase("log", settings.ticks, "ticks") as advance:
            log = generate_log(self.real, self.truth, self.ratings, settings, progress=advance)
        lists = len(log.impressions or ())
        self.display.say(f"log: {len(log.interactions):,} choices from {lists:,} lists")
        save_log(log_of(log, ~self.unseen), folder.parent)
        save_dataset(log, folder)

    def checkpoint(self, number: int) -> Path:
        """The simulator that was trained, for the n-th time, on what the users who are not held
        out did before T0, and on nothing else."""
        t0 = self.split.t0
        from usermirror_gym.train.config import read_config
        from usermirror_gym.train.run import train

        # The log that is trained on is not whole: its own share of interactions is another T0.
        source = {"name": str(self.folder / "log" / MAPPING), "scenes": {"t0": t0}}
        settings: dict[str, Any] = {
            "name": "truth-log", "seed": self.config.seed, "data.sources": [source],
        } | self.config.recipe_settings  # fmt: skip
        if number:
            settings["seed"] += 1_000 * number
        recipe = read_config(self.config.recipe, settings)
        name = SIMULATOR if number == 0 else f"{SIMULATOR}-{number + 1}"
        return train(recipe, self.folder / name, display=self.display)

    @cached_property
    def simulators(self) -> list[World]:
        """One for every training; histories are those of all users."""
        return [
            make_world(self.split, simulator=str(self.checkpoint(number)))
            for number in range(self.config.simulator_trainings)
        ]

    @cached_property
    def worlds(self) -> dict[str, World]:
        """By name; the same users, with the same histories, in each."""
        worlds = {SIMULATOR: self.simulators[0]}
        if self.config.tier is not None:
            user = make_simulator(self._tier(worlds[SIMULATOR]), self.split)
            worlds = {TIER: make_world(self.split, simulator=user)} | worlds
        user = self.truth.knowing(self.split)
        return worlds | {TRUTH: make_world(self.split, simulator=user, ratings=self.ratings)}

    def _tier(self, world: World) -> str:
        if self.config.tier != _SURROGATE:
            return str(self.config.tier)
        from usermirror_gym.train.surrogate.config import read_surrogate_config
        from usermirror_gym.train.surrogate.distil import distill

        settings = {
            "name": "truth-log", "seed": self.config.seed, "teacher": str(self.checkpoint(0)),
            "dataset": "truth-log",
        } | self.config.surrogate_settings  # fmt: skip
        recipe = read_surrogate_config("smollm2-ml100k", settings)
        home = self.folder / _SURROGATE
        return str(distill(world.simulator, self.split, recipe, home, display=self.display))

    @property
    def trained_on(self) -> str:
        return SIMULATOR if self.config.tier is None else TIER

    @cached_property
    def plan(self) -> Episodes:
        return plan_episodes(self.worlds[TRUTH].users, self.config.users, self.config.seed)

    @cached_property
    def policies(self) -> Policies:
        return ranked_policies(
            self.split, models=self.config.models, fit=self._fitted, seed=self.config.seed
        )

    @property
    def probe_base(self) -> str:
        """The best of the models in the truth."""
        ranking = read_json(self.folder / "ranking.json")
        return next(row["name"] for row in ranking["policies"] if row["name"] != "Pop")

    def kept_ranking(self) -> dict[str, Any]:
        """The ranking, made if it is not there."""
        return dict(kept_json(self.folder / "ranking.json", self.ranking))

    def ranking(self) -> dict[str, Any]:
        """Every policy in the truth, in every training of the simulator, and with the rivals."""
        policies, users = self.policies, self.plan.user_ids
        trainings = {f"{SIMULATOR} {n}": world for n, world in enumerate(self.simulators)}
        rivals = {
            name: make_world(self.split, simulator=user) for name, user in self.rivals().items()
        }
        found = self._played(
            [*policies.distinct, *policies.degraded], "ranking",
            {TRUTH: self.worlds[TRUTH]} | trainings | rivals,
        )  # fmt: skip
        others = {name: [found[name]] for name in rivals}
        return compare_rankings(
            found[TRUTH], {SIMULATOR: [found[name] for name in trainings]} | others,
            [agent.name for agent in policies.distinct], users, self.unseen[users],
            **self.resampling,
        )  # fmt: skip

    def rivals(self) -> dict[str, UserSimulator]:
        """Users who choose by popularity, and by the nearest items, as a fidelity card has them,
        fitted on what the first simulator was trained from; without scenes of it only the first."""
        found: dict[str, UserSimulator] = {POPULARITY: PopularityChooser(self.split)}
        folder = self.folder / SIMULATOR / "data"
        if folder.is_dir():
            source = read_build(folder).sources[0]
            scenes = [source.scenes(part) for part in ("train", "validation")]
            try:
                fitted = classic_baselines(source.split, *scenes, names=("ItemKNN",))
                found[NEIGHBOURS] = fitted["ItemKNN"]
            except ConfigError as error:  # too few scenes
                self.display.say(f"ranking without a user by nearest items: {error}")
        return found

    def elsewhere(self, world: str) -> dict[str, Any]:
        """The ranking in another world."""
        folder = self.folder / "worlds" / world.replace(":", "-")
        self.display.say(f"world {world}")
        return _Run(self.config.elsewhere(world), folder, self.display).kept_ranking()

    def probes(self) -> list[dict[str, Any]]:
        """Adversarial agents around the best policy."""
        base = next(a for a in self.policies.distinct if a.name == self.probe_base)
        user = self.worlds[SIMULATOR].simulator
        agents = [base, *adversarial_agents(user, base, self.split, self.config.seed)]
        worlds = {name: self.worlds[name] for name in (SIMULATOR, TRUTH)}
        found = self._played(agents, "probes", worlds)
        return adversary_rows(
            found[SIMULATOR], found[TRUTH], base.name, self.plan.user_ids, **self.resampling
        )

    def curves(self) -> dict[str, Any]:
        """Every learner's trainings, judged and analysed."""
        names = self.config.learners
        return {name: analyse(self._curve(name), **self.resampling) for name in names}

    def about(self) -> dict[str, Any]:
        """What was compared, for the report."""
        c, before, lists = self.config, len(self.split.before), self.split.dataset.impressions
        learned = {
            "trained_on": self.worlds[self.trained_on].simulator.name,
            "trainings": f"{c.trainings} of {c.updates} rounds of {c.train_users} sessions",
        }
        return {
            "truth": f"{self.truth.name}, fitted on {len(self.real.interactions):,} interactions "
            f"of {self.real.name}",
            "log": f"{len(self.split.dataset.interactions):,} choices from "
            f"{len(lists or ()):,} lists, {before:,} choices before T0",
            "simulator": self.worlds[SIMULATOR].simulator.name,
            "trained_with": f"{np.count_nonzero(~self.unseen[1:]):,} of {self.real.n_users:,} "
            f"users, {c.simulator_trainings} times",
            "sessions": f"{c.users:,} episodes of at most {c.steps} lists of "
            f"{c.slate_size}, reward {c.reward}, patience "
            f"{c.patience}",
        } | (learned if c.learners else {})  # fmt: skip

    def _curve(self, name: str) -> Curve:
        files = [self.folder / "curves" / f"{name}-{n}.npz" for n in range(self.config.trainings)]
        for number, file in enumerate(files):
            if not file.is_file():
                self._train(name, number, file)
        return together([_read_curve(file) for file in files], self.plan.user_ids, self.trained_on)

    def _train(self, name: str, number: int, file: Path) -> None:
        c = self.config
        learner = make_learner(
            name, self.sessions, users=c.train_users, updates=c.updates, evaluations=c.evaluations
        )
        # An own seed per training; evaluation has users and luck of its own.
        seed = c.seed + 1_000 * (number + 1)
        total = (c.evaluations + 1) * len(self.worlds) * len(self.plan)
        with self.display.phase(f"{name} {number + 1}", total, "sessions") as advance:
            checkpoints = learner.checkpoints(self.worlds[self.trained_on], seed)
            steps, returns = judge(
                checkpoints, self.worlds, self.plan, self.sessions, progress=advance
            )
        save_arrays(file, steps=steps, **{f"returns.{w}": v for w, v in returns.items()})

    def _played(
        self, agents: list[Agent], what: str, worlds: dict[str, World]
    ) -> dict[str, dict[str, Sessions]]:
        """Sessions by world, then agent."""
        check_names(agents)
        found: dict[str, dict[str, Sessions]] = {world: {} for world in worlds}
        total = len(agents) * len(worlds) * len(self.plan)
        with self.display.phase(what, total, "sessions") as advance:
            for agent in agents:
                for name, world in worlds.items():
                    found[name][agent.name] = play(world, agent, self.plan, self.sessions)
                    advance(len(self.plan))
        return found

    def _fitted(self, name: str) -> Agent:
        agent = make_agent(name, seed=self.config.seed, progress=not self.display.quiet)
        if isinstance(agent, RecBoleAgent):
            return agent.fit_once(self.split, self.folder / "agents" / agent.name)
        return agent.fit(self.split)


def _read_curve(file: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    held = load_arrays(file, "steps")
    steps = held.pop("steps")
    return steps, {name.removeprefix("returns."): values for name, values in held.items()}
