"""The data behind the report's episode viewer: a bounded number of episodes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import pandas as pd

from usermirror_gym.data import TimeSplit
from usermirror_gym.files import to_json_types
from usermirror_gym.report.text import shorten
from usermirror_gym.types import ITEM_ID, PAD, TITLE, TOKEN

HISTORY_SHOWN = 10
RATIONALE_LIMIT = 4000
TEXT_LIMIT = 160
_DETAILS = ("year", "genres")


def viewer_data(steps: pd.DataFrame, split: TimeSplit, max_episodes: int = 20) -> dict[str, Any]:
    """The first ``max_episodes`` episodes of every agent, and the items and users in them.

    The same episodes for every agent, so that two agents can be compared on the same user.
    Plain JSON types: ``{agents, episodes: [{id, user}], items: {id: [title, detail]},
    users: {id: {profile, history, seen}}, log: {agent: {episode: [step]}}}``.
    """
    shown = sorted(steps["episode"].unique())[:max_episodes]
    part = steps[steps["episode"].isin(shown)].sort_values(["episode", "step"], kind="stable")
    users = {int(u): _user(int(u), split) for u in part["user_id"].unique()}
    items = {int(i) for slate in part["slate"] for i in slate}
    items |= {item for user in users.values() for item, _ in user["history"]}
    owner = part.drop_duplicates("episode").set_index("episode")["user_id"]
    log: dict[str, dict[str, list[dict[str, Any]]]] = {str(a): {} for a in steps["agent"].unique()}
    for row in part.to_dict("records"):
        log[str(row["agent"])].setdefault(str(row["episode"]), []).append(_step(row))
    return to_json_types(
        {
            "agents": list(log),
            "episodes": [{"id": e, "user": owner[e]} for e in shown],
            "items": _items(items - {PAD}, split),
            "users": users,
            "log": log,
        }
    )


def _step(row: Mapping[Hashable, Any]) -> dict[str, Any]:
    rationale = row.get("rationale")
    rating = row["rating"]
    return {
        "slate": list(row["slate"]),
        "p": [round(float(p), 4) for p in row["probabilities"]],
        "choice": row["choice"],
        "rating": None if rating is None or pd.isna(rating) else float(rating),
        "reward": round(float(row["reward"]), 6),
        "end": "left" if row["terminated"] else "horizon" if row.get("truncated") else None,
        "why": shorten(rationale, RATIONALE_LIMIT) if isinstance(rationale, str) else None,
    }


def _items(ids: Iterable[int], split: TimeSplit) -> dict[int, list[str]]:
    table = split.dataset.items.loc[sorted(ids)]
    return {
        int(row[ITEM_ID]): [
            shorten(str(row[TITLE]), TEXT_LIMIT),
            shorten(" · ".join(str(v) for v in map(row.get, _DETAILS) if _known(v)), TEXT_LIMIT),
        ]
        for row in table.reset_index().to_dict("records")
    }


def _user(user: int, split: TimeSplit) -> dict[str, Any]:
    """Profile fields as ``[name, value]`` and the last films before T0 as ``[item, rating]``."""
    profile = split.dataset.users.loc[user].drop(TOKEN)
    history = split.histories.get(user)
    recent: list[tuple[int, float]] = []
    if history is not None:
        pairs = zip(history.items[-HISTORY_SHOWN:], history.ratings[-HISTORY_SHOWN:], strict=True)
        recent = [(int(item), float(rating)) for item, rating in pairs]
    known = [(str(k), str(v)) for k, v in profile.items() if _known(v)]
    return {
        "profile": [[key.replace("_", " "), shorten(value, TEXT_LIMIT)] for key, value in known],
        "history": recent,
        "seen": 0 if history is None else len(history),
    }


def _known(value: Any) -> bool:
    return value is not None and value is not pd.NA and value == value and str(value) != ""
