from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from usermirror_gym.data import RecDataset

Event = tuple[Any, ...]


@pytest.fixture(scope="session")
def build() -> Callable[..., RecDataset]:
    """Build a data set of users a, b and items x, y, z from (user, item, timestamp[, rating])."""

    def _build(
        events: list[Event] | pd.DataFrame,
        *,
        users: pd.DataFrame | None = None,
        items: pd.DataFrame | None = None,
        **options: Any,
    ) -> RecDataset:
        if not isinstance(events, pd.DataFrame):
            rows = [(*e, 3.0)[:4] for e in events]
            events = pd.DataFrame(
                rows, columns=["user_id", "item_id", "timestamp", "rating"], dtype=object
            )
        if users is None:
            users = pd.DataFrame({"user_id": ["a", "b"], "age": [30, 40]})
        if items is None:
            items = pd.DataFrame({"item_id": ["x", "y", "z"], "title": ["X", "Y", "Z"]})
        return RecDataset.from_tables(
            "toy", "movie", users=users, items=items, interactions=events, **options
        )

    return _build
