"""``usermirror retrain``: do recommenders get better by feedback of simulated users?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from usermirror_gym.cli.options import (
    Engine,
    Setting,
    parse_names,
    parse_settings,
    simulator_settings,
)
from usermirror_gym.cli.plain_errors import plain_errors


@plain_errors
def retrain(
    models: Annotated[
        str, typer.Option(help="Comma-separated RecBole models.")
    ] = "LightGCN,SASRec,NARM,DiffRec",
    seeds: Annotated[int, typer.Option(help="Trainings and draws of feedback per model.")] = 2,
    amount: Annotated[int, typer.Option(help="Most items of feedback per user.")] = 10,
    lists: Annotated[int, typer.Option(help="Most lists that a user is shown.")] = 20,
    slate_size: Annotated[int, typer.Option(help="Items per list.")] = 5,
    lister: Annotated[
        str, typer.Option(help="Who makes the lists: model, or mixture (with Pop and Random).")
    ] = "model",
    simulator: Annotated[
        str, typer.Option(help="Preset, checkpoint folder, hub name, or 'popularity' / 'uniform'.")
    ] = "smollm2-ml100k",
    setting: Setting = None,
    engine: Engine = "auto",
    dataset: Annotated[str, typer.Option(help="Data set: a name, or a YAML file.")] = "ml-100k",
    data_folder: Annotated[
        Path | None, typer.Option(help="Where the raw files are, for data sets that need it.")
    ] = None,
    cut: Annotated[float, typer.Option(help="Share of the interactions before T0.")] = 0.8,
    until: Annotated[
        float, typer.Option(help="Share before T1; between T0 and T1 is the real feedback.")
    ] = 0.85,
    model_setting: Annotated[
        list[str] | None,
        typer.Option("--model-set", help="RecBole setting of all models: epochs=1 (repeatable)."),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Run folder; an unfinished run in it is continued.")
    ] = Path("runs/retrain"),
) -> None:
    """Train recommenders again with simulated, random, popular and real feedback, and compare."""
    from usermirror_gym.evaluate.retraining import RetrainConfig
    from usermirror_gym.evaluate.retraining import retrain as run
    from usermirror_gym.evaluate.retraining_summary import retraining_table
    from usermirror_gym.progress import Display

    config = RetrainConfig(
        models=parse_names(models), seeds=seeds,
        amount=amount, lists=lists, slate_size=slate_size, lister=lister, simulator=simulator,
        simulator_options=simulator_settings(setting, engine), dataset=dataset,
        data_folder=None if data_folder is None else str(data_folder), cut=cut, until=until,
        model_options=parse_settings(model_setting),
    )  # fmt: skip
    results = run(config, out, display=Display())
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(retraining_table(results))
    for sentence in results["verdict"]:
        console.print(f"- {sentence}", markup=False, highlight=False)
    console.print(f"{out / 'retraining.json'}", highlight=False, markup=False)
