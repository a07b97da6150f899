"""Single raw values: prices, counts, texts and ids as they are found in published files."""

from __future__ import annotations

import math
import re
from pathlib import Path

from usermirror_gym.data.raw.raw_files import ReadLog

MAX_CHARS = 2_000
"""Reviews and descriptions are cut here: prompts show far less, and memory is finite."""

_MISSING = frozenset({"", "none", "null", "nan"})
# A price may carry a dollar sign and thousands commas; anything freer is no number.
_NUMBER = re.compile(r"[-+]?\$?([0-9]+|[0-9]{1,3}(,[0-9]{3})+)(\.[0-9]*)?([eE][-+]?[0-9]{1,3})?")
_SURROGATES = re.compile("[\ud800-\udfff]")


def number(value: object, low: float = -math.inf, high: float = math.inf) -> float | None:
    """``value`` as a number, or ``None``: ``"$1,299.00"`` -> 1299.0, ``"None"`` -> ``None``.

    Also ``None``: what is not finite, and what is outside ``low .. high`` (inclusive).
    """
    if isinstance(value, str):
        text = value.strip()
        if len(text) > 40 or not _NUMBER.fullmatch(text):
            return None
        result = float(text.replace(",", "").replace("$", ""))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            result = float(value)
        except OverflowError:  # an integer of hundreds of digits
            return None
    else:
        return None
    # Both are also false for NaN.
    return result if -1e300 < result < 1e300 and low <= result <= high else None


def text(value: object) -> str | None:
    """``value`` without surrounding space, cut to :data:`MAX_CHARS`, or ``None`` if there is none.

    Lone surrogates, which no file can store, become question marks.
    """
    if not isinstance(value, str):
        return None
    stripped = value.strip()[:MAX_CHARS]
    if _SURROGATES.search(stripped):
        pairs = stripped.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        stripped = pairs.replace("\ufffd", "?")
    return stripped or None


def csv_text(value: str) -> str | None:
    """As :func:`text`; CSV files write nothing as ``None`` or ``nan``."""
    return None if value.strip().lower() in _MISSING else text(value)


def joined(values: object) -> str | None:
    """The texts of a list, separated by commas; ``None`` if there are none."""
    if not isinstance(values, list | tuple):
        return text(values)
    return ", ".join(part for value in values if (part := text(value))) or None


def identifier(value: object) -> str | None:
    """A raw id as text: ``7``, ``7.0`` and ``" 7"`` are all ``"7"``; ``None`` if there is none."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text(value)


class Numbers:
    """Reads the numbers of one file and counts values that are given but cannot be used."""

    def __init__(self, path: Path, log: ReadLog) -> None:
        self.path, self.log = path, log

    def real(self, line: int, what: str, value: object, *bounds: float) -> float | None:
        """See :func:`number`; ``None``, ``""``, ``"None"`` and ``"nan"`` count as not given."""
        result = number(value, *bounds)
        if result is None and _is_given(value):
            self.log.mend(f"{what} that cannot be used, left empty", self.path, line, value)
        return result

    def whole(self, line: int, what: str, value: object, *bounds: float) -> int | None:
        """As :meth:`real`, for integers."""
        result = self.real(line, what, value, *bounds)
        if result is None or result.is_integer():
            return None if result is None else int(result)
        self.log.mend(f"{what} that cannot be used, left empty", self.path, line, value)
        return None


def _is_given(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lower() not in _MISSING
    return value is not None and value == value  # NaN is not itself
