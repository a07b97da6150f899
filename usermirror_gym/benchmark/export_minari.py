"""A logged benchmark as a Minari data set, for offline RL.

The log holds lists, answers and rewards, but not what the agents saw.  The sessions are therefore
played once more, without the LLM (see :mod:`usermirror_gym.benchmark.replay`): what comes out must
be what was logged, and what the environment showed on the way are the observations.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from usermirror_gym.agents.rollout import Step
from usermirror_gym.benchmark.export import trusted_run
from usermirror_gym.benchmark.replay import Row, Run
from usermirror_gym.benchmark.run import BenchmarkConfig, benchmark_env, refuse_code
from usermirror_gym.errors import ConfigError, MissingDependencyError, RunError
from usermirror_gym.files import replacing_folder
from usermirror_gym.progress import Display
from usermirror_gym.run_folder import is_occupied, locked


def export_minari(
    run: str | Path,
    out: str | Path,
    *,
    agents: Sequence[str] = (),
    allow: Collection[str] = (),
    display: Display | None = None,
) -> dict[str, Any]:
    """Write all episodes as one data set, which ``minari.MinariDataset(out / "data")`` reads.

    With ``MINARI_DATASETS_PATH`` set to the parent of ``out``, ``minari.load_dataset`` finds it by
    its name, too.  An action is a slate of item ids; the metadata of an episode say whose it was.
    ``recover_environment()`` makes the environment, with the simulated user of the run.

    Args:
        run: folder of a finished benchmark.
        out: folder to make; its name must be a Minari name with a version, ``ml-100k-v0``.
        agents: whose episodes; all by default.
        allow: see :func:`usermirror_gym.benchmark.replay.replay`.
        display: shows how far the replay is.

    Returns:
        What was written.

    Raises:
        MissingDependencyError: Minari is not installed.
        ConfigError: the name of ``out`` is none.
        RunError: ``out`` exists, or another process is exporting into it; see
            :func:`trusted_run`; or a step does not come out as logged.
    """
    try:
        import minari  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(str(error.name), "offline") from error
    out, finished = _new(Path(out)), trusted_run(run, agents)
    refuse_code(finished.config, Path(run), allow)
    with locked(out, "is exporting"), replacing_folder(_new(out) / "data") as new:
        facts = _write(finished, new, out.name, display or Display(quiet=True))
    return facts


def _new(out: Path) -> Path:
    from minari.dataset.minari_dataset import DATASET_ID_RE

    out = out.expanduser().absolute()
    match = DATASET_ID_RE.fullmatch(out.name)
    if match is None or match["version"] is None:
        raise ConfigError(
            f"{out.name!r} is no name of a Minari data set: letters, digits, - and _, and a "
            "version, as in ml-100k-v0"
        )
    if out.is_file() or is_occupied(out):
        raise RunError(f"{out} exists; name another folder, with the next version")
    return out


def _write(run: Run, data: Path, name: str, display: Display) -> dict[str, Any]:
    import minari
    from minari.dataset.minari_storage import MinariStorage

    env = benchmark_env(run.config, run.world, 1)
    storage = MinariStorage.new(
        data, observation_space=env.single_observation_space,
        action_space=env.single_action_space, env_spec=_spec(run.config), data_format="arrow",
    )  # fmt: skip
    storage.update_metadata(
        {
            "dataset_id": name, "minari_version": minari.__version__,
            "algorithm_name": ", ".join(run.log),
            "description": f"Sessions of {run.config.dataset} users simulated by "
            f"{run.config.simulator}, from T0 = {run.world.split.t0}.",
        }
    )  # fmt: skip
    with display.phase("replay", len(run.steps), "steps") as progress:
        for agent, episodes in run.log.items():
            made: list[Step] = []
            if found := run.differences(agent, progress, made.append):
                raise RunError(
                    f"{found[0]}: what was seen cannot be made anew from a log that does not come "
                    "out as it was (usermirror replay shows all that differs)"
                )
            first = storage.total_episodes
            storage.update_episodes(_buffers(made, episodes))
            about = [{k: rows[0][k] for k in ("agent", "episode", "user_id")} for rows in episodes]
            storage.update_episode_metadata(about, range(first, first + len(episodes)))
    return {
        "form": "minari", "name": name, "agents": list(run.log),
        "episodes": storage.total_episodes, "steps": storage.total_steps,
    }  # fmt: skip


def _buffers(made: Sequence[Step], episodes: Sequence[Sequence[Row]]) -> Iterator[Any]:
    """Episodes as Minari takes them; of T steps there are T + 1 observations."""
    from minari.data_collector.episode_buffer import EpisodeBuffer

    seen = [made[0].before, *(step.after for step in made)]
    for number, rows in enumerate(episodes):
        views = seen[: len(rows) + 1]
        yield EpisodeBuffer(
            seed=rows[0]["seed"],
            observations={k: np.stack([view[k][number] for view in views]) for k in seen[0]},
            actions=np.array([row["slate"] for row in rows], np.int64),
            rewards=[row["reward"] for row in rows],
            terminations=[row["terminated"] for row in rows],
            truncations=[row["truncated"] for row in rows],
        )


def _spec(config: BenchmarkConfig) -> Any:
    """How ``gymnasium.make`` builds the environment of the run."""
    spec = copy.deepcopy(gymnasium.spec("UserMirror/Slate-v0"))
    spec.max_episode_steps = config.steps
    spec.kwargs = {
        "dataset": config.dataset, "data_folder": config.data_folder,
        "simulator": config.simulator, "simulator_options": config.simulator_options,
        "slate_size": config.slate_size, "session": config.leaving, "reward": config.reward,
    }  # fmt: skip
    return spec
