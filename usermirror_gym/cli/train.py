"""``usermirror train``: from a recipe to a simulator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from usermirror_gym.cli.options import RecipeSetting, Setting, parse_settings, plain_errors


@plain_errors
def train(
    config: Annotated[
        str,
        typer.Option(
            help="A YAML file, or a preset: smollm2-ml100k, smollm2-ml100k-next-item, "
            "llama3.2-3b-usermirrorer."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The run's folder; an unfinished run in it goes on. runs/<name>."),
    ] = None,
    setting: RecipeSetting = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Build the data, time a few steps, and say what it takes."),
    ] = False,
) -> None:
    """Train a simulated user on real choices; on several GPUs through 'accelerate launch'."""
    import os
    import shlex

    # Trainers build their tables and word their prompts in one process each.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from usermirror_gym.progress import Display
    from usermirror_gym.train.config import read_config

    settings = read_config(config, parse_settings(setting))
    folder = out or Path("runs") / settings.name
    if dry_run:
        from usermirror_gym.train.estimate import estimate_training

        for estimate in estimate_training(settings, folder, display=Display()):
            print(estimate)
        return
    from usermirror_gym.train.run import train as run

    checkpoint = run(settings, folder, display=Display())
    if os.environ.get("RANK", "0") == "0":  # one of several processes speaks
        print(checkpoint / "README.md")
        print(f"usermirror benchmark --simulator {shlex.quote(str(checkpoint))}")


@plain_errors
def train_surrogate(
    config: Annotated[
        str, typer.Option(help="A YAML file, or the preset smollm2-ml100k.")
    ] = "smollm2-ml100k",
    setting: RecipeSetting = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder; an unfinished run in it goes on. runs/<name>."),
    ] = None,
) -> None:
    """Distil a simulated user into a surrogate that is fast enough to train agents in."""
    import os
    import shlex

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from usermirror_gym.progress import Display
    from usermirror_gym.train.surrogate.config import read_surrogate_config
    from usermirror_gym.train.surrogate.distil import train_surrogate as run

    settings = read_surrogate_config(config, parse_settings(setting))
    folder = out or Path("runs") / settings.name
    checkpoint = run(settings, folder, display=Display())
    print(checkpoint / "README.md")
    print(f"usermirror train-agent --algo slateq --simulator {shlex.quote(str(checkpoint))}")


@plain_errors
def train_agent(
    algo: Annotated[str, typer.Option(help="linucb, thompson, slateq, reinforce or ppo.")],
    simulator: Annotated[
        str | None,
        typer.Option(
            help="In which it is trained: a preset, 'surrogate' (the shipped one), or a folder. By "
            "default the shipped surrogate, or the default simulator where there is none."
        ),
    ] = None,
    setting: Setting = None,
    eval_simulator: Annotated[
        str | None,
        typer.Option(
            help="Evaluate also in this one before and after: a preset, a folder, or 'llm' (the "
            "default simulator)."
        ),
    ] = None,
    eval_setting: Annotated[
        list[str] | None,
        typer.Option("--eval-set", help="Override a setting of --eval-simulator (repeatable)."),
    ] = None,
    agent_setting: Annotated[
        list[str] | None,
        typer.Option(
            "--agent-set", help="A hyperparameter: --agent-set learning_rate=0.01 (repeatable)."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="User-steps of training.")] = 100_000,
    users: Annotated[int, typer.Option(help="Sessions side by side in an iteration.")] = 250,
    horizon: Annotated[int, typer.Option(help="Most lists of a session.")] = 10,
    slate_size: Annotated[int, typer.Option(help="Items per list.")] = 5,
    patience: Annotated[int, typer.Option(help="Lists without a choice until one leaves.")] = 3,
    reward: Annotated[
        str | None,
        typer.Option(help="click, expected_click, target_rank or satisfaction; by default clicks."),
    ] = None,
    dataset: Annotated[str, typer.Option(help="Data set: ml-100k (included), or another.")] = (
        "ml-100k"
    ),
    data_folder: Annotated[
        Path | None, typer.Option(help="Where the raw files are, for data sets that need it.")
    ] = None,
    eval_users: Annotated[int, typer.Option(help="Users of evaluations; not trained with.")] = 200,
    eval_every: Annotated[int, typer.Option(help="Iterations between two evaluations.")] = 5,
    llm_users: Annotated[int, typer.Option(help="Users evaluated in --eval-simulator.")] = 100,
    monitor: Annotated[
        bool,
        typer.Option(
            help="Of a surrogate: compare it at every evaluation with its teacher on the lists "
            "that the agent shows now."
        ),
    ] = True,
    redistil: Annotated[
        bool,
        typer.Option("--redistil", help="Teach the surrogate those lists when trust ends."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Same seed, same curve.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder; an unfinished run in it goes on. runs/<algo>-<seed>."),
    ] = None,
) -> None:
    """Train a recommender by reinforcement learning against the simulated user."""
    import os

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from usermirror_gym.progress import Display
    from usermirror_gym.simulators import DEFAULT_SIMULATOR
    from usermirror_gym.train.agent.config import rl_config
    from usermirror_gym.train.agent.run import train_agent as train

    judge = DEFAULT_SIMULATOR if eval_simulator == "llm" else eval_simulator
    config = rl_config(
        algo=algo.strip().lower(), simulator=simulator or _default(),
        simulator_options=parse_settings(setting), eval_simulator=judge,
        eval_simulator_options=parse_settings(eval_setting), agent=parse_settings(agent_setting),
        dataset=dataset, data_folder=None if data_folder is None else str(data_folder),
        steps=steps, users=users, horizon=horizon, slate_size=slate_size, patience=patience,
        reward=reward, eval_users=eval_users, eval_every=eval_every, llm_users=llm_users,
        monitor=monitor, redistil=redistil, seed=seed,
    )  # fmt: skip
    folder = out or Path("runs") / f"{config.algo}-{config.seed}"
    agent = train(config, folder, display=Display())
    print(folder / "curve.jsonl")
    print(f"usermirror benchmark --agents Random,Pop,{agent}")


def _default() -> str:
    """The shipped surrogate, and what stands in for it where there is none."""
    from usermirror_gym.simulators import DEFAULT_SIMULATOR, available_simulators

    return "surrogate" if "surrogate" in available_simulators() else DEFAULT_SIMULATOR
