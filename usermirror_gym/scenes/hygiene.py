"""Text from data is data: it may not steer the prompt that it is put into."""

from __future__ import annotations

import unicodedata

_KEPT_FORMAT_CHARACTERS = {"\u200c", "\u200d"}  # non-joiner and joiner: part of words and emoji
_BRACKETS = str.maketrans("[]{}", "()()")
UNTITLED = "untitled"


def clean(text: object, max_chars: int = 120) -> str:
    """One safe line of foreign text.

    Control, bidi-override and other invisible characters are removed, every run of white space
    (line breaks too) becomes one space, square brackets become round ones so that no text can
    look like a lettered option, and what exceeds ``max_chars`` characters is cut and ends in
    ``…``.  An empty result is ``"untitled"``.  Markup of a chat template stays, as visible
    text: engines encode it as text, never as special tokens.
    """
    normal = unicodedata.normalize("NFC", str(text))
    visible = "".join(" " if c.isspace() else c for c in normal if c.isspace() or not _hidden(c))
    line = " ".join(visible.translate(_BRACKETS).split())
    if len(line) > max_chars:
        line = line[: max_chars - 1].rstrip() + "…"
    return line or UNTITLED


def _hidden(char: str) -> bool:
    return char not in _KEPT_FORMAT_CHARACTERS and unicodedata.category(char) in {
        "Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp",
    }  # fmt: skip
