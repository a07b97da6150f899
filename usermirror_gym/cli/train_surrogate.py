"""``usermirror train-surrogate``: a fast network that answers as a slower simulator would."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from usermirror_gym.cli.options import RecipeSetting, parse_settings
from usermirror_gym.cli.plain_errors import plain_errors


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
    from usermirror_gym.train.surrogate import train_surrogate as run
    from usermirror_gym.train.surrogate_config import read_surrogate_config

    settings = read_surrogate_config(config, parse_settings(setting))
    folder = out or Path("runs") / settings.name
    checkpoint = run(settings, folder, display=Display())
    print(checkpoint / "README.md")
    print(f"usermirror train-agent --algo slateq --simulator {shlex.quote(str(checkpoint))}")
