"""The log before T0 as a RecBole data set, without files, and the way back to our ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from usermirror_gym.data import TimeSplit
from usermirror_gym.types import (
    AVAILABLE_FROM,
    ITEM_ID,
    RATING,
    TITLE,
    TOKEN,
    USER_ID,
    FloatArray,
    IntArray,
)

_MAX_VALUES = 200
"""A feature with more distinct values than this (titles, zip codes) says too little per value."""

_MISSING = "missing"
Features = dict[str, list[list[str]]]


@dataclass(frozen=True)
class Tables:
    """What RecBole may know: events before T0 and features, all in our ids.

    Attributes:
        users, items, ratings: ``(E,)`` the events in order of time.
        n_items: items of the catalog, with or without events.
        user_features, item_features: by column, the values of every user or item (ids 1..n); a
            list of values each.
    """

    users: IntArray
    items: IntArray
    ratings: FloatArray
    n_items: int
    user_features: Features
    item_features: Features

    @classmethod
    def of(cls, split: TimeSplit) -> Tables:
        """Read a split; nothing after T0 is looked at."""
        events = split.before
        return cls(
            users=events[USER_ID].to_numpy().astype(np.int64),
            items=events[ITEM_ID].to_numpy().astype(np.int64),
            ratings=events[RATING].fillna(1.0).to_numpy().astype(np.float64),
            n_items=split.dataset.n_items,
            user_features=_features(split.dataset.users),
            item_features=_features(split.dataset.items),
        )


def _features(table: pd.DataFrame) -> Features:
    found = {}
    # A moment is no category; of films it would only repeat the year.
    for column in table.columns.difference([TOKEN, TITLE, AVAILABLE_FROM], sort=False):
        values = [_values(cell) for cell in table[column]]
        if 1 < len({v for cell in values for v in cell}) <= _MAX_VALUES:
            found[str(column)] = values
    return found


def _values(cell: Any) -> list[str]:
    if pd.isna(cell) or str(cell) == "":
        return [_MISSING]
    return str(cell).split(", ")


class IdMap:
    """Our ids to RecBole's and back; 0 is padding in both, and what RecBole does not know."""

    def __init__(self, tokens: Any, n: int) -> None:
        self.ours = np.array([0, *(int(t) for t in tokens[1:])], np.int64)
        self.theirs = np.zeros(n + 1, np.int64)
        self.theirs[self.ours] = np.arange(len(self.ours))
        self.theirs[0] = 0

    def to_model(self, ids: IntArray) -> IntArray:
        """Any ids, even out of range, to RecBole's; unknown ones become 0."""
        inside = (ids > 0) & (ids < len(self.theirs))
        return self.theirs[np.where(inside, ids, 0)]


def build_dataset(config: Any, tables: Tables) -> Any:
    """A RecBole data set of the class that the model wants, filled from ``tables``."""
    import recbole.data.dataset as datasets
    from recbole.utils import ModelType

    by_type = {
        ModelType.SEQUENTIAL: datasets.SequentialDataset,
        ModelType.KNOWLEDGE: datasets.KnowledgeBasedDataset,
    }
    default = by_type.get(config["MODEL_TYPE"], datasets.Dataset)
    base = getattr(datasets, f"{config['model']}Dataset", default)

    class Filled(base):  # type: ignore[misc, valid-type]
        """Loads from memory where its base class reads files."""

        def _load_data(self, token: str, dataset_path: str) -> None:
            _fill(self, config, tables)

    return Filled(config)


def _fill(dataset: Any, config: Any, tables: Tables) -> None:
    from recbole.utils import FeatureSource, FeatureType, ModelType

    kind = config["MODEL_TYPE"]
    uid, iid = dataset.uid_field, dataset.iid_field
    inter = pd.DataFrame({uid: tables.users.astype(str), iid: tables.items.astype(str)})
    # Position within the user's history instead of seconds, which float32 cannot hold.
    inter[dataset.time_field] = inter.groupby(uid).cumcount().astype(float)
    if kind == ModelType.GENERAL:
        inter[RATING] = tables.ratings
    if kind == ModelType.CONTEXT:
        # Everything in this table becomes an input of the model, and time is unknown when asked.
        inter = inter[[uid, iid]]
    dataset.inter_feat = inter
    for field in inter:
        token = FeatureType.TOKEN if field in (uid, iid) else FeatureType.FLOAT
        dataset.set_field_property(field, token, FeatureSource.INTERACTION, 1)
    users, items = FeatureSource.USER, FeatureSource.ITEM
    dataset.user_feat = _table(
        dataset, uid, tables.user_features, users, set(tables.users.tolist())
    )
    # Only models that read features can say anything about an item without events.
    known = None if kind == ModelType.CONTEXT else set(tables.items.tolist())
    dataset.item_feat = _table(dataset, iid, tables.item_features, items, known)
    if kind == ModelType.KNOWLEDGE:
        _fill_graph(dataset, tables)


def _table(
    dataset: Any, key: str, features: Features, source: Any, ids: set[int] | None
) -> pd.DataFrame | None:
    from recbole.utils import FeatureType

    if not features:
        return None
    size = len(next(iter(features.values())))
    keep = [i for i in range(1, size + 1) if ids is None or i in ids]
    dataset.set_field_property(key, FeatureType.TOKEN, source, 1)
    table: dict[str, list] = {key: [str(i) for i in keep]}
    for name, cells in features.items():
        longest = max(map(len, cells))
        if longest == 1:
            dataset.set_field_property(name, FeatureType.TOKEN, source, 1)
            table[name] = [cells[i - 1][0] for i in keep]
        else:
            dataset.set_field_property(name, FeatureType.TOKEN_SEQ, source, longest)
            table[name] = [np.array(cells[i - 1]) for i in keep]
    return pd.DataFrame(table)


def _fill_graph(dataset: Any, tables: Tables) -> None:
    """A knowledge graph from item features: item -- column -- value."""
    from recbole.utils import FeatureSource, FeatureType

    items = np.unique(tables.items).tolist()
    triples = [
        (f"item {i}", column, f"{column} {value}")
        for column, cells in {**tables.item_features, "is": [["item"]] * tables.n_items}.items()
        for i in items
        for value in cells[i - 1]
    ]
    fields = dataset.head_entity_field, dataset.relation_field, dataset.tail_entity_field
    dataset.kg_feat = pd.DataFrame(triples, columns=list(fields))
    for field in fields:
        dataset.set_field_property(field, FeatureType.TOKEN, FeatureSource.KG, 1)
    dataset.item2entity = {str(i): f"item {i}" for i in items}
    dataset.entity2item = {entity: item for item, entity in dataset.item2entity.items()}
