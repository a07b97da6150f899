"""Tables to Arrow and back without loss, columns of mixed Python values included."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from usermirror_gym.errors import DataError

_KEY = b"usermirror"
_TEXT, _TEXT_NAN, _JSON = "text", "text, missing is NaN", "json"


def to_arrow(frame: pd.DataFrame, what: str) -> pa.Table:
    """Columns of Python objects become text: as it is where all values are texts (or missing),
    else JSON.  ``what`` names the table in an error.

    Raises:
        DataError: a column cannot be stored exactly.
    """
    names = list(frame.columns)
    if len(set(names)) < len(names) or not all(isinstance(n, str) for n in names):
        raise DataError(f"table {what!r} must have distinct texts as column names, got {names}")
    plain = frame.copy(deep=False)
    plain.attrs = {}
    encodings = {}
    for name in names:
        if frame[name].dtype == object:
            plain[name], encodings[name] = _encode(frame[name], what)
    try:
        table = pa.Table.from_pandas(plain)
        kept = table.slice(0, 0).to_pandas().dtypes
    except (pa.ArrowException, UnicodeEncodeError, TypeError) as error:
        raise DataError(f"table {what!r} cannot be stored: {error}") from error
    for name in names:
        if kept[name] != plain[name].dtype:
            raise DataError(
                f"table {what!r}, column {name!r}: values of type {plain[name].dtype} cannot be "
                "stored exactly; convert them to numbers or texts"
            )
    return table.replace_schema_metadata(
        {**(table.schema.metadata or {}), _KEY: json.dumps(encodings).encode()}
    )


def from_arrow(table: pa.Table) -> pd.DataFrame:
    """The frame that :func:`to_arrow` was given."""
    encodings = json.loads((table.schema.metadata or {}).get(_KEY, b"{}"))
    frame = table.to_pandas()
    for name, encoding in encodings.items():
        values = frame[name].to_numpy(object)
        if encoding == _TEXT_NAN:
            values[pd.isna(values)] = np.nan
        elif encoding == _JSON:
            values = _objects([_unpack(json.loads(value)) for value in values])
        frame[name] = pd.Series(values, index=frame.index, dtype=object)
    return frame


def _encode(column: pd.Series, what: str) -> tuple[pd.Series, str]:
    values = column.to_numpy(object, copy=True)
    kinds = {type(value) for value in values}
    encoding = {frozenset({type(None)}): _TEXT, frozenset({float}): _TEXT_NAN}.get(
        frozenset(kinds - {str}), _TEXT if kinds <= {str} else _JSON
    )
    if encoding == _TEXT_NAN and not all(v != v for v in values if type(v) is float):
        encoding = _JSON
    # JSON can hold halves of surrogate pairs, UTF-8 cannot.
    if encoding != _JSON and not all(_is_utf8(v) for v in values if type(v) is str):
        encoding = _JSON
    if encoding == _JSON:
        try:
            values = _objects([json.dumps(_pack(value)) for value in values])
        except TypeError as error:
            raise DataError(
                f"table {what!r}, column {column.name!r}: values of type {error} cannot be "
                "stored; convert them to numbers, texts, lists or mappings"
            ) from error
    elif encoding == _TEXT_NAN:
        values[pd.isna(values)] = None
    return pd.Series(values, index=column.index, dtype=object), encoding


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _objects(values: list[Any]) -> np.ndarray:
    """An array of Python objects, never of arrays: numpy would unfold lists of equal length."""
    array = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        array[i] = value
    return array


_TAG = "__type__"
_SCALARS: dict[str, Callable[[Any], Any]] = {
    t.__name__: t for t in (np.bool_, np.int32, np.int64, np.float32, np.float64)
}


def _pack(value: Any) -> Any:
    """What JSON can hold; types that it does not know are tagged.

    Raises:
        TypeError: with the name of a type that is not foreseen.
    """
    kind = type(value)
    if kind is str and not _is_utf8(value):
        return {_TAG: "str", "value": value.encode("utf-8", "surrogatepass").hex()}
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [_pack(v) for v in value]
    if value is pd.NA:
        return {_TAG: "NA"}
    if kind in (tuple, dict):
        content = list(value.items()) if kind is dict else list(value)
        return {_TAG: kind.__name__, "value": [_pack(v) for v in content]}
    if kind.__name__ in _SCALARS and isinstance(value, np.generic):
        return {_TAG: kind.__name__, "value": value.item()}
    raise TypeError(kind.__name__)


def _unpack(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpack(v) for v in value]
    if not isinstance(value, dict):
        return value
    kind = value[_TAG]
    if kind == "NA":
        return pd.NA
    if kind == "str":
        return bytes.fromhex(value["value"]).decode("utf-8", "surrogatepass")
    if kind in _SCALARS:
        return _SCALARS[kind](value["value"])
    content = [_unpack(v) for v in value["value"]]
    return dict(content) if kind == "dict" else tuple(content)
