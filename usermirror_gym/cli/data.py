"""``usermirror data``: raw data sets, and the training data that are built from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from usermirror_gym.cli.options import (
    OutFolder,
    RecipeSetting,
    is_terminal,
    parse_settings,
    plain_errors,
    say,
)
from usermirror_gym.cli.options import show as printed
from usermirror_gym.progress import Terminal

app = typer.Typer(
    help="Fetch raw data sets and build training data from them.", no_args_is_help=True,
    rich_markup_mode=None,
)  # fmt: skip


@app.command()
@plain_errors
def fetch(
    name: Annotated[
        str, typer.Argument(help="See 'usermirror data sources'; or amazon:<Category>.")
    ],
    folder: Annotated[
        Path | None,
        typer.Option(help="Where the files go; by default where load_dataset looks for them."),
    ] = None,
) -> None:
    """Download a raw data set, or say exactly which file to put where."""
    from usermirror_gym.data import get_source
    from usermirror_gym.data.raw.fetch import fetch as fetch_files
    from usermirror_gym.progress import Display

    say(fetch_files(get_source(name), folder, Display()))


@app.command()
@plain_errors
def sources() -> None:
    """List the raw data sets: domain, terms, how to get them, and whether they are here."""
    from usermirror_gym.data import SOURCES
    from usermirror_gym.data.sources.base import default_folder

    table = Table("name", "domain", "here", "how to get", "terms", box=None, padding=(0, 2, 1, 0))
    for name, source in SOURCES.items():
        folder = default_folder(name)
        fetched = folder.is_dir() and not source.missing(folder)
        here = "included" if source.included else "yes" if fetched else "no"
        way = f"usermirror data fetch {name}" if source.downloads else source.how_to_get
        way = source.how_to_get if source.included else way
        table.add_row(name, source.domain, here, way, source.terms)
    printed(table)
    say(
        f"Here: in {default_folder('NAME')} (set USERMIRROR_DATA for another place). Also "
        "amazon:<Category>, and your own tables: see docs/custom-data.md."
    )


@app.command()
@plain_errors
def build(
    config: Annotated[
        str, typer.Option(help="A YAML file, or a preset: ml-100k, ml-1m, lastfm, usermirrorer.")
    ],
    out: OutFolder = None,
    setting: RecipeSetting = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only build the scenes and say what the rest will take."),
    ] = False,
) -> None:
    """Build training data: scenes, rationales, selected pairs, audits and a data card."""
    from usermirror_gym.corpus.build import build_data, estimate_build
    from usermirror_gym.corpus.config import read_config
    from usermirror_gym.progress import Display

    settings = read_config(config, parse_settings(setting))
    folder = out or Path("runs") / settings.name
    if dry_run:
        for estimate in estimate_build(settings, folder, display=Display()):
            say(estimate)
        return
    build_data(settings, folder, display=Display())
    for name in ("card.html", "card.md", "scenes", "train"):
        say(folder / name)


@app.command()
@plain_errors
def audit(folder: Annotated[Path, typer.Argument(help="Of a finished build.")]) -> None:
    """Look for leaks in a build: status 1 if one is found."""
    from usermirror_gym.corpus.audit import audit_build, print_audit

    console = Terminal(width=None if is_terminal() else 120)
    if not print_audit(audit_build(folder), console):
        raise typer.Exit(1)


@app.command()
@plain_errors
def show(
    folder: Annotated[Path, typer.Argument(help="Of a finished build.")],
    split: Annotated[str, typer.Option(help="train, validation or eval.")] = "eval",
    count: Annotated[int, typer.Option(min=1, help="Scenes of each data set.")] = 1,
) -> None:
    """Print scenes as the model reads them, with the right answer."""
    from usermirror_gym.corpus.built import read_build
    from usermirror_gym.errors import UnknownNameError
    from usermirror_gym.scenes import PromptBuilder, PromptConfig, domain_text
    from usermirror_gym.scenes.table import SPLITS, scenes_of

    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    for source in read_build(folder).sources:
        scenes = scenes_of(source.scenes(split).slice(0, count))
        if not scenes:
            say(f"{source.name} has no {split} scenes")
            continue
        builder = PromptBuilder(domain_text(source.dataset), PromptConfig(form="scene"))
        for scene in scenes:
            prompt = builder.letters(scene)
            say(f"== {scene.name}", *(m.content for m in prompt.messages))
            answer = "?" if scene.target is None else prompt.options[scene.target]
            say(f"{prompt.answer_prefix}{answer}]\n")
