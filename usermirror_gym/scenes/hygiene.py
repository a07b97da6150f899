"""Text from data is data: it may not steer the prompt that it is put into."""

from __future__ import annotations

import unicodedata

UNTITLED = "untitled"
_READ_AHEAD = 4
_KEPT_FORMAT_CHARACTERS = {"\u200c", "\u200d"}  # non-joiner and joiner: part of words and emoji
_BRACKETS = {"[": "(", "]": ")", "{": "(", "}": ")"}


def clean(text: object, max_chars: int = 120) -> str:
    """One safe line of foreign text, never empty.

    Control, bidi-override and other invisible characters are removed, every run of white space
    (line breaks too) becomes one space, square and curly brackets become round ones so that no
    text can look like a lettered option, and what exceeds ``max_chars`` characters is cut and ends
    in ``…``.  An empty result is ``"untitled"``.  Markup of a chat template stays, as visible
    text: engines encode it as text, never as special tokens.
    """
    return visible(text, max_chars) or UNTITLED


def visible(text: object, max_chars: int = 120) -> str:
    """As :func:`clean`, but what holds nothing visible is empty."""
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
