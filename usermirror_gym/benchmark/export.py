"""What simulated users did, in the forms that other software trains on.

From the log of a benchmark: RecBole's atomic files, to train recommenders again on simulated
feedback, and Minari data sets (Younis et al., Farama Foundation), for offline RL.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from usermirror_gym.benchmark.replay import Row, Run
from usermirror_gym.data import RecDataset
from usermirror_gym.data.atomic_files import write_atomic_files
from usermirror_gym.errors import RunError, UnknownNameError
from usermirror_gym.files import write_json
from usermirror_gym.run_folder import is_occupied, locked
from usermirror_gym.types import ITEM_ID, RATING, TIMESTAMP, USER_ID

MANIFEST = "export.json"


def trusted_run(folder: str | Path, agents: Sequence[str] = ()) -> Run:
    """The run in a folder, its values checked.

    Args:
        agents: whose episodes; all by default.

    Raises:
        RunError: no finished run, or a step that cannot have happened in it; names it.
        UnknownNameError: the run has no such agent; suggests the nearest.
    """
    folder = Path(folder)
    run = Run.read(folder)
    names = {name.casefold(): name for name in run.log}
    for agent in agents:
        if agent.casefold() not in names:
            raise UnknownNameError("agent of this run", agent, run.log)
    chosen = [names[agent.casefold()] for agent in agents] or list(run.log)
    run = replace(run, log={agent: run.log[agent] for agent in dict.fromkeys(chosen)})
    for row in run.steps:
        if mistake := _impossible(row, run.world.split.dataset):
            where = f"{row['agent']}, episode {row['episode']}, step {row['step']}"
            raise RunError(f"{folder / 'episodes.jsonl'}: {where}: {mistake}")
    return run


def export_recbole(
    run: str | Path, out: str | Path, *, agents: Sequence[str] = (), real: bool = True
) -> dict[str, Any]:
    """Simulated choices as interactions, behind the real ones of before T0.

    Each choice is one row, also where a user took an item before; choices have the moments
    T0 + 1 s, T0 + 2 s ... in the order of the log.  The sessions of several agents all start at T0:
    what a user did in one of them is not known in the others.

    Args:
        run: folder of a finished benchmark.
        out: folder to write, whose name is the name of the data set; an export there is replaced.
        agents: whose episodes; all by default.
        real: false leaves the interactions before T0 out.

    Returns:
        The content of ``export.json``: what was written.

    Raises:
        RunError: see :func:`trusted_run`; nobody chose anything; or ``out`` holds something else.
        DataError: an id that RecBole would read as something else.
    """
    finished, out = trusted_run(run, agents), Path(out)
    if is_occupied(out) and not (out / MANIFEST).is_file():
        raise RunError(f"{out} is not empty and holds no export; name another folder")
    split = finished.world.split
    chosen = [row for row in finished.steps if row["item"]]
    if not chosen:
        raise RunError(f"{run}: no simulated user chose anything: there is nothing to export")
    feedback = pd.DataFrame(
        {
            USER_ID: np.array([row["user_id"] for row in chosen], np.int64),
            ITEM_ID: np.array([row["item"] for row in chosen], np.int64),
            TIMESTAMP: split.t0 + 1 + np.arange(len(chosen), dtype=np.int64),
            RATING: np.array([row["rating"] for row in chosen], np.float64),
        }
    )
    before = split.before[list(feedback.columns)] if real else feedback.iloc[:0]
    pairs = feedback[[USER_ID, ITEM_ID]]
    facts = {
        "form": "recbole", "agents": list(finished.log), "simulator": finished.config.simulator,
        "dataset": split.dataset.name, "t0": split.t0, "real": len(before),
        "simulated": len(feedback), "repeated": int(pairs.duplicated().sum()),
    }  # fmt: skip
    with locked(out, "is exporting"):
        (out / MANIFEST).unlink(missing_ok=True)  # an export that is being replaced is none
        write_atomic_files(out, split.dataset, pd.concat([before, feedback], ignore_index=True))
        write_json(out / MANIFEST, facts)
    return facts


def _impossible(row: Row, dataset: RecDataset) -> str | None:
    """Why a step cannot have happened with these users and items."""
    slate, size = row["slate"], len(row["slate"])
    if not _whole(row["user_id"], 1, dataset.n_users):
        return f"user_id {row['user_id']!r} is not in 1..{dataset.n_users}"
    for item in slate:
        if not _whole(item, 1, dataset.n_items):
            return f"slate {slate}: item {item!r} is not in 1..{dataset.n_items}"
    if not _whole(row["choice"], 0, size):
        return f"choice {row['choice']!r} is not in 0..{size}, where {size} is none of these"
    taken = [*slate, 0][row["choice"]]
    if row["item"] != taken:
        return f"item {row['item']!r} is not what choice {row['choice']} of {slate} is, {taken}"
    if row["rating"] is not None and not _number(row["rating"]):
        return f"rating {row['rating']!r} is no number"
    for name in ("reward", "seed"):
        if not _number(row[name]):
            return f"{name} {row[name]!r} is no number"
    if not all(map(_number, row["probabilities"])):
        return f"probabilities {row['probabilities']!r} are no numbers"
    ends = row["terminated"], row["truncated"]
    return None if set(map(type, ends)) == {bool} else f"terminated and truncated are {ends}"


def _whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
