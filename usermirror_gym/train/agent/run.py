"""Train an agent in the environment: iterations, evaluations, checkpoints, curves.

A training goes in iterations: whole sessions of ``users`` users with seeds that follow from (seed,
iteration), then learning.  Between two of them there is nothing but the agent, so that a run that
was killed goes on from its last checkpoint and draws the same curve::

    config.json             the settings; a folder with other settings is refused
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
from usermirror_gym.train.agent.config import RLConfig
from usermirror_gym.train.loop.tensorboard import Curves

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


@dataclass
class _Training:
    """Everything that an iteration touches."""

    config: RLConfig
    folder: Path
    agent: LearningAgent
    env: SlateVectorEnv
    users: np.ndarray
    tests: dict[str, tuple[SlateVectorEnv, Episodes]]
    curve: list[Row]
    curves: Curves
    display: Display
    hook: Hook | None


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
    with run_folder(folder, config, "training run"):
        if (folder / "agent").is_dir():
            return folder / "agent"
        hook = hook or _monitor(config, folder, world, display)
        training = _begin(config, folder, agent, world, eval_world, plan, users, display, hook)
        _run(training)
        training.agent.label = f"{agent.kind}@{folder.resolve().name}"
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


def _monitor(config: RLConfig, folder: Path, world: World, display: Display) -> Hook | None:
    """Somebody who looks at the surrogate, if it is one."""
    from usermirror_gym.train.surrogate.monitor import monitor_of

    if not (config.monitor and isinstance(world.simulator, SurrogateSimulator)):
        return None
    return monitor_of(
        world.simulator, world.split, folder, sample=config.monitor_lists, renew=config.redistil,
        seed=config.seed, display=display,
    )  # fmt: skip


def _begin(
    config: RLConfig,
    folder: Path,
    agent: LearningAgent,
    world: World,
    eval_world: World | None,
    plan: Episodes,
    users: np.ndarray,
    display: Display,
    hook: Hook | None,
) -> _Training:
    reward = reward_of(config)
    tests = {"return": (make_env(config, world, len(plan), reward), plan)}
    if eval_world is not None and config.llm_users:
        few = plan.part(slice(config.llm_users))
        tests["llm"] = (make_env(config, eval_world, len(few), reward), few)
    last = _checkpoints(folder)[-1:]
    if last:
        agent = load_agent(last[0], training=True)
        curve = read_json(last[0] / _CURVE)
        display.say(f"goes on after iteration {agent.iteration} of {config.iterations}")
    else:
        agent.fit(world.split)
        curve = []
    own = replace(world, users=users)  # sessions that begin by themselves are of these users too
    if hook is not None:
        own = hook.wrap(own, agent.iteration)
    env = make_env(config, own, config.users, reward)
    curves = Curves(folder / "tensorboard", agent.iteration, display)
    return _Training(config, folder, agent, env, users, tests, curve, curves, display, hook)


def _run(training: _Training) -> None:
    config, agent = training.config, training.agent
    if not training.curve:
        _evaluate(training, {})
    per_iteration = config.users * config.horizon
    left = (config.iterations - agent.iteration) * per_iteration
    with training.display.phase(config.algo, left, "user-steps") as progress:
        while agent.iteration < config.iterations:
            numbers = agent.practise(training.env, *_sessions(training))
            training.curves.write("training", numbers, agent.iteration)
            progress(per_iteration)
            if agent.iteration % config.eval_every == 0 or agent.iteration == config.iterations:
                _evaluate(training, numbers)


def _sessions(training: _Training) -> tuple[np.ndarray, list[int]]:
    """Users and seeds of the next iteration, which follow from seed and iteration alone."""
    config, users = training.config, training.users
    rng = np.random.default_rng([config.seed, 1, training.agent.iteration])
    rounds = -(-config.users // len(users))
    drawn = np.concatenate([rng.permutation(users) for _ in range(rounds)])[: config.users]
    return drawn, rng.integers(2**31, size=config.users).tolist()


def _evaluate(training: _Training, numbers: dict[str, float]) -> None:
    """A row of the curve, and a checkpoint."""
    config, agent = training.config, training.agent
    steps = agent.iteration * config.users * config.horizon
    row: Row = {"iteration": agent.iteration, "steps": steps}
    for name in _due(training):
        env, plan = training.tests[name]
        found = evaluate(env, agent, plan).summary()
        row |= {f"{name}{key}": value for key, value in found.items()}
    row |= {f"training_{name}": value for name, value in numbers.items()}
    if training.hook is not None and numbers:
        row |= training.hook.on_evaluation(row)
    shown = {k: v for k, v in row.items() if k not in ("iteration", "steps")}
    training.curves.write("evaluation", shown, agent.iteration)
    training.curve.append(row)
    write_jsonl(training.folder / "curve.jsonl", training.curve)
    _checkpoint(training)
    training.display.say(_line(row))


def _due(training: _Training) -> list[str]:
    """In which simulators the agent is evaluated now."""
    config, number = training.config, len(training.curve)
    ends = training.agent.iteration in (0, config.iterations)
    often = config.llm_every and number % config.llm_every == 0
    return [name for name in training.tests if name != "llm" or ends or often]


def _line(row: Row) -> str:
    text = f"{row['steps']:>9,} user-steps: return {row['return']:.3f} ± {row['return_ci']:.3f}"
    if "llm" in row:
        text += f", under the evaluating simulator {row['llm']:.3f} ± {row['llm_ci']:.3f}"
    return text


def _checkpoints(folder: Path) -> list[Path]:
    """Complete ones, oldest first."""
    return sorted(p for p in (folder / "checkpoints").glob("*") if p.name[0] != ".")


def _checkpoint(training: _Training) -> None:
    place = training.folder / "checkpoints" / f"{training.agent.iteration:06d}"
    save_agent(training.agent, place, training=True, more={_CURVE: training.curve})
    for old in _checkpoints(training.folder)[:-_KEPT]:
        discard(old)
