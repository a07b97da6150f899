"""``usermirror train``: from a recipe to a simulator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from usermirror_gym.cli.options import RecipeSetting, parse_settings
from usermirror_gym.cli.plain_errors import plain_errors


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
