"""``usermirror evaluate``: how far a simulated user chooses like the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from usermirror_gym.cli.options import show, takes
from usermirror_gym.fidelity.config import EvaluateConfig


@takes(EvaluateConfig, llm="options", options="--set")
def evaluate(
    config: EvaluateConfig,
    names: Annotated[
        list[str] | None,
        typer.Argument(help="With --compare: simulators, or folders of finished cards."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="One table of several: --compare A B C.")
    ] = False,
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

    if names and not compare:
        raise ConfigError(
            f"{' '.join(names)}: one simulator is named with --simulator, several with --compare"
        )
    if compare:
        _compare(config, names or [], out or Path("runs/evaluate/compare"))
    else:
        _evaluate(config, out)


def _evaluate(config: EvaluateConfig, out: Path | None) -> None:
    from usermirror_gym.fidelity.pages import criteria_lines, summary_table
    from usermirror_gym.fidelity.run import default_folder, evaluate
    from usermirror_gym.progress import Display

    folder = out or default_folder(config)
    card = evaluate(config, folder, display=Display())
    show(summary_table(card), *criteria_lines(card), *(f"- {line}" for line in card["verdict"]))
    show(*(folder / name for name in ("card.html", "card.md", "card.json")))


def _compare(config: EvaluateConfig, names: list[str], folder: Path) -> None:
    from usermirror_gym.fidelity.compare import (
        compare,
        comparison_tables,
        read_entries,
        write_comparison,
    )
    from usermirror_gym.fidelity.run import card_folders
    from usermirror_gym.progress import Display

    comparison = compare(read_entries(card_folders(config, names, display=Display())))
    show(*comparison_tables(comparison), *write_comparison(comparison, folder))
