"""Segments: the small format language of the texts in ``configs/domains/*.yaml``.

A segment is text with fields in braces, ``", {genres}"`` or ``" ({year})"``; it is left out whole
when one of its fields is missing.  A field may carry a number format: ``{n:,}``, ``{price:.2f}``,
``{price:,.2f}``, ``{share:.0%}``, ``{rating:g}``.  Nothing else of Python's format strings exists
here, and values are never read as formats.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from string import Formatter

import numpy as np
import pandas as pd

from usermirror_gym.errors import ConfigError
from usermirror_gym.types import TITLE

DEFAULT_LIMIT = 120
"""Characters of a field that the template sets no limit for."""
DEFAULT_WORD = "default"
"""Key of ``values`` for everything that is not listed, missing values included."""
_SPEC = re.compile(r",|,?\.[0-9][f%]|g")
_SEPARATORS = " ,;:.-\N{EN DASH}\N{EM DASH}\N{MIDDLE DOT}|/"


@dataclass(frozen=True)
class Piece:
    """Text, then (unless ``field`` is empty) a field."""

    literal: str
    field: str = ""
    spec: str = ""


@dataclass(frozen=True)
class Segment:
    """A parsed segment; make one with :func:`parse_segment`."""

    pieces: tuple[Piece, ...]

    @cached_property
    def fields(self) -> tuple[Piece, ...]:
        """The pieces that have a field."""
        return tuple(piece for piece in self.pieces if piece.field)


Column = Callable[[Piece], Sequence[str]]
"""What gives the values of a piece's field, one per row; "" is missing."""
Vocabulary = Mapping[str, Segment | None]
"""Raw value -> what is said instead; ``None``: nothing."""


def parse_segment(text: str) -> Segment:
    """Read a segment.

    Raises:
        ConfigError: it is not text with plain fields in braces, or its text could be taken for an
            option line or a line break.
    """
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise ConfigError(f"broken format: {error}") from error
    return Segment(tuple(_piece(*part) for part in parts))


def _piece(literal: str, field: str | None, spec: str | None, conversion: str | None) -> Piece:
    if not _harmless(literal):
        raise ConfigError(
            f"the text {literal!r} holds a bracket, a line break or an invisible character"
        )
    if field is None:
        return Piece(literal)
    if conversion or not field.isidentifier():
        raise ConfigError(
            f"{{{field}{'!' + conversion if conversion else ''}}} is not the plain name of a "
            "column; attributes, indices, numbers and conversions are not allowed"
        )
    if spec and not _SPEC.fullmatch(spec):
        raise ConfigError(
            f"the format {spec!r} of field {field!r} is unknown; there are {{n:,}}, {{x:.2f}}, "
            "{x:,.2f}, {x:.0%} and {x:g}, each with 0 to 9 decimals"
        )
    return Piece(literal, field, spec or "")


def _harmless(literal: str) -> bool:
    """Whether cleaning would change nothing but the white space at the ends."""
    spaces = literal.replace(" ", "")
    return visible(spaces, len(spaces) + 1) == spaces


def render(segments: Sequence[Segment], column: Column, n: int) -> list[str]:
    """Join the segments of each of ``n`` rows.

    Separators at the start of what follows an omitted first segment are stripped.  A row of which
    no field at all is known is empty.
    """
    if not segments:
        return [""] * n
    rows = zip(*(fill(segment, column, n) for segment in segments), strict=True)
    return [_join(segments, row) for row in rows]


def _join(segments: Sequence[Segment], filled: Sequence[str]) -> str:
    """One row, its segments filled; an omitted segment is empty."""
    if filled[0] and segments[0].fields:
        return "".join(filled)
    if not any(text for text, segment in zip(filled, segments, strict=True) if segment.fields):
        return "".join(filled) if not any(segment.fields for segment in segments) else ""
    first = next(i for i, text in enumerate(filled) if text)
    if first == 0:
        return "".join(filled)
    lead = segments[first].pieces[0].literal
    start = lead.lstrip(_SEPARATORS) + filled[first][len(lead) :]
    return start + "".join(filled[first + 1 :])


def fill(segment: Segment, column: Column, n: int) -> Sequence[str]:
    """The text of a segment in each of ``n`` rows; "" where one of its fields is missing."""
    tail = "".join(piece.literal for piece in segment.pieces if not piece.field)
    if not segment.fields:
        return [tail] * n
    columns = [column(piece) for piece in segment.fields]
    heads = [piece.literal for piece in segment.fields]
    if len(columns) == 1:
        return [f"{heads[0]}{value}{tail}" if value else "" for value in columns[0]]
    return [
        "".join(h + v for h, v in zip(heads, values, strict=True)) + tail if all(values) else ""
        for values in zip(*columns, strict=True)
    ]


@dataclass(eq=False)
class Words:
    """The columns of a table as clean texts, each made once, when first asked for.

    Args:
        table: users, items or interactions.
        values: what is said instead of raw values, by field.
        limits: most characters, by field; see :data:`DEFAULT_LIMIT`.
        texts: fields that are texts already.
    """

    table: pd.DataFrame
    values: Mapping[str, Vocabulary]
    limits: Mapping[str, int]
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @cached_property
    def _made(self) -> dict[Piece, Sequence[str]]:
        return {Piece("", name): words for name, words in self.texts.items()}

    def __call__(self, piece: Piece) -> Sequence[str]:
        """Values of the piece's field in every row; "" is missing."""
        key = Piece("", piece.field, piece.spec)
        if key not in self._made:
            self._made[key] = self._make(key)
        return self._made[key]

    def _make(self, key: Piece) -> Sequence[str]:
        n = len(self.table)
        raw = _plain(self.table[key.field]) if key.field in self.table else [""] * n
        vocabulary = self.values.get(key.field)
        if vocabulary is None:
            return self._show(raw, key)
        shown = Segment((key,))
        chosen = [vocabulary.get(v, vocabulary.get(DEFAULT_WORD, shown)) for v in raw]
        filled = {
            segment: fill(segment, lambda piece: self._show(raw, piece), n)
            for segment in set(chosen)
            if segment is not None
        }
        return [filled[s][row] if s is not None else "" for row, s in enumerate(chosen)]

    def _show(self, raw: list[str], piece: Piece) -> list[str]:
        if piece.spec:
            return _formatted(raw, piece.spec)
        limit = self.limits.get(piece.field, DEFAULT_LIMIT)
        empty = UNTITLED if piece.field == TITLE else ""
        shown = {value: visible(value, limit) or empty for value in set(raw) if value}
        return [shown.get(value, "") for value in raw]


def plain(value: object) -> str:
    """A raw value as the text that it is looked up by: whole numbers have no decimals."""
    if isinstance(value, str):
        return value
    if isinstance(value, float | np.floating):
        number = float(value)
        if not np.isfinite(number):
            return ""
        return str(int(number)) if number.is_integer() else str(number)
    if isinstance(value, list | tuple | set | np.ndarray):
        return ", ".join(plain(part) for part in value if part is not None)
    return str(value)


def _plain(values: pd.Series) -> list[str]:
    missing = values.isna().to_numpy()
    objects = values.astype(object)
    return ["" if gone else plain(v) for v, gone in zip(objects, missing, strict=True)]


def _formatted(raw: list[str], spec: str) -> list[str]:
    """Numbers as the format says; what is no number is missing."""
    numbers = pd.to_numeric(pd.Series(raw, dtype=object), errors="coerce").to_numpy(np.float64)
    numbers = numbers + 0.0  # no minus zero
    if spec == ",":
        whole = [int(v) if v.is_integer() else v for v in numbers.tolist()]
        return [f"{v:,}" if np.isfinite(v) else "" for v in whole]
    return [format(v, spec) if np.isfinite(v) else "" for v in numbers.tolist()]


UNTITLED = "untitled"
_READ_AHEAD = 4
_KEPT_FORMAT_CHARACTERS = {"\u200c", "\u200d"}  # non-joiner and joiner: part of words and emoji
_BRACKETS = {"[": "(", "]": ")", "{": "(", "}": ")"}


def visible(text: object, max_chars: int = 120) -> str:
    """One safe line of foreign text; empty if there is nothing to see.

    Control, bidi-override and other invisible characters are removed, every run of white space
    (line breaks too) becomes one space, square and curly brackets become round ones so that no
    text can look like a lettered option, and what exceeds ``max_chars`` characters is cut and ends
    in ``…``.  Markup of a chat template stays, as visible text: engines encode it as text, never as
    special tokens.
    """
    raw = str(text)
    start = raw[: _READ_AHEAD * max_chars]  # a review of megabytes costs no more than a long title
    line = unicodedata.normalize("NFC", start.translate(_TABLE))
    if "  " in line or line[:1] == " " or line[-1:] == " ":
        line = " ".join(line.split())
    if len(line) <= max_chars and (len(start) == len(raw) or not line):
        return line
    return line[: max_chars - 1].rstrip() + "…"


class _Table(dict[int, str | None]):
    """What each character becomes, found out when it is first met (for ``str.translate``)."""

    def __missing__(self, code: int) -> str | None:
        char = chr(code)
        kept: str | None = _BRACKETS.get(char, char)
        if char.isspace():
            kept = " "
        elif _hidden(char):
            kept = None
        self[code] = kept
        return kept


_TABLE = _Table()


def _hidden(char: str) -> bool:
    return char not in _KEPT_FORMAT_CHARACTERS and unicodedata.category(char) in {
        "Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp",
    }  # fmt: skip
