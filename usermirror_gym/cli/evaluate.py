"""``usermirror evaluate``: how far a simulated user chooses like the real ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from usermirror_gym.cli.options import Engine, Setting, plain_errors, simulator_settings


@plain_errors
def evaluate(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="With --compare: simulators, or folders of finished cards."),
    ] = None,
    simulator: Annotated[
        str, typer.Option(help="Preset, checkpoint folder, hub name, or a classic chooser.")
    ] = "smollm2-ml100k",
    scenes: Annotated[
        str,
        typer.Option(
            help="A data set (its scenes are built once and kept), the folder of a finished "
            "'usermirror data build', or Joinn/UserMirrorer-eval or a copy of it."
        ),
    ] = "ml-100k",
    source: Annotated[
        str | None, typer.Option(help="Which data set of a build that has several.")
    ] = None,
    balance: Annotated[
        str | None,
        typer.Option(
            help="Lists drawn for a data set: 'popularity' (company as popular as what is chosen) "
            "or 'none'; by default as the data set's preset says."
        ),
    ] = None,
    count: Annotated[int, typer.Option(help="Most evaluation scenes with the true item.")] = 2000,
    base: Annotated[
        str | None,
        typer.Option(
            help="The simulator before training, to stand beside it; by default the preset of its "
            "base weights; 'none' leaves it out."
        ),
    ] = None,
    checks: Annotated[
        int,
        typer.Option(help="Lists in each further check (order, none of these, edited texts)."),
    ] = 150,
    classic: Annotated[
        bool, typer.Option(help="Fit the classic choosers (ItemKNN, EASE, SASRec ...) too.")
    ] = True,
    compare: Annotated[
        bool, typer.Option("--compare", help="One table of several: --compare A B C.")
    ] = False,
    engine: Engine = "auto",
    setting: Setting = None,
    released_train: Annotated[
        str,
        typer.Option(help="For released scenes: the train set, which has the prompts' layout."),
    ] = "Joinn/UserMirrorer",
    seed: Annotated[int, typer.Option(help="Same seed, same card.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the card; an unfinished one in it is continued. By default "
            "runs/evaluate/SIMULATOR-SCENES, for comparisons runs/evaluate/compare."
        ),
    ] = None,
) -> None:
    """Judge a simulated user by real choices: card.html, card.md, card.json."""
    from usermirror_gym.errors import ConfigError
    from usermirror_gym.fidelity.run import EvaluateConfig

    if names and not compare:
        raise ConfigError(
            f"{' '.join(names)}: one simulator is named with --simulator, several with --compare"
        )
    config = EvaluateConfig(
        simulator=simulator, options=simulator_settings(setting, engine), scenes=scenes,
        source=source, balance=balance, count=count, base=base, checks=checks, classic=classic,
        released_train=released_train, seed=seed,
    )  # fmt: skip
    console = Console(width=None if sys.stdout.isatty() else 120)
    if compare:
        _compare(config, names or [], out, console)
    else:
        _evaluate(config, out, console)


def _evaluate(config: object, out: Path | None, console: Console) -> None:
    from usermirror_gym.fidelity.pages import criteria_lines, summary_table
    from usermirror_gym.fidelity.run import EvaluateConfig, default_folder, evaluate
    from usermirror_gym.progress import Display

    assert isinstance(config, EvaluateConfig)
    folder = out or default_folder(config)
    card = evaluate(config, folder, display=Display())
    console.print(summary_table(card))
    for line in criteria_lines(card):
        console.print(line)
    for sentence in card["verdict"]:
        console.print(f"- {sentence}", markup=False, highlight=False)
    for name in ("card.html", "card.md", "card.json"):
        console.print(f"{folder / name}", highlight=False, markup=False)


def _compare(config: object, names: list[str], out: Path | None, console: Console) -> None:
    from usermirror_gym.fidelity.compare import (
        compare,
        comparison_tables,
        read_entries,
        write_comparison,
    )
    from usermirror_gym.fidelity.run import EvaluateConfig, card_folders
    from usermirror_gym.progress import Display

    assert isinstance(config, EvaluateConfig)
    folder = out or Path("runs/evaluate/compare")
    comparison = compare(read_entries(card_folders(config, names, display=Display())))
    for table in comparison_tables(comparison):
        console.print(table)
    for path in write_comparison(comparison, folder):
        console.print(f"{path}", highlight=False, markup=False)
