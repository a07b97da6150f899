"""The ``usermirror`` command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from usermirror_gym.benchmark.config import BenchmarkConfig
from usermirror_gym.cli.data import app as data_app
from usermirror_gym.cli.evaluate import evaluate
from usermirror_gym.cli.experiments import retrain, transfer
from usermirror_gym.cli.options import Allow, Command, is_terminal, plain_errors, say, show, takes
from usermirror_gym.cli.train import train, train_agent, train_surrogate
from usermirror_gym.configs.session import SessionConfig, WorldConfig
from usermirror_gym.configs.settings import Positive

app = Command(
    help="Benchmark recommenders against a simulated user.", no_args_is_help=True,
    add_completion=False, rich_markup_mode=None, pretty_exceptions_show_locals=False,
)  # fmt: skip
app.add_typer(data_app, name="data")
for command in (evaluate, retrain, train, train_agent, train_surrogate, transfer):
    app.command()(command)

_SHOWN = 10
"""Differences that a replay prints."""


@app.command()
@takes(BenchmarkConfig, llm="simulator_options", simulator_options="--set")
def benchmark(
    config: BenchmarkConfig,
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
    from usermirror_gym.benchmark.run import default_folder, run_benchmark
    from usermirror_gym.progress import Display

    out = out or default_folder(config)
    show(results_table(run_benchmark(config, out, display=Display())))
    show(*(out / name for name in ("report.html", "results.json", "episodes.jsonl")))


@dataclass(frozen=True)
class EpisodeConfig(SessionConfig, WorldConfig):
    """One episode."""

    agent: str = "Pop"
    """Random, Pop, Oracle, any RecBole model, or your own (module:Name)."""
    steps: Positive = 5
    """Most lists."""
    seed: int = 0
    """Same seed, same result."""


@app.command()
@takes(EpisodeConfig, llm="simulator_options", simulator_options="--set")
def episode(
    config: EpisodeConfig,
    user: Annotated[int | None, typer.Option(help="User id; drawn by the seed if absent.")] = None,
) -> None:
    """Play one episode and print it readably, step by step."""
    from usermirror_gym.agents import make_agent
    from usermirror_gym.envs import SlateEnv, make_world

    world = make_world(
        config.dataset, data_folder=config.data_folder, simulator=config.simulator,
        simulator_options=config.simulator_options,
    )  # fmt: skip
    player = make_agent(config.agent, seed=config.seed, simulator=world.simulator).fit(world.split)
    env = SlateEnv(
        world, slate_size=config.slate_size, session=config.leaving, reward=config.reward,
        render_mode="ansi",
    )  # fmt: skip
    options = None if user is None else {"user_id": user}
    observation, _ = env.reset(seed=config.seed, options=options)
    for _ in range(config.steps):
        batched = {name: value[None] for name, value in observation.items()}
        slate = player.recommend(batched, config.slate_size)[0]
        observation, _, left, _, _ = env.step(slate)
        text = str(env.render())
        print(text if is_terminal() else Text.from_ansi(text).plain)
        if left:
            break


@app.command()
@plain_errors
def replay(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished benchmark.")],
    allow: Allow = None,
) -> None:
    """Play a logged benchmark once more, without its LLM, and compare every step."""
    from usermirror_gym.benchmark.replay import replay as play
    from usermirror_gym.progress import Display

    found = play(folder, allow=allow or (), display=Display())
    for difference in found.differences[:_SHOWN]:
        say(difference)
    if len(found.differences) > _SHOWN:
        say(f"... and {len(found.differences) - _SHOWN:,} more")
    what = f"{found.steps:,} steps of {found.episodes:,} episodes, {found.agents} agents"
    say(f"{what}: {'all as logged' if not found.differences else 'NOT as logged'}")
    if found.differences:
        raise typer.Exit(1)


@app.command()
@plain_errors
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished benchmark.")],
    to: Annotated[
        str, typer.Option(help="recbole (atomic files), or minari (offline RL; extra 'offline').")
    ],
    out: Annotated[
        Path,
        typer.Option(help="Folder to write; its name names the data set (minari: NAME-v0)."),
    ],
    agent: Annotated[
        list[str] | None, typer.Option(help="Whose episodes (repeatable); all by default.")
    ] = None,
    real: Annotated[
        bool, typer.Option(help="recbole: with the real interactions before T0.")
    ] = True,
    allow: Allow = None,
) -> None:
    """Write the episodes of a benchmark as RecBole's files or as a Minari data set."""
    from usermirror_gym.benchmark.export import export_recbole
    from usermirror_gym.benchmark.export_minari import export_minari
    from usermirror_gym.errors import UnknownNameError
    from usermirror_gym.progress import Display

    if to == "recbole":
        found = export_recbole(run, out, agents=agent or (), real=real)
        say(
            f"{found['simulated']:,} simulated choices of {', '.join(found['agents'])} "
            f"({found['repeated']:,} of an item that the same user took before), "
            f"{found['real']:,} real ones before T0 = {found['t0']}"
        )
        say(f"RecBole reads them with dataset={out.name!r}, data_path={str(out.parent)!r}")
    elif to == "minari":
        found = export_minari(run, out, agents=agent or (), allow=allow or (), display=Display())
        say(f"{found['episodes']:,} episodes, {found['steps']:,} steps")
        say(f"minari.MinariDataset({str(out / 'data')!r})")
    else:
        raise UnknownNameError("form", to, ("recbole", "minari"))


@app.command()
@plain_errors
def fetch(
    checkpoint: Annotated[
        str, typer.Argument(help="Trained simulator, hub name, folder, or GGUF file.")
    ] = "smollm2-135m-instruct",
) -> None:
    """Download and prepare the weights of a language model or a trained simulator."""
    from usermirror_gym.simulators.checkpoint import fetch_simulator

    say(fetch_simulator(checkpoint))


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
    show(table, f"--engine auto takes {choose_kind('weights')} for weights, server for openai:NAME")


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
    say(f"{path}: {len(store):,} answers, {store.size / 1e6:,.1f} MB")


@app.command(name="list")
@plain_errors
def list_names() -> None:
    """List data sets, simulators and agents."""
    from usermirror_gym.agents import available_agents
    from usermirror_gym.data import SOURCES
    from usermirror_gym.simulators import available_simulators

    say(f"data sets:  {', '.join(SOURCES)}")
    say(f"simulators: {', '.join(available_simulators())}, or any checkpoint")
    say(f"agents:     {', '.join(available_agents())}")
