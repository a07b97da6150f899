"""Scenes become a table of ids and words (:data:`usermirror_gym.scenes.table.SCHEMA`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from usermirror_gym.scenes.draw.columns import SceneColumns, spans
from usermirror_gym.scenes.draw.exposure import ORIGINS
from usermirror_gym.scenes.draw.rankers import Rankers
from usermirror_gym.scenes.scene import UNKNOWN_AGE
from usermirror_gym.scenes.table import SCHEMA
from usermirror_gym.scenes.words.template import DomainText
from usermirror_gym.types import PAD, IntArray


def scene_table(
    columns: SceneColumns, rankers: Rankers, text: DomainText, split_name: str
) -> pa.Table:
    """All columns of the schema.

    Args:
        columns: the scenes.
        rankers: of the data set they come from.
        text: the words of its domain.
        split_name: ``"train"``, ``"validation"`` or ``"eval"``.
    """
    split, line = rankers.split, columns.timeline
    flat, rows = spans(columns.first_lines, columns.lines)
    past, ratings = line.items[flat], line.ratings[flat]
    ages = np.where(line.dated[flat], columns.timestamps[rows] - line.times[flat], UNKNOWN_AGE)
    behaviours = text.behaviours(split.dataset.interactions.iloc[line.rows[flat]])
    shown = columns.slates != PAD
    items, sizes = columns.slates[shown], shown.sum(axis=1)
    notes = _notes(columns, rankers, text.past)
    options = [f"{text.option(i)}; {n}" if n else text.option(i)
               for i, n in zip(items.tolist(), notes, strict=True)]  # fmt: skip
    known_ages = [None if age == UNKNOWN_AGE else age for age in ages.tolist()]
    past_texts = text.past_items(past.tolist(), ratings.tolist(), behaviours, known_ages)
    n = len(columns)
    values = {
        "scene_id": columns.scene_ids,
        "dataset": [split.dataset.name] * n,
        "domain": [split.dataset.domain] * n,
        "split": [split_name] * n,
        "kind": _kinds(columns),
        "user_id": columns.user_ids,
        "seen_user": np.isin(columns.user_ids, split.seen_users),
        "timestamp": columns.timestamps,
        "history": _lists(past, columns.lines),
        "ratings": _lists(ratings.astype(np.float32), columns.lines),
        "ages": _lists(ages, columns.lines),
        "behaviours": _lists(behaviours, columns.lines),
        "slate": _lists(items, sizes),
        "samplers": _lists(np.array(ORIGINS, object)[columns.origins[shown]].tolist(), sizes),
        "notes": _lists(notes, sizes),
        "target": columns.targets.astype(np.int32),
        "item_id": columns.items,
        "profile": [text.profile(user) for user in columns.user_ids.tolist()],
        "history_texts": _lists(past_texts, columns.lines),
        "options": _lists(options, sizes),
    }
    return pa.Table.from_pydict(values, schema=SCHEMA)


def distinct_options(
    columns: SceneColumns, text: DomainText, count: int | None = None
) -> SceneColumns:
    """The first ``count`` scenes in which no two items read the same, the hidden choice included.

    Catalogs list some things twice, under two ids: nobody could say which of them was chosen.
    """
    items = np.column_stack([columns.slates, np.where(columns.removed, columns.items, PAD)])
    ids, where = np.unique(items, return_inverse=True)
    codes, _ = pd.factorize(np.array([text.option(i) for i in ids.tolist()], object))
    padding = -1 - np.arange(items.shape[1])
    read = np.sort(np.where(items == PAD, padding, codes[where.reshape(items.shape)]), axis=1)
    twice = (read[:, 1:] == read[:, :-1]).any(axis=1)
    rows = np.flatnonzero(~twice)[:count]
    skipped = int(twice[: rows[-1]].sum()) if len(rows) else len(twice)
    return columns.select(rows, dropped={"two items that read the same": skipped})


def _lists(flat: Sequence | np.ndarray, lengths: IntArray) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values = pa.array(flat, pa.string()) if isinstance(flat, list) else pa.array(flat)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _kinds(columns: SceneColumns) -> list[str]:
    names = zip(columns.names.tolist(), columns.removed.tolist(), strict=True)
    return ["impression" if name else "removed" if gone else "choice" for name, gone in names]


def _notes(columns: SceneColumns, rankers: Rankers, past: str) -> list[str]:
    """One per option: what the user's friends did with the item before this moment."""
    if rankers.split.dataset.friends is None:
        return [""] * int((columns.slates != PAD).sum())
    notes = []
    for user, time, slate in zip(
        columns.user_ids.tolist(), columns.timestamps.tolist(), columns.slates, strict=True
    ):
        counts = rankers.friend_counts(user, time)[slate[slate != PAD]]
        texts = {0: "", 1: f"1 friend {past} it"}
        notes += [texts.get(n, f"{n} friends {past} it") for n in counts.tolist()]
    return notes
