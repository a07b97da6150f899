"""The words of a domain as a declarative template.

The form, documented in ``configs/domains/*.yaml`` by example::

    noun: film                  # what one item is called; lists say "films"
    past: watched               # what the user did with the items of the history
    title: ["{title}", " ({year})"]                   # over item columns
    option: ["{title}", ", {genres}"]                 # a line of a list
    past_item: ["{title}", ", rated {rating:g} of 5"] # a line of the history
    behaviour: ["{hours:.1f} hours played"]           # over interaction columns
    profile: ["A {gender}", ", {age} years old"]      # over user columns
    values: {gender: {M: man, F: woman, default: person}}
    limits: {genres: 60}        # most characters of a field (120)

A text is a list of segments, concatenated as they are; see :mod:`segments`.
In ``option`` and ``past_item`` the field ``title`` is the text ``title``; ``past_item`` also has
``option, rating, behaviour`` and ``ago`` ("3 days ago"; missing where the time is unknown).
``values`` maps raw values to words, ``null`` to nothing; the word of ``default`` stands for
everything else, and may hold its own field with a format: ``price: {0: free, default:
"${price:.2f}"}``.  A column that a log lacks is missing in every row.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from usermirror_gym.data import RecDataset
from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.scenes.words.segments import Piece, Segment, parse_segment, plain, visible
from usermirror_gym.types import RATING, TITLE

OPTION, PAST_ITEM, BEHAVIOUR, PROFILE, AGO = "option", "past_item", "behaviour", "profile", "ago"
_TEXTS = (TITLE, OPTION, PAST_ITEM, BEHAVIOUR, PROFILE)
_ONLY_PAST = (OPTION, BEHAVIOUR, AGO)
_TEXT_FIELDS = (TITLE, *_ONLY_PAST)


def _segment(value: object) -> Segment:
    if not isinstance(value, str):
        raise ConfigError(f"a segment is text; put quotes around {value!r}")
    return parse_segment(value)


def _word(value: object) -> Segment | None:
    return None if value is None else _segment(value)


def _key(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(f"put quotes around the raw value {value!r}; YAML reads it as no text")
    return plain(value)


def _one_line(value: str) -> str:
    if visible(value) != value:
        raise ConfigError("must be one line without brackets, invisible characters, outer spaces")
    return value


Text = tuple[Annotated[Segment, BeforeValidator(_segment)], ...]
Word = Annotated[
    str, StringConstraints(min_length=1, max_length=40, strict=True), AfterValidator(_one_line)
]
Values = dict[
    Annotated[str, BeforeValidator(_key)], Annotated[Segment | None, BeforeValidator(_word)]
]


class Template(BaseModel):
    """The words of one domain; see the module for the form."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    noun: Word
    past: Word
    title: Annotated[Text, Field(min_length=1)]
    option: Annotated[Text, Field(min_length=1)]
    past_item: Annotated[Text, Field(min_length=1)]
    behaviour: Text = ()
    profile: Text = ()
    values: dict[str, Values] = {}
    limits: dict[str, Annotated[int, Field(ge=2, le=2000)]] = {}

    @property
    def texts(self) -> dict[str, Text]:
        """The texts by name."""
        return {name: getattr(self, name) for name in _TEXTS}

    def fields(self, text: str) -> set[str]:
        """Names of the fields of a text."""
        return {piece.field for segment in self.texts[text] for piece in segment.fields}

    @model_validator(mode="after")
    def _check_fields(self) -> Template:
        for name, text in self.texts.items():
            for number, segment in enumerate(text, start=1):
                for piece in segment.fields:
                    _check_piece(piece, name, number)
        if not self.fields(TITLE):
            raise ConfigError("text 'title' has no field; use at least {title}")
        used = set().union(*(self.fields(name) for name in self.texts))
        for setting in ("values", "limits"):
            for field in getattr(self, setting):
                if field not in used:
                    raise UnknownNameError(f"field of {setting!r}", field, used)
        for field, words in self.values.items():
            _check_words(field, words)
        return self


def _check_words(field: str, words: dict[str, Segment | None]) -> None:
    for raw, word in words.items():
        others = {piece.field for piece in (word.fields if word else ())} - {field}
        if others:
            raise ConfigError(
                f"values, {field!r}, word of {raw!r}: field {min(others)!r}; a word may hold only "
                f"{{{field}}} itself"
            )


def _check_piece(piece: Piece, text: str, number: int) -> None:
    where = f"text {text!r}, segment {number}: field {piece.field!r}"
    if piece.field in _ONLY_PAST and text != PAST_ITEM:
        raise ConfigError(f"{where} exists only in 'past_item'")
    if piece.spec and piece.field in _TEXT_FIELDS and text in (OPTION, PAST_ITEM):
        raise ConfigError(f"{where} is text and takes no number format")


def read_template(content: Mapping[str, Any], where: str) -> Template:
    """Check the content of a template.

    Args:
        where: how an error message calls it, e.g. its file.

    Raises:
        ConfigError: names the text, the segment, and what is wrong with it.
    """
    try:
        return Template.model_validate(dict(content))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{where}{_place(first['loc'])}: {_reason(first)}") from error


def _place(loc: tuple[int | str, ...]) -> str:
    if len(loc) == 2 and loc[0] in _TEXTS and isinstance(loc[1], int):
        return f", text {loc[0]!r}, segment {loc[1] + 1}"
    return "".join(f", {part!r}" for part in loc if part != "[key]")


def _reason(error: Any) -> str:
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError | UnknownNameError):
        given = f" in {error['input']!r}" if isinstance(error["input"], str) else ""
        return f"{cause}{given}"
    if error["type"] == "extra_forbidden":
        return str(UnknownNameError("setting", error["loc"][-1], Template.model_fields))
    if error["type"] == "tuple_type":
        return f"must be a list of segments, got {error['input']!r}"
    return f"{error['msg']}, got {error['input']!r}"


def check_columns(template: Template, dataset: RecDataset, where: str) -> None:
    """Raise ConfigError for a field that looks like a misspelt column of the data set."""
    items, users, events = dataset.items, dataset.users, dataset.interactions
    tables = {
        TITLE: items,
        OPTION: items,
        PAST_ITEM: items,
        BEHAVIOUR: events,
        PROFILE: users,
    }
    for text, table in tables.items():
        columns = {str(c) for c in table.columns}
        free = columns - template.fields(text)
        for field in sorted(template.fields(text) - columns - {RATING, *_TEXT_FIELDS}):
            near = difflib.get_close_matches(field, sorted(free), n=1, cutoff=0.85)
            if near:
                raise ConfigError(
                    f"{where}, text {text!r}: there is no column {field!r}. "
                    f"Did you mean {near[0]!r}?"
                )
