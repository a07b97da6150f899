"""The words of a domain: how its items, histories and profiles read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pandas as pd

from usermirror_gym.data import RecDataset
from usermirror_gym.errors import UnknownNameError
from usermirror_gym.scenes.hygiene import clean
from usermirror_gym.types import PAD


class DomainText(Protocol):
    """Everything a prompt or a rendering says about users and items; every text is clean."""

    noun: str
    """What one item is called, e.g. ``"film"``."""
    past: str
    """What the user did with the items of the history, e.g. ``"watched"``."""

    def title(self, item_id: int) -> str:
        """Short name of an item."""
        ...

    def option(self, item_id: int) -> str:
        """What a list shows of an item: title and public facts."""
        ...

    def past_item(
        self, item_id: int, rating: float, *, behaviour: str = "", age: int | None = None
    ) -> str:
        """What the history shows of an item; NaN is no rating.

        Args:
            behaviour: what else is known of what the user did with it.
            age: seconds between it and the start of the session, if that is known.
        """
        ...

    def profile(self, user_id: int) -> str:
        """One sentence on the user, or an empty string if nothing is known."""
        ...


class MovieText:
    """Films: title (year) and genres; profile of age, gender and occupation where known."""

    noun = "film"
    past = "watched"

    def __init__(self, dataset: RecDataset) -> None:
        items = dataset.items
        years = items["year"] if "year" in items else pd.Series(pd.NA, index=items.index)
        genres = items["genres"] if "genres" in items else pd.Series("", index=items.index)
        self._titles = [""]
        self._options = [""]
        for title, year, genre in zip(items["title"], years, genres, strict=True):
            text = clean(title) if pd.isna(year) else f"{clean(title)} ({int(year)})"
            self._titles.append(text)
            self._options.append(f"{text}, {clean(genre)}" if genre else text)
        self._users = dataset.users

    def title(self, item_id: int) -> str:
        return self._titles[item_id]

    def option(self, item_id: int) -> str:
        return self._options[item_id]

    def past_item(
        self, item_id: int, rating: float, *, behaviour: str = "", age: int | None = None
    ) -> str:
        title = self._titles[item_id]
        return title if pd.isna(rating) else f"{title}, rated {rating:g} of 5"

    def profile(self, user_id: int) -> str:
        if user_id == PAD:
            return ""
        row = self._users.loc[user_id]
        known = {
            k: row[k] for k in ("gender", "age", "occupation") if k in row and pd.notna(row[k])
        }
        person = {"M": "man", "F": "woman"}.get(str(known.get("gender")), "person")
        parts = [f"A {person}"]
        if "age" in known:
            parts.append(f"{known['age']} years old")
        if known.get("occupation") not in (None, "other", "none"):
            parts.append(f"occupation {clean(known['occupation'], 40)}")
        return ", ".join(parts) + "."


DOMAINS: dict[str, Callable[[RecDataset], DomainText]] = {"movie": MovieText}


def domain_text(dataset: RecDataset) -> DomainText:
    """The text of a data set's domain.

    Raises:
        UnknownNameError: nobody wrote the words of this domain yet.
    """
    if dataset.domain not in DOMAINS:
        raise UnknownNameError("domain", dataset.domain, DOMAINS)
    return DOMAINS[dataset.domain](dataset)
