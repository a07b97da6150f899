"""The ``usermirror`` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from usermirror_gym.cli.data import app as data_app
from usermirror_gym.cli.evaluate import evaluate
from usermirror_gym.cli.experiments import retrain, transfer
from usermirror_gym.cli.export import export
from usermirror_gym.cli.options import (
    Engine,
    Setting,
    parse_names,
    plain_errors,
    simulator_settings,
)
from usermirror_gym.cli.train import train, train_agent, train_surrogate

app = typer.Typer(
    help="Benchmark recommenders against a simulated user.", no_args_is_help=True,
    add_completion=False, rich_markup_mode=None,
)  # fmt: skip
app.add_typer(data_app, name="data")
app.command()(evaluate)
app.command()(export)
app.command()(retrain)
app.command()(train)
app.command()(train_agent)
app.command()(train_surrogate)
app.command()(transfer)

Simulator = Annotated[
    str, typer.Option(help="Preset, checkpoint folder, hub name, or 'popularity' / 'uniform'.")
]
Dataset = Annotated[
    str, typer.Option(help="Data set: ml-100k (included), another name, or a YAML file.")
]
DataFolder = Annotated[
    Path | None, typer.Option(help="Where the raw files are, for data sets that need it.")
]
_SHOWN = 10
"""Differences that a replay prints."""

Seed = Annotated[int, typer.Option(help="Same seed, same result.")]


@app.command()
@plain_errors
def benchmark(
    agents: Annotated[
        str,
        typer.Option(
            help="Comma-separated: Random, Pop, Oracle, LinUCB, Thompson, any RecBole model, or "
            "the folder of a trained agent (usermirror train-agent)."
        ),
    ] = "Random,Pop,ItemKNN,EASE,BPR,LightGCN,MultiVAE,GRU4Rec",
    users: Annotated[int, typer.Option(help="Episodes per agent, each with another user.")] = 24,
    steps: Annotated[int, typer.Option(help="Most lists per episode.")] = 8,
    slate_size: Annotated[int, typer.Option(help="Items per list.")] = 5,
    simulator: Simulator = "smollm2-ml100k",
    engine: Engine = "auto",
    setting: Setting = None,
    dataset: Dataset = "ml-100k",
    data_folder: DataFolder = None,
    patience: Annotated[
        int, typer.Option(help="The user leaves after so many lists without a choice.")
    ] = 3,
    reward: Annotated[
        str, typer.Option(help="click, expected_click, target_rank or satisfaction.")
    ] = "click",
    fidelity_scenes: Annotated[
        int, typer.Option(help="Real choices in the check of the simulator; 0 leaves it out.")
    ] = 300,
    batch_size: Annotated[
        int, typer.Option(help="Episodes side by side; does not change the result.")
    ] = 24,
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder; an unfinished run in it is continued. By default runs/benchmark, or "
            "runs/benchmark-2 ... if that holds a run with other settings."
        ),
    ] = None,
) -> None:
    """Benchmark recommenders against the simulated user and write a report."""
    from usermirror_gym.benchmark.report import results_table
    from usermirror_gym.benchmark.run import BenchmarkConfig, default_folder, run_benchmark
    from usermirror_gym.progress import Display

    config = BenchmarkConfig(
        agents=parse_names(agents),
        users=users, steps=steps, slate_size=slate_size, simulator=simulator,
        simulator_options=simulator_settings(setting, engine), dataset=dataset,
        data_folder=None if data_folder is None else str(data_folder), patience=patience,
        reward=reward, fidelity_scenes=fidelity_scenes, batch_size=batch_size, seed=seed,
    )  # fmt: skip
    out = out or default_folder(config)
    results = run_benchmark(config, out, display=Display())
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(results_table(results))
    for name in ("report.html", "results.json", "episodes.jsonl"):
        console.print(f"{out / name}", highlight=False)


@app.command()
@plain_errors
def episode(
    agent: Annotated[str, typer.Option(help="Random, Pop, Oracle or any RecBole model.")] = "Pop",
    user: Annotated[int | None, typer.Option(help="User id; drawn by the seed if absent.")] = None,
    steps: Annotated[int, typer.Option(help="Most lists.")] = 5,
    slate_size: Annotated[int, typer.Option(help="Items per list.")] = 5,
    simulator: Simulator = "smollm2-ml100k",
    engine: Engine = "auto",
    setting: Setting = None,
    dataset: Dataset = "ml-100k",
    data_folder: DataFolder = None,
    patience: Annotated[
        int, typer.Option(help="Lists without a choice until the user leaves.")
    ] = 3,
    seed: Seed = 0,
) -> None:
    """Play one episode and print it readably, step by step."""
    from usermirror_gym.agents import make_agent
    from usermirror_gym.envs import SlateEnv, make_world

    world = make_world(
        dataset,
        data_folder=data_folder,
        simulator=simulator,
        simulator_options=simulator_settings(setting, engine),
    )
    player = make_agent(agent, seed=seed, simulator=world.simulator).fit(world.split)
    env = SlateEnv(world, slate_size=slate_size, session=patience, render_mode="ansi")
    observation, _ = env.reset(seed=seed, options=None if user is None else {"user_id": user})
    for _ in range(steps):
        batched = {name: value[None] for name, value in observation.items()}
        observation, _, left, _, _ = env.step(player.recommend(batched, slate_size)[0])
        text = str(env.render())
        print(text if sys.stdout.isatty() else Text.from_ansi(text).plain)
        if left:
            break


@app.command()
@plain_errors
def replay(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished benchmark.")],
) -> None:
    """Play a logged benchmark once more, without its LLM, and compare every step."""
    from usermirror_gym.benchmark.replay import replay as play
    from usermirror_gym.progress import Display

    found = play(folder, display=Display())
    for difference in found.differences[:_SHOWN]:
        print(difference)
    if len(found.differences) > _SHOWN:
        print(f"... and {len(found.differences) - _SHOWN:,} more")
    what = f"{found.steps:,} steps of {found.episodes:,} episodes, {found.agents} agents"
    print(f"{what}: {'all as logged' if not found.differences else 'NOT as logged'}")
    if found.differences:
        raise typer.Exit(1)


@app.command()
@plain_errors
def fetch(
    checkpoint: Annotated[
        str, typer.Argument(help="Trained simulator, hub name, folder, or GGUF file.")
    ] = "smollm2-135m-instruct",
) -> None:
    """Download and prepare the weights of a language model or a trained simulator."""
    from usermirror_gym.simulators.checkpoint import fetch_simulator

    print(fetch_simulator(checkpoint))


@app.command()
@plain_errors
def engines() -> None:
    """Show what can run the LLM on this machine, and what the others lack."""
    from rich.table import Table

    from usermirror_gym.engines.choosing import available_engines, choose_kind

    table = Table("engine", "here", "readouts", "on")
    for found in available_engines():
        # Text: square brackets are names of extras, not markup.
        here = "yes" if found.usable else "no"
        table.add_row(found.kind, here, found.readouts, Text(found.about))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    console.print(
        f"--engine auto takes {choose_kind('weights')} for weights, server for openai:NAME"
    )


@app.command()
@plain_errors
def answers(
    path: Annotated[
        Path | None,
        typer.Argument(help="An answer store; by default that of --set answers=default."),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Drop every answer.")] = False,
) -> None:
    """Show how many answers of LLMs are kept in a store, and their size."""
    from usermirror_gym.engines.store.answer_store import AnswerStore, default_store
    from usermirror_gym.errors import StoreError

    path = path or default_store()
    if not path.is_file():
        raise StoreError(f"there is no answer store {path}: one is made by --set answers=PATH")
    store = AnswerStore(path)
    if clear:
        store.clear()
    print(f"{path}: {len(store):,} answers, {store.size / 1e6:,.1f} MB")


@app.command(name="list")
def list_names() -> None:
    """List data sets, simulators and agents."""
    from usermirror_gym.agents import available_agents
    from usermirror_gym.data import SOURCES
    from usermirror_gym.simulators import available_simulators

    print(f"data sets:  {', '.join(SOURCES)}")
    print(f"simulators: {', '.join(available_simulators())}, or any checkpoint")
    print(f"agents:     {', '.join(available_agents())}")
