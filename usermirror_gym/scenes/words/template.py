"""The words of a domain: how its items, histories and profiles read, by way of a template."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import pandas as pd

from usermirror_gym.configs import preset_names, read_preset
from usermirror_gym.data import RecDataset
from usermirror_gym.errors import ConfigError, SceneError, UnknownNameError
from usermirror_gym.scenes.words.segments import UNTITLED, Piece, Words, render, visible
from usermirror_gym.scenes.words.template_form import (
    AGO,
    BEHAVIOUR,
    OPTION,
    Template,
    check_columns,
    read_template,
)
from usermirror_gym.types import PAD, RATING, TITLE

_BEHAVIOUR_LIMIT = 400
_NAN = float("nan")


class DomainText:
    """Everything a prompt or a rendering says about the users and items of a data set.

    Every text is clean.  It is rendered for all items or users at once, when the first one is asked
    for.

    Attributes:
        noun: what one item is called, e.g. ``"film"``.
        past: what the user did with the items of the history, e.g. ``"watched"``.

    Raises:
        ConfigError: the data set has none of the columns that titles are made of.
    """

    def __init__(self, dataset: RecDataset, template: Template) -> None:
        self.noun, self.past = template.noun, template.past
        self._dataset, self._template = dataset, template
        fields = template.fields(TITLE)
        if not fields & set(dataset.items.columns):
            raise ConfigError(
                f"data set {dataset.name!r} has none of the columns that titles are made of "
                f"({', '.join(sorted(fields))}); its items have "
                f"{', '.join(map(str, dataset.items.columns))}"
            )
        self._ratings: dict[tuple[float, str], str] = {}

    def title(self, item_id: int) -> str:
        """Short name of an item; empty for padding."""
        return self._titles[item_id]

    def option(self, item_id: int) -> str:
        """What a list shows of an item, title and public facts; empty for padding."""
        return self._options[item_id]

    def past_item(
        self, item_id: int, rating: float, *, behaviour: str = "", age: int | None = None
    ) -> str:
        """What the history shows of an item; NaN is no rating.

        Args:
            behaviour: what else is known of what the user did with it.
            age: seconds between it and the start of the session, if that is known.

        Raises:
            SceneError: the age is negative.
        """
        return self.past_items([item_id], [rating], [behaviour], [age])[0]

    def past_items(
        self,
        items: Sequence[int],
        ratings: Sequence[float],
        behaviours: Sequence[str],
        ages: Sequence[int | None],
    ) -> list[str]:
        """:meth:`past_item` for ``n`` lines at once, each argument of length ``n``.

        Raises:
            SceneError: an age is negative.
        """

        def column(piece: Piece) -> list[str]:
            if piece.field == RATING:
                words = {rating: self._rating(rating, piece) for rating in set(ratings)}
                return [words[rating] for rating in ratings]
            if piece.field == BEHAVIOUR:
                limit = self._template.limits.get(BEHAVIOUR, _BEHAVIOUR_LIMIT)
                return [visible(text, limit) for text in behaviours]
            if piece.field == AGO:
                return ["" if age is None else ago(age) for age in ages]
            texts = self._item_words(piece)
            return [texts[item - 1] for item in items]

        lines = render(self._template.past_item, column, len(items))
        return [line if item != PAD else "" for item, line in zip(items, lines, strict=True)]

    def profile(self, user_id: int) -> str:
        """One sentence on the user, or an empty string if nothing is known."""
        return self._profiles[user_id]

    def behaviours(self, rows: pd.DataFrame) -> list[str]:
        """What the user did, in words, for rows of the interactions; "" where nothing is known."""
        return render(self._template.behaviour, self._words(rows), len(rows))

    @cached_property
    def _titles(self) -> list[str]:
        titles = render(
            self._template.title, self._words(self._dataset.items), self._dataset.n_items
        )
        return ["", *(title or UNTITLED for title in titles)]

    @cached_property
    def _options(self) -> list[str]:
        words = self._words(self._dataset.items, {TITLE: self._titles[1:]})
        return ["", *render(self._template.option, words, self._dataset.n_items)]

    @cached_property
    def _profiles(self) -> list[str]:
        users = self._dataset.users
        return ["", *render(self._template.profile, self._words(users), len(users))]

    @cached_property
    def _item_words(self) -> Words:
        """Item columns beside the texts that are made of them."""
        texts = {TITLE: self._titles[1:], OPTION: self._options[1:]}
        return self._words(self._dataset.items, texts)

    def _words(self, table: pd.DataFrame, texts: dict[str, list[str]] | None = None) -> Words:
        return Words(table, self._template.values, self._template.limits, texts or {})

    def _rating(self, rating: float, piece: Piece) -> str:
        # One NaN for all, because a NaN of its own is found in no dictionary.
        key = (_NAN if rating != rating else float(rating), piece.spec)
        if key not in self._ratings:
            self._ratings[key] = self._words(pd.DataFrame({RATING: [key[0]]}))(piece)[0]
        return self._ratings[key]


_UNITS = (
    ("year", 31_557_600), ("month", 2_629_800), ("week", 604_800), ("day", 86_400),
    ("hour", 3_600), ("minute", 60),
)  # fmt: skip


def ago(seconds: int) -> str:
    """``259200`` -> ``"3 days ago"``: whole units, rounded down.

    Raises:
        SceneError: the time is negative.
    """
    if seconds < 0:
        raise SceneError(f"a history item has the age {seconds} s; ages are not negative")
    for unit, size in _UNITS:
        count = int(seconds // size)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def domain_text(dataset: RecDataset) -> DomainText:
    """The words of a data set: its own template, else that of its domain.

    Raises:
        UnknownNameError: there is no template for this domain; suggests the nearest.
        ConfigError: the template cannot be used; names the text and the segment.
    """
    if dataset.template is not None:
        where = f"template of data set {dataset.name!r}"
        template = read_template(dataset.template, where)
        check_columns(template, dataset, where)
        return DomainText(dataset, template)
    if dataset.domain not in preset_names("domains"):
        raise UnknownNameError("domain", dataset.domain, preset_names("domains"))
    content = read_preset("domains", dataset.domain)
    return DomainText(dataset, read_template(content, f"configs/domains/{dataset.domain}.yaml"))
