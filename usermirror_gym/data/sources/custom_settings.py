"""The YAML file that maps your own tables, checked when it is read."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from usermirror_gym.configs.settings import Settings, names_at
from usermirror_gym.errors import ConfigError, UnknownNameError
from usermirror_gym.foreign import parse_yaml
from usermirror_gym.types import (
    AVAILABLE_FROM,
    FRIEND_ID,
    ITEM_ID,
    RATING,
    TIMESTAMP,
    TITLE,
    TOKEN,
    UNDATED,
    USER_ID,
)

_OWN = (USER_ID, ITEM_ID, TIMESTAMP, RATING, TITLE, TOKEN, AVAILABLE_FROM, UNDATED, FRIEND_ID)


class TimeColumn(Settings):
    """A column of times; a bare name means seconds since 1970."""

    column: str
    unit: Literal["s", "ms", "us", "ns"] = "s"
    """Of numbers, counted from 1970."""
    format: str | None = None
    """Of texts: ``iso`` (2024-05-01 13:00), or as Python's ``strptime`` takes it (%d.%m.%Y)."""
    zone: str = "UTC"
    """Of times that name none, such as ``Europe/Berlin``."""

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError("no such time zone") from error
        return zone


Time = Annotated[TimeColumn, BeforeValidator(lambda v: {"column": v} if isinstance(v, str) else v)]
Columns = Annotated[
    dict[str, str],
    BeforeValidator(lambda v: {name: name for name in v} if isinstance(v, list) else v),
]
"""New name -> column, or a list of columns that keep their names."""


class _File(Settings):
    file: str
    """Below the folder of the YAML file: .csv, .tsv, .jsonl (each also .gz) or .parquet."""
    separator: str | None = Field(default=None, min_length=1, max_length=1)
    """Of .csv and .tsv files; comma and tab by default."""


class _Facts(_File):
    texts: Columns = Field(default={})
    """Columns kept as texts."""
    numbers: Columns = Field(default={})
    """Columns kept as numbers."""

    @model_validator(mode="after")
    def _names_are_free(self) -> _Facts:
        for name in (*self.texts, *self.numbers):
            if name in _OWN or (name in self.texts and name in self.numbers):
                raise ValueError(f"the name {name!r} is taken; write {{another: column}} instead")
        return self


class Interactions(_Facts):
    """Who took what and when; ``texts`` and ``numbers`` say what else is known of it."""

    user: str
    item: str
    time: Time
    rating: str | None = None


class Items(_Facts):
    """The catalog."""

    item: str
    title: str
    available_from: Time | None = None
    """When it was published: earlier lists do not show it."""


class Users(_Facts):
    """What is known of users."""

    user: str


class Impressions(_File):
    """Lists that were really shown, one row an item, in the order shown."""

    list: str
    user: str
    time: Time
    item: str
    clicked: str
    """1, true or yes; anything of 0, false, no or nothing is not clicked."""


class Friends(_File):
    """Who is whose friend, one row a pair; both directions are assumed."""

    user: str
    friend: str


class InteractionLimits(Settings):
    """See :class:`~usermirror_gym.data.sources.base.Limits`."""

    min_user: int = Field(default=1, ge=0)
    max_user: int | None = Field(default=None, ge=1)
    min_item: int = Field(default=0, ge=0)
    """0 keeps the whole catalog."""
    max_item: int | None = Field(default=None, ge=1)


class CustomSettings(Settings):
    """One data set."""

    name: str = Field(min_length=1)
    domain: str | None = None
    """Whose words are used: a file of ``configs/domains``."""
    template: dict[str, Any] | None = None
    """Your own words instead, in the same form."""
    interactions: Interactions
    items: Items
    users: Users | None = None
    impressions: Impressions | None = None
    friends: Friends | None = None
    limits: InteractionLimits = InteractionLimits()

    @model_validator(mode="after")
    def _has_words(self) -> CustomSettings:
        if (self.domain is None) == (self.template is None):
            raise ValueError("exactly one of 'domain' and 'template' must be given")
        return self

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that is named, once."""
        parts = (self.interactions, self.items, self.users, self.impressions, self.friends)
        return tuple(dict.fromkeys(part.file for part in parts if part is not None))


def read_settings(path: Path) -> CustomSettings:
    """The settings of a YAML file.

    Raises:
        UnknownNameError: a setting does not exist; suggests the nearest.
        ConfigError: no such file, no YAML, a setting is missing or cannot be used; names it.
    """
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must be a mapping (name: ..., interactions: ...)")
    try:
        return CustomSettings(**content)
    except TypeError as error:  # keys that are no texts
        raise ConfigError(
            f"{path}: settings must have texts as names, got {list(content)}"
        ) from error
    except ValidationError as error:
        raise _explained(path, error) from error


def _explained(path: Path, error: ValidationError) -> Exception:
    # A misspelt name also leaves the right one missing: the misspelling says more.
    errors = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    first = errors[0]
    where = [str(part) for part in first["loc"]]
    dotted = ".".join(where) or "the file as a whole"
    if first["type"] == "extra_forbidden":
        owner = f" of {'.'.join(where[:-1])!r}" if where[1:] else ""
        valid = names_at(CustomSettings, where[:-1])
        return UnknownNameError(f"setting{owner} in {path}", where[-1], valid)
    if first["type"] == "missing":
        return ConfigError(f"{path}: the setting {dotted!r} is missing")
    reason = first["msg"].removeprefix("Value error, ")
    given = "" if isinstance(first["input"], dict) else f", got {first['input']!r}"
    if first["type"] == "string_type" and isinstance(first["input"], bool | int | float | date):
        given += "; put it in quotes"  # YAML reads no, on and 2024 as something else than texts
    return ConfigError(f"{path}, {dotted}: {reason}{given}")
