"""Whose choices it foretells: people that the environment plays, soon after their last and later.

A score over all lists mixes two things.  Where the last line of the history is seconds old, what
comes next is largely the order in which a site lists its items; an hour later it is taste.  And a
simulator that is good on users who were unseen before T0 says little about those whose sessions
the environment starts.  Hence both apart, with what the own history is worth in each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from usermirror_gym.configs.session import MIN_HISTORY
from usermirror_gym.data import TimeSplit
from usermirror_gym.fidelity.checks.base import (
    SHOWN,
    SHOWN_COLUMNS,
    Card,
    Check,
    Context,
    by_name,
)
from usermirror_gym.fidelity.checks.history import how_long
from usermirror_gym.fidelity.checks.parts import KINDS, own, sorted_choosers
from usermirror_gym.fidelity.checks.slices import FEW
from usermirror_gym.measures.choice_scores import scores_given_click
from usermirror_gym.report.tables import Cell, View
from usermirror_gym.report.text import MISSING, interval, points, standing
from usermirror_gym.types import USER_ID, BoolArray

NEAR, FAR, DAY = 60, 3_600, 86_400
"""Seconds since the last line of the history: near is less, far is at least so long ago."""
MANY = 20
"""Interactions before T0 of an item that is known well."""
EVERYBODY, STARTED, UNSEEN = "all users", "environment users", "users unseen before T0"
NEAR_NAME, FAR_NAME = f"{STARTED}, near", f"{STARTED}, far"
_HEADLINE = (NEAR_NAME, FAR_NAME)
_NO_LISTS = "no lists"


class Populations(Check):
    """``populations`` of every chooser: :data:`SHOWN`; ``own_history``, what its own history is
    worth (own minus another user's), for those who were asked with both; and ``difference``, the
    simulator minus it, list by list."""

    def run(self, context: Context) -> dict[str, Any]:
        groups = {} if context.table is None else populations(context.table, context.split)
        rows: list[list[dict[str, Any]]] = [[] for _ in context.answered]
        scores = [own[:, SHOWN_COLUMNS] for own in context.scores]
        gains = [
            np.full_like(mine, np.nan) if row.swapped is None
            else mine - scores_given_click(row.swapped, context.choices)[:, SHOWN_COLUMNS]
            for row, mine in zip(context.answered, scores, strict=True)
        ]  # fmt: skip
        values = np.hstack([
            part for mine, gain in zip(scores, gains, strict=True)
            for part in (mine, gain, scores[0] - mine)
        ])  # fmt: skip
        for name, member in groups.items():
            found = context.bootstrap.intervals(np.where(member[:, None], values, np.nan))
            blocks = by_name(SHOWN, found)
            about = {"name": name, "n": int(member.sum()), "few": bool(member.sum() < FEW),
                     "users": len(np.unique(context.choices.users[member]))}  # fmt: skip
            for place, row in enumerate(context.answered):
                shown, gain, difference = blocks[3 * place : 3 * place + 3]
                more = {
                    "own_history": None if row.swapped is None else gain,
                    "difference": difference if place else None,
                }
                rows[place].append(about | shown | more)
        return {"choosers": [{"populations": own_rows} for own_rows in rows]}

    def sentences(self, card: Card) -> list[str]:
        found = _by_name(own(card))
        if STARTED not in found:
            return []
        near, far = (_score(found.get(name)) for name in _HEADLINE)
        return [
            f"On users that the environment plays: near {near}; far {far}. Near, the last line of "
            "the history is less than a minute old; far, an hour and more, where the order of a "
            "page says nothing."
        ]

    def tables(self, card: Card) -> list[View | None]:
        """Everybody near and far, and the simulator in every population."""
        columns: dict[str, Any] = {
            "population": "name",
            "lists": lambda row: f"{row['n']:,}{' (few)' if row['few'] else ''}",
            "users": lambda row: f"{row['users']:,}",
            "accuracy %": lambda row: points(row["accuracy"]),
            "log-loss": lambda row: interval(row["log_loss"], ".3f"),
            "own history, points": lambda row: _gain(row, "accuracy"),
            "own history, nats": lambda row: _gain(row, "log_loss"),
        }
        note = (
            "near: last line of the history less than a minute old; far: an hour and more; own "
            f"history: own minus another user's{how_long(card)}; few: less than 30 lists."
        )
        mine = View.of("By population", own(card).get("populations") or [], columns, note)
        return [_everybody(card), mine]


def headline(card: Card) -> list[tuple[str, str]]:
    """What a card says first: label and number of the simulator near and far, side by side.

    Nothing of a card that does not know who can be played.
    """
    found = _by_name(own(card))
    if STARTED not in found:
        return []
    scores, worths = [], []
    for name in _HEADLINE:
        if (row := found.get(name)) is None:
            scores.append((name, _NO_LISTS))
            continue
        accuracy, loss = (_bare(row[metric]) for metric in SHOWN)
        lists = f"{row['n']:,} lists{', few' if row['few'] else ''}"
        shown = f"{points(accuracy)} %, {interval(loss, '.3f')} nats"
        scores.append((f"{name} ({lists})", shown))
        if gain := row["own_history"]:
            accuracy, loss = (_bare(gain[metric]) for metric in SHOWN)
            shown = f"{points(accuracy, sign=True)} points, {interval(loss, '.3f', sign=True)} nats"
            worths.append((f"own minus swapped, {name.removeprefix(STARTED + ', ')}", shown))
    return [*scores, *worths]


def _bare(block: Mapping[str, Any]) -> dict[str, Any]:
    """Without its interval."""
    return {**block, "low": None}


def populations(scenes: pa.Table, split: TimeSplit | None) -> dict[str, BoolArray]:
    """``(S,)`` which scenes with a true item are of which population; those without a scene, and
    what cannot be known without data, are left out.

    Args:
        scenes: rows of :data:`usermirror_gym.scenes.table.SCHEMA`.
        split: the data behind them.
    """
    sizes = np.array([len(slate) for slate in scenes["slate"].to_pylist()], np.int64)
    kept = scenes["target"].to_numpy() < sizes
    gap = np.array([row[-1] if row else -1 for row in scenes["ages"].to_pylist()], np.int64)
    found = {EVERYBODY: kept}
    if split is not None:
        users, items = scenes["user_id"].to_numpy(), scenes["item_id"].to_numpy()
        activity = np.bincount(split.before[USER_ID], minlength=split.dataset.n_users + 1)
        started, events = kept & (activity[users] >= MIN_HISTORY), split.popularity[items]
        found |= {
            STARTED: started,
            NEAR_NAME: started & (gap >= 0) & (gap < NEAR),
            FAR_NAME: started & (gap >= FAR),
            f"{STARTED}, a day and more": started & (gap >= DAY),
            UNSEEN: kept & (activity[users] == 0),
            f"items with more than {MANY} events before T0": kept & (events > MANY),
            f"items with 1 to {MANY}": kept & (events > 0) & (events <= MANY),
            "items with none": kept & (events == 0),
        }
    return {name: member for name, member in found.items() if member.any()}


def _by_name(chooser: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {row["name"]: row for row in chooser.get("populations") or ()}


def _score(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return _NO_LISTS
    few = ", few" if row["few"] else ""
    accuracy, loss = points(row["accuracy"]), interval(row["log_loss"], ".3f")
    return f"({row['n']:,} lists{few}) accuracy {accuracy} % and log-loss {loss}{_worth(row)}"


def _worth(row: Mapping[str, Any]) -> str:
    gain = row["own_history"]
    if not gain:
        return ""
    return (
        f", of which its own history is worth {points(gain['accuracy'], sign=True)} points and "
        f"{interval(gain['log_loss'], '.3f', sign=True)} nats"
    )


def _gain(row: Mapping[str, Any] | None, metric: str) -> str:
    block = row and row["own_history"]
    if not block:
        return MISSING
    if metric == "accuracy":
        return points(block[metric], sign=True)
    return interval(block[metric], ".3f", sign=True)


def _difference(row: Mapping[str, Any] | None) -> Cell:
    block = ((row or {}).get("difference") or {}).get("log_loss")  # no older card has any
    if not block:
        return Cell(MISSING)
    side = standing(block, lower_is_better=True)
    return Cell(interval(block, ".3f", sign=True), side)


def _everybody(card: Card) -> View | None:
    """All choosers near and far, best far log-loss first."""
    found = [(chooser, _by_name(chooser)) for chooser in sorted_choosers(card)]
    rows: list[dict[str, Any]] = [
        {"chooser": chooser, "near": named.get(NEAR_NAME), "far": named.get(FAR_NAME)}
        for chooser, named in found
        if named.keys() & {*_HEADLINE}
    ]
    rows.sort(key=lambda row: (row["far"] or row["near"])["log_loss"]["mean"])

    def shown(which: str, metric: str) -> Any:
        spec = points if metric == "accuracy" else lambda block: interval(block, ".3f")
        return lambda row: MISSING if row[which] is None else spec(row[which][metric])

    def worth(which: str, metric: str) -> Any:
        return lambda row: _gain(row[which], metric)

    def difference(which: str) -> Any:
        return lambda row: _difference(row[which])

    columns: dict[str, Any] = {
        "chooser": lambda row: row["chooser"]["name"],
        "kind": lambda row: KINDS[row["chooser"]["kind"]],
    }
    for which in ("near", "far"):
        columns |= {
            f"{which}: accuracy %": shown(which, "accuracy"),
            f"{which}: log-loss": shown(which, "log_loss"),
            f"{which}: difference": difference(which),
            f"{which}: own history, points": worth(which, "accuracy"),
            f"{which}: own history, nats": worth(which, "log_loss"),
        }
    note = (
        "Order of a page helps near; far shows taste. difference: log-loss of the simulator minus "
        "the chooser's, list by list, ▲ where it excludes zero for the simulator and ▼ against it. "
        "own history: own minus another user's"
        f"{how_long(card)}."
    )
    return View.of("Environment users, near and far", rows, columns, note)
