"""``usermirror transfer``: does what is learned from a simulated user hold with the users?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from usermirror_gym.cli.options import (
    Engine,
    RecipeSetting,
    Setting,
    parse_names,
    parse_settings,
    plain_errors,
    simulator_settings,
)


@plain_errors
def transfer(
    dataset: Annotated[
        str, typer.Option(help="The known truth is fitted on all of it; its texts are shown.")
    ] = "ml-100k",
    data_folder: Annotated[
        Path | None, typer.Option(help="Where the raw files are, for data sets that need it.")
    ] = None,
    learners: Annotated[
        str,
        typer.Option(
            help="Comma-separated: climber, climber-items, climber-new, linucb, thompson, slateq, "
            "reinforce, ppo."
        ),
    ] = "climber,climber-new",
    models: Annotated[
        str, typer.Option(help="Comma-separated RecBole models among the ranked policies.")
    ] = "ItemKNN,EASE,BPR,LightGCN",
    tier: Annotated[
        str | None,
        typer.Option(
            help="User that learners train on, if not the simulator: 'surrogate' (distilled from "
            "it here), a name or a folder."
        ),
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="How the simulator is trained on the truth's log.")
    ] = "smollm2-ml100k",
    setting: RecipeSetting = None,
    truth_setting: Annotated[
        list[str] | None,
        typer.Option("--truth", help="A rule of the truth: --truth satiation=0 (repeatable)."),
    ] = None,
    log_setting: Annotated[
        list[str] | None,
        typer.Option("--log", help="How the log is made: --log lists=100 (repeatable)."),
    ] = None,
    surrogate_setting: Annotated[
        list[str] | None,
        typer.Option(
            "--surrogate",
            help="How it is distilled: --surrogate questions.total=50000 (repeatable).",
        ),
    ] = None,
    trainings: Annotated[int, typer.Option(help="Of every learner, with different seeds.")] = 3,
    updates: Annotated[int, typer.Option(help="Rounds of sessions of a training.")] = 60,
    evaluations: Annotated[int, typer.Option(help="Evaluations of a training.")] = 12,
    users: Annotated[int, typer.Option(help="Episodes of an evaluation.")] = 200,
    steps: Annotated[int, typer.Option(help="Most lists per episode.")] = 10,
    slate_size: Annotated[int, typer.Option(help="Items per list.")] = 5,
    patience: Annotated[
        int, typer.Option(help="The user leaves after so many lists without a choice.")
    ] = 3,
    reward: Annotated[str, typer.Option(help="click, expected_click or satisfaction.")] = "click",
    seed: Annotated[int, typer.Option(help="Same seed, same result.")] = 0,
    out: Annotated[
        Path, typer.Option(help="Run folder; an unfinished run in it is continued.")
    ] = Path("runs/transfer"),
) -> None:
    """Judge what was learned from a simulated user by a known truth: curves, ranking, probes."""
    import os

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from usermirror_gym.experiments.transfer.report import sentences
    from usermirror_gym.experiments.transfer.run import TransferConfig, run_transfer
    from usermirror_gym.progress import Display

    config = TransferConfig(
        dataset=dataset, data_folder=None if data_folder is None else str(data_folder),
        truth=parse_settings(truth_setting), log=parse_settings(log_setting), recipe=recipe,
        recipe_settings=parse_settings(setting), tier=tier,
        surrogate_settings=parse_settings(surrogate_setting), models=parse_names(models),
        learners=parse_names(learners), updates=updates, evaluations=evaluations,
        trainings=trainings, users=users, steps=steps, slate_size=slate_size, patience=patience,
        reward=reward, seed=seed,
    )  # fmt: skip
    results = run_transfer(config, out, display=Display())
    console = Console(width=None if sys.stdout.isatty() else 120)
    for sentence in sentences(results):
        console.print(f"- {sentence}", markup=False, highlight=False)
    for name in ("report.html", "report.md", "results.json"):
        console.print(f"{out / name}", highlight=False, markup=False)


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
    from usermirror_gym.experiments.retraining.run import RetrainConfig
    from usermirror_gym.experiments.retraining.run import retrain as run
    from usermirror_gym.experiments.retraining.summary import retraining_table
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
