"""Several fidelity cards in one table, and paired differences where the scenes are the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from rich.table import Table

from usermirror_gym.errors import ConfigError, RunError
from usermirror_gym.fidelity.checks.base import SHOWN
from usermirror_gym.fidelity.checks.parts import own, pair_cells
from usermirror_gym.fidelity.pages import count, read_card
from usermirror_gym.files import read_parquet, to_json_types, write_json, write_parquet, write_text
from usermirror_gym.measures.bootstrap import UserBootstrap
from usermirror_gym.report.page import render
from usermirror_gym.report.tables import View, view_table
from usermirror_gym.report.text import interval, points
from usermirror_gym.run_folder import locked
from usermirror_gym.types import FloatArray

SCORES = "scores.parquet"
"""Beside ``card.json``: ``scene`` (digest), ``user_id``, ``accuracy`` and ``log_loss`` of the
simulator on every list with the true item, none of these left out."""
_METRICS = list(SHOWN)


@dataclass(frozen=True)
class Entry:
    """A card that is compared."""

    name: str
    card: Mapping[str, Any]
    scores: pd.DataFrame | None = None
    """See :data:`SCORES`; without them there are no paired differences."""


def read_entries(folders: Sequence[str | Path]) -> list[Entry]:
    """The cards of folders that ``usermirror evaluate`` wrote; equal names get the folder's.

    Raises:
        RunError: a folder has no card, or scores that cannot be read.
    """
    cards = [read_card(folder) for folder in folders]
    count = Counter(card["simulator"]["name"] for card in cards)
    entries = []
    for folder, card in zip(map(Path, folders), cards, strict=True):
        home = folder if folder.is_dir() else folder.parent
        name = card["simulator"]["name"]
        label = name if count[name] == 1 else f"{name} ({home.name})"
        entries.append(Entry(label, card, _read_scores(home / SCORES)))
    return entries


def write_scores(
    path: Path, scenes: Sequence[str], users: Sequence[int], scores: FloatArray
) -> Path:
    """Write :data:`SCORES`.

    Args:
        scenes: digest of each scene.
        users: user id of each scene.
        scores: ``(S, 2)`` accuracy and log-loss; rows that are not numbers are left out.
    """
    frame = pd.DataFrame({"scene": scenes, "user_id": users})
    frame[_METRICS] = scores
    frame = frame.dropna().reset_index(drop=True)
    return write_parquet(path, pa.Table.from_pandas(frame, preserve_index=False))


def compare(entries: Sequence[Entry], *, n_resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """One row per card, and every two of them against each other on the scenes they share.

    Returns:
        plain types: ``format``; ``cards``: name, scenes, and the numbers of the simulator;
        ``paired``: ``chooser``, ``against``, ``scenes`` (how many both answered) and the
        differences in ``accuracy`` and ``log_loss`` (chooser minus against) as intervals over
        users; ``apart``: pairs without a common scene.

    Raises:
        ConfigError: fewer than two cards, or two of one name.
    """
    names = [entry.name for entry in entries]
    if len(entries) < 2:
        raise ConfigError(f"a comparison needs at least two cards, got {len(entries)}")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ConfigError(f"named twice: {', '.join(twice)}")
    paired, apart = [], []
    for a, b in combinations(entries, 2):
        found = _paired(a, b, n_resamples, seed)
        paired += [found] if found else []
        apart += [] if found else [[a.name, b.name]]
    rows = [_row(entry) for entry in entries]
    found_: dict[str, Any] = to_json_types(
        {"format": 1, "cards": rows, "paired": paired, "apart": apart}
    )
    return found_


def write_comparison(comparison: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """Write ``compare.html``, ``compare.md`` and ``compare.json``.

    Raises:
        RunError: another process is writing a comparison there.
    """
    folder = Path(folder)
    cards = sorted(comparison["cards"], key=_loss)
    view = {
        "cards": card_table(comparison), "paired": paired_table(comparison),
        "apart": [f"{a} and {b}" for a, b in comparison["apart"]],
        "title": f"{len(cards)} simulated users",
    }  # fmt: skip
    with locked(folder, "is writing a comparison", clean=False):
        return [
            write_text(folder / "compare.html", render("compare.html", view)),
            write_text(folder / "compare.md", render("compare.md", view)),
            write_json(folder / "compare.json", comparison),
        ]


def comparison_tables(comparison: Mapping[str, Any]) -> list[Table]:
    """The cards as rows, and the paired differences, for the terminal."""
    views = (card_table(comparison), paired_table(comparison))
    return [view_table(view) for view in views if view is not None]


def card_table(comparison: Mapping[str, Any]) -> View | None:
    """One row per card, best log-loss first."""
    columns: dict[str, Any] = {
        "simulator": "name",
        "scenes": lambda row: f"{row['scenes']:,} {row['source']}",
        "accuracy %": lambda row: points(row["accuracy"]),
        "log-loss": lambda row: interval(row["log_loss"], ".3f"),
        "ECE": lambda row: interval(row["ece"], ".3f"),
        "own - swapped": lambda row: points(row["history"], sign=True),
        "AUC of none": lambda row: interval(row["auc"], ".3f"),
        "order": lambda row: interval(row["mean_change"], ".3f"),
        "bars": "bars",
    }
    note = (
        "Accuracy and log-loss on lists with the true item, none of these left out. ECE: expected "
        "calibration error. own - swapped: points of accuracy that the user's own history is worth "
        "more than another's. AUC of none: whether none of these is likelier where the true item "
        "is missing. order: mean change of a probability when the list is permuted. bars: how "
        "much holds of what each card says must hold. Ranges are 95% intervals over users."
    )
    rows = sorted(comparison["cards"], key=_loss)
    if old := [row["name"] for row in rows if row.get("swapped_as_long") is None]:
        note += (
            " The other history was of any length, not as long as the own, in cards of earlier "
            f"versions: {', '.join(old)}."
        )
    return View.of("One row per simulator", rows, columns, note)


def paired_table(comparison: Mapping[str, Any]) -> View | None:
    """Every two simulators on the scenes that both answered."""
    columns: dict[str, Any] = {
        "pair": lambda pair: f"{pair['chooser']} against {pair['against']}",
        "scenes": lambda pair: f"{pair['scenes']:,}",
        "difference in accuracy": lambda pair: pair_cells(pair)[0],
        "difference in log-loss": lambda pair: pair_cells(pair)[1],
    }
    note = (
        "First minus second, list by list, in points and nats: ▲ the first is better, ▼ worse, "
        "where the 95% interval excludes zero."
    )
    return View.of("Paired differences", comparison["paired"], columns, note)


def _row(entry: Entry) -> dict[str, Any]:
    card, me = entry.card, own(entry.card)
    forced, scenes = me["overall"]["forced"], card["scenes"]
    return {
        "name": entry.name,
        "model": card["simulator"]["model"],
        "source": scenes["source"],
        "hash": scenes["hash"],
        "scenes": scenes["with_target"],
        "accuracy": forced["accuracy"],
        "log_loss": forced["log_loss"],
        "ece": (me["calibration"] or {}).get("ece"),
        "history": (card["history"] or {}).get("accuracy"),
        "swapped_as_long": scenes.get("swapped_as_long"),
        "auc": (card["outside"] or {}).get("auc"),
        "mean_change": (card["order"] or {}).get("mean_change"),
        "bars": count(card),
    }


def _paired(a: Entry, b: Entry, n_resamples: int, seed: int) -> dict[str, Any] | None:
    if a.scores is None or b.scores is None:
        return None
    both = a.scores.merge(b.scores, on=["scene", "user_id"], suffixes=("", "_b"))
    if both.empty:
        return None
    differences = both[_METRICS].to_numpy() - both[[f"{m}_b" for m in _METRICS]].to_numpy()
    bootstrap = UserBootstrap(both["user_id"].to_numpy(np.int64), n_resamples, seed)
    blocks = bootstrap.intervals(differences)
    return {"chooser": a.name, "against": b.name, "scenes": len(both)} | {
        metric: block._asdict() for metric, block in zip(_METRICS, blocks, strict=True)
    }


def _read_scores(path: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    scores = read_parquet(path).to_pandas()
    if missing := {"scene", "user_id", *_METRICS} - set(scores.columns):
        raise RunError(f"{path} lacks {sorted(missing)}; make the card again")
    return scores


def _loss(row: Mapping[str, Any]) -> float:
    loss = row["log_loss"]["mean"]
    return float("inf") if loss is None else float(loss)
