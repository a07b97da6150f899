"""``usermirror train``: from a recipe to a simulator."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from usermirror_gym.cli.options import (
    OutFolder,
    RecipeSetting,
    parse_settings,
    plain_errors,
    say,
    takes,
    trains,
)
from usermirror_gym.train.agent.config import RLConfig, rl_config


@plain_errors
def train(
    config: Annotated[
        str,
        typer.Option(
            help="A YAML file, or a preset: smollm2-ml100k, smollm2-session, session-lists, "
            "smollm2-ml100k-next-item, llama3.2-1b-session, llama3.2-3b-usermirrorer."
        ),
    ],
    out: OutFolder = None,
    setting: RecipeSetting = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Build the data, time a few steps, and say what it takes."),
    ] = False,
) -> None:
    """Train a simulated user on real choices; on several GPUs through 'accelerate launch'."""
    trains()
    from usermirror_gym.progress import Display
    from usermirror_gym.train.config import read_config

    settings = read_config(config, parse_settings(setting))
    folder = out or Path("runs") / settings.name
    if dry_run:
        from usermirror_gym.train.estimate import estimate_training

        for estimate in estimate_training(settings, folder, display=Display()):
            say(estimate)
        return
    from usermirror_gym.train.run import train as run

    checkpoint = run(settings, folder, display=Display())
    if os.environ.get("RANK", "0") == "0":  # one of several processes speaks
        say(checkpoint / "README.md")
        say(f"usermirror benchmark --simulator {shlex.quote(str(checkpoint))}")


@plain_errors
def train_surrogate(
    config: Annotated[
        str, typer.Option(help="A YAML file, or the preset smollm2-ml100k.")
    ] = "smollm2-ml100k",
    setting: RecipeSetting = None,
    out: OutFolder = None,
) -> None:
    """Distil a simulated user into a surrogate that is fast enough to train agents in."""
    trains()
    from usermirror_gym.progress import Display
    from usermirror_gym.train.surrogate.config import read_surrogate_config
    from usermirror_gym.train.surrogate.distil import train_surrogate as run

    settings = read_surrogate_config(config, parse_settings(setting))
    folder = out or Path("runs") / settings.name
    checkpoint = run(settings, folder, display=Display())
    say(checkpoint / "README.md")
    say(f"usermirror train-agent --algo slateq --simulator {shlex.quote(str(checkpoint))}")


@takes(
    RLConfig, rl_config, simulator_options="--set", eval_simulator_options="--eval-set",
    agent="--agent-set", redistil="--redistil",
)  # fmt: skip
def train_agent(
    config: RLConfig,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder; an unfinished run in it goes on. runs/<algo>-<seed>."),
    ] = None,
) -> None:
    """Train a recommender by reinforcement learning against the simulated user."""
    trains()
    from usermirror_gym.progress import Display
    from usermirror_gym.train.agent.run import train_agent as train

    folder = out or Path("runs") / f"{config.algo}-{config.seed}"
    agent = train(config, folder, display=Display())
    say(folder / "curve.jsonl")
    say(f"usermirror benchmark --agents Random,Pop,{agent}")
