"""A data set as a folder: one Parquet file a table, and ``dataset.json``, which is written last.

Reading gives back what was saved, types included.  The same data set always gives the same bytes
(with the same version of pyarrow), so a folder can be compared, hashed and resumed from.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import yaml

from usermirror_gym.data.dataset import Impressions, RecDataset, Repair
from usermirror_gym.errors import DataError, RunError, UserMirrorError
from usermirror_gym.files import (
    read_json,
    read_parquet,
    sha256,
    write_json,
    write_parquet,
)
from usermirror_gym.foreign import parse_json, parse_yaml
from usermirror_gym.types import TIMESTAMP, USER_ID

FORMAT = 1
"""Raised when older versions can no longer read what this one writes."""
MANIFEST = "dataset.json"
_TABLES = ("users", "items", "interactions", "friends", "impressions")


def save_dataset(dataset: RecDataset, folder: str | Path) -> Path:
    """Write ``users``, ``items``, ``interactions`` and, where there are any, ``friends`` and
    ``impressions`` as ``.parquet``, then ``dataset.json`` with everything else.

    A folder without ``dataset.json`` is unfinished; an older data set in it is replaced.

    Raises:
        DataError: a table holds values that cannot be stored exactly (names the table, the column
            and the type), or the template cannot be written as YAML.
    """
    folder = Path(folder)
    # Before anything is touched: what cannot be stored leaves an older data set alone.
    tables = _tables(dataset)
    template = _template_text(dataset.template)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    for name in _TABLES:
        (folder / f"{name}.parquet").unlink(missing_ok=True)
    checksums = {
        name: sha256(write_parquet(folder / f"{name}.parquet", table))
        for name, table in tables.items()
    }
    write_json(
        folder / MANIFEST,
        {
            "format": FORMAT,
            "name": dataset.name,
            "domain": dataset.domain,
            "users": dataset.n_users,
            "items": dataset.n_items,
            "interactions": len(dataset.interactions),
            "repairs": [asdict(repair) for repair in dataset.repairs],
            "template": template,
            "sha256": checksums,
        },
    )
    return folder


def read_dataset(folder: str | Path) -> RecDataset:
    """What :func:`save_dataset` wrote.

    Raises:
        RunError: the folder is unfinished, of another format, or a file is missing or changed.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise RunError(
            f"{folder} holds no finished data set (no {MANIFEST}). Build it again, or name "
            "another folder."
        )
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise RunError(
            f"{folder / MANIFEST} has another format than this version reads ({FORMAT}). "
            "Build the data set again."
        )
    try:
        return _dataset(folder, manifest)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, UserMirrorError):
            raise
        raise RunError(
            f"{folder / MANIFEST} is damaged ({error!r}). Build the data set again."
        ) from error


def _dataset(folder: Path, manifest: dict[str, Any]) -> RecDataset:
    sums = manifest["sha256"]
    tables = {n: _read(folder / f"{n}.parquet", sums[n]) for n in _TABLES if n in sums}
    lists, template = tables.get("impressions"), manifest["template"]
    return RecDataset(
        name=manifest["name"],
        domain=manifest["domain"],
        users=from_arrow(tables["users"]),
        items=from_arrow(tables["items"]),
        interactions=from_arrow(tables["interactions"]),
        repairs=tuple(
            Repair(r["kind"], r["count"], tuple(r["examples"])) for r in manifest["repairs"]
        ),
        impressions=None if lists is None else _impressions(lists),
        friends=from_arrow(tables["friends"]) if "friends" in tables else None,
        template=None if template is None else parse_yaml(template),
    )


def _tables(dataset: RecDataset) -> dict[str, pa.Table]:
    frames = {name: getattr(dataset, name) for name in _TABLES[:-1]}
    tables = {n: to_arrow(frame, n) for n, frame in frames.items() if frame is not None}
    if dataset.impressions is not None:
        tables["impressions"] = _impression_table(dataset.impressions)
    return tables


def _impression_table(lists: Impressions) -> pa.Table:
    """One row a list: impression_id, user_id, timestamp, shown and clicked (lists)."""
    frame = pd.DataFrame(
        {"impression_id": lists.names, USER_ID: lists.user_ids, TIMESTAMP: lists.timestamps}
    )
    offsets = pa.array(lists.offsets, pa.int64())
    table = to_arrow(frame, "impressions")
    for name, values in (("shown", lists.items), ("clicked", lists.clicked)):
        column = pa.LargeListArray.from_arrays(offsets, pa.array(values))
        table = table.append_column(name, column)
    return table


def _impressions(table: pa.Table) -> Impressions:
    shown = table["shown"].combine_chunks()
    clicked = table["clicked"].combine_chunks()
    frame = from_arrow(table.drop_columns(["shown", "clicked"]))
    sizes = shown.value_lengths().to_numpy(zero_copy_only=False)
    return Impressions(
        names=frame["impression_id"].to_numpy(object),
        user_ids=frame[USER_ID].to_numpy(np.int64),
        timestamps=frame[TIMESTAMP].to_numpy(np.int64),
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        items=shown.flatten().to_numpy().astype(np.int64),
        clicked=clicked.flatten().to_numpy(zero_copy_only=False).astype(np.bool_),
    )


def _read(path: Path, checksum: str) -> pa.Table:
    try:
        found = sha256(path)
    except OSError as error:
        raise RunError(
            f"cannot read {path}: {error.strerror}. Build the data set again."
        ) from error
    if found != checksum:
        raise RunError(
            f"{path} is not the file that {MANIFEST} describes (other SHA-256). "
            "Build the data set again."
        )
    return read_parquet(path)


def _template_text(template: dict[str, Any] | None) -> str | None:
    """As YAML, which keeps numbers as keys; checked to give back what it was given."""
    if template is None:
        return None
    try:
        text = yaml.safe_dump(template, allow_unicode=True, sort_keys=False)
        same = parse_yaml(text) == template
    except (yaml.YAMLError, ValueError, RecursionError):
        same = False
    if not same:
        raise DataError(
            "the template holds something that YAML cannot: only texts, numbers, dates, lists and "
            "mappings can be stored"
        )
    return text


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
    encodings = parse_json((table.schema.metadata or {}).get(_KEY, b"{}"))
    frame = table.to_pandas()
    for name, encoding in encodings.items():
        values: Any = frame[name].to_numpy(object)
        if encoding == _TEXT_NAN:
            values[pd.isna(values)] = np.nan
        elif encoding == _JSON:
            values = [_unpack(parse_json(value)) for value in values]
        frame[name] = pd.Series(values, index=frame.index, dtype=object)
    return frame


def _encode(column: pd.Series, what: str) -> tuple[pd.Series, str]:
    values: Any = column.to_numpy(object, copy=True)
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
            values = [json.dumps(_pack(value)) for value in values]
        except TypeError as error:
            raise DataError(
                f"table {what!r}, column {column.name!r}: values of type {error} cannot be "
                "stored; convert them to numbers, texts, lists or mappings"
            ) from error
    elif encoding == _TEXT_NAN:
        values[pd.isna(values)] = None
    return pd.Series(values, index=column.index, dtype=object), encoding


def _is_utf8(text: str) -> bool:
    return text.encode(errors="ignore").decode() == text


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
