"""``usermirror export``: what simulated users did, for other software."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from usermirror_gym.cli.options import Allow, plain_errors

FORMS = ("recbole", "minari")


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
        print(
            f"{found['simulated']:,} simulated choices of {', '.join(found['agents'])} "
            f"({found['repeated']:,} of an item that the same user took before), "
            f"{found['real']:,} real ones before T0 = {found['t0']}"
        )
        print(f"RecBole reads them with dataset={out.name!r}, data_path={str(out.parent)!r}")
    elif to == "minari":
        found = export_minari(run, out, agents=agent or (), allow=allow or (), display=Display())
        print(f"{found['episodes']:,} episodes, {found['steps']:,} steps")
        print(f"minari.MinariDataset({str(out / 'data')!r})")
    else:
        raise UnknownNameError("form", to, FORMS)
