"""Train an agent in the environment: iterations, evaluations, checkpoints, curves.

A training goes in iterations: whole sessions of ``users`` users with seeds that follow from (seed,
iteration), then learning.  Between two of them there is nothing but the agent, so that a run that
was killed goes on from its last checkpoint and draws the same curve::

    config.json             the settings; a folder with other settings is refused
    inputs.json             fingerprints of data and simulators, likewise
    curve.jsonl             one line per evaluation
    checkpoints/000025/     the agent, with what going on needs; the last two
    tensorboard/            the same curve, and the losses of every iteration
    agent/                  the trained agent, for make_agent; it appears at the end
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from usermirror_gym.agents.learners.store import agent_class, load_agent, save_agent
from usermirror_gym.agents.returns import SessionSettings, evaluate
from usermirror_gym.agents.rollout import Episodes, plan_episodes
from usermirror_gym.envs import SlateVectorEnv, World, make_world
from usermirror_gym.errors import ConfigError
from usermirror_gym.files import discard, read_json, write_jsonl
from usermirror_gym.progress import Display
from usermirror_gym.run_folder import run_folder
from usermirror_gym.simulators import SurrogateSimulator
from usermirror_gym.simulators.base import forget_questions
from usermirror_gym.train.agent.config import RLConfig
from usermirror_gym.train.loop.tensorboard import summary_writer, write_numbers

if TYPE_CHECKING:
    from usermirror_gym.agents.learners.learning import LearningAgent

_KEPT = 2
_CURVE = "curve.json"
Row = dict[str, Any]


class Hook(Protocol):
    """Looks on while an agent is trained."""

    def wrap(self, world: World, iteration: int) -> World:
        """The world of the training, perhaps with an observed simulator; called once.

        Args:
            iteration: how many are done already; more than 0 in a training that goes on.
        """
        ...

    def on_evaluation(self, row: Row) -> Row:
        """Called at each evaluation after training began; what it gives joins the curve's row.

        The same iterations must give the same answer, or a resumed curve is not the same.
        """
        ...


def train_agent(
    config: RLConfig,
    folder: str | Path,
    *,
    display: Display,
    world: World | None = None,
    eval_world: World | None = None,
    hook: Hook | None = None,
) -> Path:
    """Run a training to its end, or go on with it; returns the folder of the trained agent.

    Args:
        world: instead of the one that the settings name.
        eval_world: instead of the one of ``eval_simulator``.
        hook: instead of the monitor that a surrogate gets.

    Raises:
        RunError: the folder holds a run with other settings, or another process trains in it.
        ConfigError: there are too few users to set some apart for evaluations.
        UserMirrorError: what the simulator, the environment or the agent raise.
    """
    folder = Path(folder)
    agent = agent_class(config.algo)(seed=config.seed, **config.agent)
    world = world or _world(config, config.simulator, config.simulator_options)
    if eval_world is None and config.eval_simulator is not None:
        eval_world = _world(config, config.eval_simulator, config.eval_simulator_options)
    plan, users = split_users(config, world)
    inputs = world.inputs
    if eval_world is not None:
        inputs |= {f"evaluating {name}": value for name, value in eval_world.inputs.items()}
    with run_folder(folder, config, "training run", inputs=inputs):
        if (folder / "agent").is_dir():
            return folder / "agent"
        if hook is None and config.monitor and isinstance(world.simulator, SurrogateSimulator):
            from usermirror_gym.train.surrogate.monitor import monitor_of

            hook = monitor_of(config, world, folder, display)
        training = _Training(config, folder, display, users, hook)
        training.begin(agent, world, eval_world, plan)
        training.run()
        training.agent.label = f"{agent.kind}@{folder.resolve().name}"
        if training.curves is not None:
            training.curves.close()
        return save_agent(training.agent, folder / "agent")


def split_users(config: RLConfig, world: World) -> tuple[Episodes, np.ndarray]:
    """Evaluation episodes, and the users that are left for training.

    Raises:
        ConfigError: nobody is left.
    """
    plan = plan_episodes(world.users, min(config.eval_users, len(world.users)), config.eval_seed)
    left = np.setdiff1d(world.users, plan.user_ids)
    if not len(left):
        raise ConfigError(
            f"eval_users is {config.eval_users}, and the world has {len(world.users)} users: none "
            "is left for training. Evaluate with fewer"
        )
    return plan, left


def make_env(config: RLConfig, world: World, rows: int, reward: Any) -> SlateVectorEnv:
    """The environment of training and evaluation."""
    return SessionSettings(
        config.horizon, config.slate_size, config.leaving, reward
    ).env(world, rows)  # fmt: skip


def reward_of(config: RLConfig) -> str | dict[str, float]:
    """What a list is worth in a training and its evaluations."""
    return agent_class(config.algo).feedback if config.reward is None else config.reward


def _world(config: RLConfig, simulator: str, options: dict[str, Any]) -> World:
    return make_world(
        config.dataset, data_folder=config.data_folder, simulator=simulator,
        simulator_options=options,
    )  # fmt: skip


@dataclass
class _Training:
    """Everything that an iteration touches."""

    config: RLConfig
    folder: Path
    display: Display
    users: np.ndarray
    hook: Hook | None

    def begin(
        self, agent: LearningAgent, world: World, eval_world: World | None, plan: Episodes
    ) -> None:
        """At the start, or where the last checkpoint is."""
        config, reward = self.config, reward_of(self.config)
        self.tests = {"return": (make_env(config, world, len(plan), reward), plan)}
        if eval_world is not None and config.llm_users:
            few = plan.part(slice(config.llm_users))
            self.tests["llm"] = (make_env(config, eval_world, len(few), reward), few)
        self.agent, self.curve = agent, list[Row]()
        if last := self._checkpoints()[-1:]:
            self.agent = load_agent(last[0], training=True)
            self.curve = read_json(last[0] / _CURVE)
            done = self.agent.iteration
            self.display.say(f"goes on after iteration {done} of {config.iterations}")
        else:
            agent.fit(world.split)
        # Sessions that begin by themselves are of these users too.
        own = replace(world, users=self.users)
        if self.hook is not None:
            own = self.hook.wrap(own, self.agent.iteration)
        self.env = make_env(config, own, config.users, reward)
        # What an earlier process wrote of later iterations is hidden.
        begun = self.agent.iteration + 1 if self.agent.iteration else None
        board = self.folder / "tensorboard"
        self.curves = summary_writer(board, self.display, purge_step=begun)

    def run(self) -> None:
        """All iterations that are left."""
        config, agent = self.config, self.agent
        if not self.curve:
            self._evaluate({})
        per_iteration = config.users * config.horizon
        left = (config.iterations - agent.iteration) * per_iteration
        with self.display.phase(config.algo, left, "user-steps") as progress:
            while agent.iteration < config.iterations:
                forget_questions(self.env.world.simulator)
                numbers = agent.practise(self.env, *self._sessions())
                write_numbers(self.curves, "training", numbers, agent.iteration)
                progress(per_iteration)
                if agent.iteration % config.eval_every == 0 or agent.iteration == config.iterations:
                    self._evaluate(numbers)

    def _sessions(self) -> tuple[np.ndarray, list[int]]:
        """Users and seeds of the next iteration, which follow from seed and iteration alone."""
        count = self.config.users
        rng = np.random.default_rng([self.config.seed, 1, self.agent.iteration])
        rounds = -(-count // len(self.users))
        drawn = np.concatenate([rng.permutation(self.users) for _ in range(rounds)])[:count]
        return drawn, rng.integers(2**31, size=count).tolist()

    def _evaluate(self, numbers: dict[str, float]) -> None:
        """A row of the curve, and a checkpoint."""
        config, agent = self.config, self.agent
        steps = agent.iteration * config.users * config.horizon
        row: Row = {"iteration": agent.iteration, "steps": steps}
        for name in self._due():
            env, plan = self.tests[name]
            found = evaluate(env, agent, plan).summary()
            row |= {f"{name}{key}": value for key, value in found.items()}
        row |= {f"training_{name}": value for name, value in numbers.items()}
        if self.hook is not None and numbers:
            row |= self.hook.on_evaluation(row)
        shown = {k: v for k, v in row.items() if k not in ("iteration", "steps")}
        write_numbers(self.curves, "evaluation", shown, agent.iteration)
        self.curve.append(row)
        write_jsonl(self.folder / "curve.jsonl", self.curve)
        self._keep()
        self.display.say(_line(row))

    def _due(self) -> list[str]:
        """In which simulators the agent is evaluated now."""
        config, number = self.config, len(self.curve)
        ends = self.agent.iteration in (0, config.iterations)
        often = config.llm_every and number % config.llm_every == 0
        return [name for name in self.tests if name != "llm" or ends or often]

    def _checkpoints(self) -> list[Path]:
        """Complete ones, oldest first."""
        return sorted(p for p in (self.folder / "checkpoints").glob("*") if p.name[0] != ".")

    def _keep(self) -> None:
        place = self.folder / "checkpoints" / f"{self.agent.iteration:06d}"
        save_agent(self.agent, place, training=True, more={_CURVE: self.curve})
        for old in self._checkpoints()[:-_KEPT]:
            discard(old)


def _line(row: Row) -> str:
    text = f"{row['steps']:>9,} user-steps: return {row['return']:.3f} ± {row['return_ci']:.3f}"
    if "llm" in row:
        text += f", under the evaluating simulator {row['llm']:.3f} ± {row['llm_ci']:.3f}"
    return text
