"""The Parquet form of scenes: one row each, with ids for this library and words for any other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pyarrow as pa

from usermirror_gym.scenes.scene import Scene

SPLITS = ("train", "validation", "eval")
KINDS = ("choice", "removed", "impression")

SCHEMA = pa.schema(
    [
        # What the scene is.
        pa.field("scene_id", pa.string()),  # unique within a build, stable between builds
        pa.field("dataset", pa.string()),
        pa.field("domain", pa.string()),
        pa.field("split", pa.string()),  # one of SPLITS
        # choice: a logged choice, distractors sampled; removed: the same without the chosen item;
        # impression: a list that was really shown
        pa.field("kind", pa.string()),
        pa.field("user_id", pa.int64()),
        pa.field("seen_user", pa.bool_()),  # the user has interactions before T0
        pa.field("timestamp", pa.int64()),  # seconds, when the choice was made
        # The memory, oldest first; four lists of one length.
        pa.field("history", pa.list_(pa.int64())),  # item ids
        pa.field("ratings", pa.list_(pa.float32())),  # NaN where there is none
        pa.field("ages", pa.list_(pa.int64())),  # seconds before `timestamp`; -1 unknown
        pa.field("behaviours", pa.list_(pa.string())),
        # The list, in the order shown; three lists of one length K.
        pa.field("slate", pa.list_(pa.int64())),  # item ids
        pa.field("samplers", pa.list_(pa.string())),  # of each option; "log" if logged
        pa.field("notes", pa.list_(pa.string())),
        pa.field("target", pa.int32()),  # position in slate; K is none of these
        pa.field("item_id", pa.int64()),  # the choice (a removed scene hides it); 0: nothing
        # The same in words.
        pa.field("profile", pa.string()),
        pa.field("history_texts", pa.list_(pa.string())),
        pa.field("options", pa.list_(pa.string())),
    ]
)  # fmt: skip
"""Columns of a scenes file, in order."""


def scenes_of(table: pa.Table) -> list[Scene]:
    """Rows of a scenes table as :class:`Scene`; the names are the scene ids."""
    names = [field.name for field in fields(Scene) if field.name != "turns"]
    columns = (table.column("scene_id" if name == "name" else name) for name in names)
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    values: Iterator[list[Any]] = (
        [tuple(v) if isinstance(v, list) else v for v in row] for row in rows
    )
    return [Scene(**dict(zip(names, row, strict=True))) for row in values]
