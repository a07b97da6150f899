"""``usermirror data``: raw data sets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from usermirror_gym.cli.plain_errors import plain_errors

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
    from usermirror_gym.data.fetch import fetch as fetch_files
    from usermirror_gym.progress import Display

    print(fetch_files(get_source(name), folder, Display()))


@app.command()
@plain_errors
def sources() -> None:
    """List the raw data sets: domain, terms, how to get them, and whether they are here."""
    from usermirror_gym.data import SOURCES
    from usermirror_gym.data.folders import default_folder

    table = Table("name", "domain", "here", "how to get", "terms", box=None, padding=(0, 2, 1, 0))
    for name, source in SOURCES.items():
        folder = default_folder(name)
        fetched = folder.is_dir() and not source.missing(folder)
        here = "included" if source.included else "yes" if fetched else "no"
        way = f"usermirror data fetch {name}" if source.downloads else source.how_to_get
        way = source.how_to_get if source.included else way
        table.add_row(name, source.domain, here, way, source.terms)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    console.print(
        f"Here: in {default_folder('NAME')} (set USERMIRROR_DATA for another place). Also "
        "amazon:<Category>, and your own tables: see docs/custom-data.md.",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
