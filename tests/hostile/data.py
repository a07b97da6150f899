"""Data: archives that unpack to the disk's end or elsewhere, tables, settings, stored data sets."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

from tests.conftest import build_split
from tests.hostile.case import Case, Place
from usermirror_gym.corpus.rationales.journal import read_records
from usermirror_gym.corpus.released.read import read_released
from usermirror_gym.data.raw import raw_files
from usermirror_gym.data.raw.reading import ReadLog, read_json_lines, read_lines
from usermirror_gym.data.sources.custom_settings import read_settings
from usermirror_gym.data.store import read_dataset, save_dataset
from usermirror_gym.files import read_json, read_jsonl

DEEP = "[" * 100_000 + "]" * 100_000
DEEPER = "[" * 90 + "]" * 90
"""Not too deep for Python's own parser, but for whoever walks through it."""
BOMB = b"\0" * 3_000_000


def _bounded(read: Callable[[Place], Any]) -> Callable[[Place], Any]:
    """Read with a bound of a megabyte, so that the bombs may be small."""

    def inner(place: Place) -> Any:
        kept, raw_files._ALWAYS = raw_files._ALWAYS, 1_000_000
        try:
            return read(place)
        finally:
            raw_files._ALWAYS = kept

    return inner


def _zip(place: Place) -> None:
    with zipfile.ZipFile(place.folder / "a", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("log.csv", BOMB)
        archive.writestr("../marker", b"")


def _tar(*members: tarfile.TarInfo, content: bytes = b"", mode: str = "w:gz") -> Any:
    def given(place: Place) -> None:
        with tarfile.open(place.folder / "a", mode) as archive:  # type: ignore[call-overload]
            for member in members:
                member.size = len(content) if member.isreg() else 0
                archive.addfile(member, io.BytesIO(content))

    return given


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


def _unpack(name: str) -> Callable[[Place], Any]:
    return _bounded(
        lambda place: raw_files.unpack(place.folder / "a", {name: place.folder / "out"})
    )


def _file(name: str, content: str | bytes) -> Callable[[Place], object]:
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")
    return lambda place: (place.folder / name).write_bytes(data)


def _lines(place: Place) -> Any:
    return list(read_lines(place.folder / "log.gz", ReadLog()))


def _literals(place: Place) -> Any:
    return [row for _, row in read_json_lines(place.folder / "a.json", ReadLog(), literal=True)]


def _literal(line: Callable[[Place], str]) -> Callable[[Place], object]:
    """A good line, and one that is not."""
    return lambda place: (place.folder / "a.json").write_text("{'a': 1}\n" + line(place) + "\n")


SETTINGS = "name: mine\ndomain: movie\ninteractions: {file: l, user: u, item: i, time: t}\nitems: "


def _mapping(content: str, refused: str, name: str) -> Case:
    return Case(
        f"a data set's YAML: {name}", _file("a.yaml", content),
        lambda place: read_settings(place.folder / "a.yaml"), refused,
    )  # fmt: skip


def _stored(change: Callable[[dict[str, Any]], Any]) -> Callable[[Place], object]:
    def given(place: Place) -> None:
        save_dataset(build_split().dataset, place.folder / "set")
        path = place.folder / "set" / "dataset.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps(change(content) or content))

    return given


def _dataset(place: Place) -> Any:
    return read_dataset(place.folder / "set")


def _json(name: str, content: str, refused: str) -> list[Case]:
    """Every reader of JSON."""
    header = json.dumps({"journal": "rationales"}) + "\n"
    return [
        Case(f"a JSON file: {name}", _file("a", content),
             lambda p: read_json(p.folder / "a"), refused),
        Case(f"JSON lines: {name}", _file("a", content),
             lambda p: read_jsonl(p.folder / "a"), refused),
        Case(f"a journal: {name}", _file("a", header + content + "\n"),
             lambda p: list(read_records(p.folder / "a")), refused),
        Case(f"released rows: {name}", _file("a.jsonl", content),
             lambda p: read_released(p.folder / "a.jsonl", "eval"), refused),
    ]  # fmt: skip


CASES = [
    Case("a zip that unpacks to 1000 times its size", _zip, _unpack("log.csv"),
         "more than 1,000,000 bytes.*USERMIRROR_MAX_UNPACKED"),
    Case("a tar that unpacks to 1000 times its size", _tar(_member("log.csv"), content=BOMB),
         _unpack("log.csv"), "more than 1,000,000 bytes.*USERMIRROR_MAX_UNPACKED"),
    Case("a tar with a bomb beside what is wanted",
         _tar(_member("bomb"), _member("log.csv"), content=BOMB), _unpack("log.csv"),
         "unpacks to more than"),
    Case("a gz log that unpacks to 1000 times its size, in one line",
         lambda place: (place.folder / "log.gz").write_bytes(gzip.compress(BOMB)),
         _bounded(_lines), "more than 1,000,000 bytes.*USERMIRROR_MAX_UNPACKED"),
    Case("a gz log that unpacks to 1000 times its size, in many lines",
         lambda place: (place.folder / "log.gz").write_bytes(gzip.compress(b"1\n" * 2_000_000)),
         _bounded(_lines), "unpacks to more than"),
    Case("released rows that unpack to 1000 times their size",
         lambda place: (place.folder / "a.jsonl.gz").write_bytes(gzip.compress(BOMB)),
         _bounded(lambda place: read_released(place.folder / "a.jsonl.gz", "eval")),
         "unpacks to more than"),
    Case("a tar whose member is a link to elsewhere",
         _tar(_member("log.csv", tarfile.SYMTYPE, "/etc/hostname")), _unpack("log.csv"),
         "holds no 'log.csv'"),
    Case("a tar whose member is a hard link",
         _tar(_member("log.csv", tarfile.LNKTYPE, "../../marker")), _unpack("log.csv"),
         "holds no 'log.csv'"),
    Case("a tar whose member is a device", _tar(_member("log.csv", tarfile.CHRTYPE)),
         _unpack("log.csv"), "holds no 'log.csv'"),
    Case("a tar whose member leads out of the folder",
         _tar(_member("../marker/log.csv"), content=b"x"), _unpack("log.csv"),
         gives=lambda place, _: (place.folder / "out").read_bytes() == b"x"
         and not (place.folder.parent / "marker").exists()),
    Case("a zip that is none", _file("a", "PK\3\4" + "x" * 99), _unpack("log.csv"),
         "cannot be unpacked"),
    Case("a line of Python that calls something", _literal(lambda place: f"{{'a': {place.code}}}"),
         _literals, gives=lambda _, rows: rows == [{"a": 1}]),
    Case("a line of Python nested deeply", _literal(lambda _: "{'a': " + DEEP + "}"), _literals,
         gives=lambda _, rows: rows == [{"a": 1}]),
    Case("a line of Python of many signs", _literal(lambda _: "{'a': " + "-" * 150_000 + "1}"),
         _literals, gives=lambda _, rows: rows == [{"a": 1}]),
    Case("a line of Python of half a megabyte",
         _literal(lambda _: "{'a': [" + "{}," * 250_000 + "]}"),
         _literals, gives=lambda _, rows: rows == [{"a": 1}]),
    _mapping("name: [1", "is not YAML", "damaged"),
    _mapping(SETTINGS + DEEP, "nested deeper", "nested deeply"),
    _mapping(SETTINGS + DEEPER, "nested deeper", "nested"),
    _mapping(SETTINGS + "&a [*a]", "part of itself", "part of itself"),
    _mapping("[1, 2]: x", "unhashable key", "a list as a name"),
    _mapping("2024-01-01: x", "texts as names", "a date as a name"),
    _mapping("null: x", "texts as names", "nothing as a name"),
    _mapping("name: 2024-01-01", "name: .*put it in quotes", "a date as a value"),
    _mapping("name: !!python/object/apply:os.mkdir [marker]", "is not YAML", "an object of Python"),
    _mapping("- name", "must be a mapping", "a list"),
    _mapping("name: \udcff", "is not YAML", "bytes that are no text"),
    *_json("nested deeply", DEEP, "nested deeper"),
    *_json("nested", DEEPER, "nested deeper"),
    *_json("a number of 5000 digits", '{"a": ' + "9" * 5000 + "}", "digits"),
    *_json("broken off", '{"a": [1', "Expecting|delimiter"),
    Case("a stored data set: a list", _stored(lambda _: [1]), _dataset, "another format"),
    Case("a stored data set: without sums", _stored(lambda one: one.pop("sha256") and None),
         _dataset, "is damaged.*Build the data set again"),
    Case("a stored data set: sums that are a list", _stored(lambda one: one | {"sha256": [1]}),
         _dataset, "is damaged"),
    Case("a stored data set: a template that is part of itself",
         _stored(lambda one: one | {"template": "&a [*a]"}), _dataset, "part of itself"),
    Case("a stored data set: a template that is a number",
         _stored(lambda one: one | {"template": 5}),
         _dataset, "is damaged"),
    Case("a stored data set: a table of another folder",
         _stored(lambda one: one | {"sha256": one["sha256"] | {"../set/users": "0"}}), _dataset,
         gives=lambda _, found: found.n_users == 6),
]  # fmt: skip
