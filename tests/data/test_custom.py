"""Your own tables: every kind of file and time, mistakes in the mapping, hostile rows."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from usermirror_gym.data import RecDataset, load_dataset, read_dataset, save_dataset
from usermirror_gym.data.sources.base import Limits
from usermirror_gym.errors import ConfigError, DataError, UnknownNameError

Row = dict[str, Any]
CLICKS: list[Row] = [
    {"who": "a", "what": 7, "when": 1700000000, "stars": 4, "note": 'Good, "very"\ngood'},
    {"who": "b", "what": 8, "when": 1700000060, "stars": None, "note": None},
]
GOODS: list[Row] = [
    {"id": 7, "name": "Red kettle", "kind": "kitchen", "price": 19.5, "stock": 3},
    {"id": 8, "name": "None", "kind": "None", "price": "unknown", "stock": None},
]
MAPPING: Row = {
    "name": "shop",
    "domain": "product",
    "interactions": {
        "file": "clicks.csv", "user": "who", "item": "what", "time": "when", "rating": "stars",
        "texts": ["note"],
    },
    "items": {
        "file": "goods.csv", "item": "id", "title": "name", "texts": {"category": "kind"},
        "numbers": ["price", "stock"],
    },
}  # fmt: skip
Make = Callable[..., str]


def write_table(path: Path, rows: list[Row]) -> None:
    """In the form that the name of the file asks for."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pd.DataFrame(rows).to_parquet(path)
        return
    temporary = path.with_name("plain")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        if name.endswith(".jsonl"):
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            sep = "\t" if name.endswith(".tsv") else ","
            writer = csv.DictWriter(file, list(rows[0]), delimiter=sep, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    content = temporary.read_bytes()
    temporary.unlink()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """The path of a mapping, with its tables beside it; ``changes`` are merged into sections."""

    def _make(
        clicks: list[Row] | str | None = None, goods: list[Row] | str | None = None, **changes: Any
    ) -> str:
        mapping = {k: dict(v) if isinstance(v, dict) else v for k, v in MAPPING.items()}
        for key, value in changes.items():
            if isinstance(value, dict) and isinstance(mapping.get(key), dict):
                mapping[key] |= value
            else:
                mapping[key] = value
        for section, rows in (("interactions", clicks or CLICKS), ("items", goods or GOODS)):
            files = mapping[section] or MAPPING[section]
            path = tmp_path / files["file"]
            if isinstance(rows, str):
                path.write_bytes(rows.encode("utf-8", "surrogateescape"))
            else:
                write_table(path, rows)
        (tmp_path / "shop.yaml").write_text(yaml.safe_dump(mapping, sort_keys=False))
        return str(tmp_path / "shop.yaml")

    return _make


def kinds(data: RecDataset) -> dict[str, int]:
    return {repair.kind: repair.count for repair in data.repairs}


KINDS = (".csv", ".csv.gz", ".tsv", ".jsonl", ".jsonl.gz", ".parquet")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same(make: Make, kind: str, tmp_path: Path) -> None:
    clicks = [{**row, "when": row["when"], "note": row["note"] or ""} for row in CLICKS]
    goods = [{**row, "price": "unknown" if row["price"] == "unknown" else str(row["price"])}
             for row in GOODS]  # fmt: skip
    path = make(
        clicks, goods, interactions={"file": "clicks" + kind}, items={"file": "goods" + kind}
    )
    data = load_dataset(path)
    assert (data.name, data.domain) == ("shop", "product")
    assert data.titles == ["", "Red kettle", "None"]
    assert data.items["token"].tolist() == ["7", "8"]
    assert data.items["category"].tolist() == ["kitchen", None]
    assert data.items["price"].fillna(-1).tolist() == [19.5, -1]
    assert data.items["stock"].fillna(-1).tolist() == [3, -1]
    events = data.interactions
    assert events[["user_id", "item_id", "timestamp"]].to_numpy().tolist() == [
        [1, 1, 1700000000], [2, 2, 1700000060],
    ]  # fmt: skip
    assert events["rating"].fillna(-1).tolist() == [4, -1]
    assert events["note"].tolist() == ['Good, "very"\ngood', None]
    assert kinds(data) == {"price that cannot be used, left empty": 1}
    again = read_dataset(save_dataset(data, tmp_path / "stored"))
    pd.testing.assert_frame_equal(again.items, data.items)


def test_another_separator(make: Make) -> None:
    path = make(
        'who;what;when;stars;note\na;7;1700000000;4;"x; y"\n', interactions={"separator": ";"}
    )
    assert load_dataset(path).interactions["note"].tolist() == ["x; y"]


def test_another_folder(make: Make, tmp_path: Path) -> None:
    path = Path(make())
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere" / "shop.yaml")
    assert load_dataset(str(moved), tmp_path).n_items == 2
    with pytest.raises(DataError, match=r"goods\.csv is missing"):
        load_dataset(str(moved))


MOMENT = 1706951700
TIMES: dict[str, tuple[object, object]] = {
    "seconds": (MOMENT, {}),
    "text": (str(MOMENT), {}),
    "fraction": (MOMENT + 0.9, {}),
    "ms": (MOMENT * 1000 + 999, {"unit": "ms"}),
    "us": (MOMENT * 10**6, {"unit": "us"}),
    "ns": (MOMENT * 10**9 + 10**9 - 1, {"unit": "ns"}),
    "iso": ("2024-02-03 09:15:00", {"format": "iso"}),
    "iso with zone": ("2024-02-03T10:15+01:00", {"format": "iso"}),
    "iso in zone": ("2024-02-03T10:15", {"format": "iso", "zone": "Europe/Berlin"}),
    "strptime": ("03/02/24 09.15", {"format": "%d/%m/%y %H.%M"}),
}


@pytest.mark.parametrize(("value", "how"), TIMES.values(), ids=TIMES)
def test_times(make: Make, value: object, how: Row) -> None:
    rows = [{**CLICKS[0], "when": value}]
    data = load_dataset(make(rows, interactions={"time": {"column": "when", **how}}))
    assert data.interactions["timestamp"].tolist() == [MOMENT]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (datetime(2024, 2, 3, 10, 15), MOMENT),
        (datetime(2024, 2, 3, 9, 15, tzinfo=UTC), MOMENT),
        (date(2024, 2, 3), 1706914800),
    ],
)
def test_dates_in_parquet_are_understood(make: Make, value: object, seconds: int) -> None:
    rows = [{**CLICKS[0], "when": value}]
    time = {"column": "when", "zone": "Europe/Berlin"}
    data = load_dataset(make(rows, interactions={"file": "clicks.parquet", "time": time}))
    assert data.interactions["timestamp"].tolist() == [seconds]


BAD_TIMES = ["", "yesterday", "nan", "inf", "1e400", "0x10", "１７", None]


@pytest.mark.parametrize("value", BAD_TIMES)
def test_an_unreadable_time_is_counted_with_its_line(make: Make, value: object) -> None:
    data = load_dataset(make([*CLICKS, {**CLICKS[0], "when": value}]))
    (repair, *_) = [r for r in data.repairs if "without a readable time" in r.kind]
    assert repair.count == 1
    assert repair.examples[0].startswith("clicks.csv:5")  # the first note has two lines


@pytest.mark.parametrize("value", [MOMENT * 1000, -5, 10**18, "9" * 30, "9" * 4000, 1e300])
def test_a_time_of_another_unit_is_never_taken(make: Make, value: object) -> None:
    data = load_dataset(make([*CLICKS, {**CLICKS[0], "when": value}]))
    assert len(data.interactions) == 2
    assert any("bad timestamp" in kind or "readable time" in kind for kind in kinds(data))


def test_wrong_unit_everywhere_is_an_error_that_says_so(make: Make) -> None:
    rows = [{**row, "when": row["when"] * 1000} for row in CLICKS]
    with pytest.raises(DataError, match=r"none of the 2 interactions is usable.*not seconds"):
        load_dataset(make(rows))


SETTINGS: dict[str, tuple[Row, str]] = {
    "section": ({"interaction": {}}, r"setting in .*'interaction'\. Did you mean 'interactions'"),
    "column": ({"items": {"titel": "name"}}, r"'titel'\. Did you mean 'title'"),
    "deep": (
        {"interactions": {"time": {"colum": "when"}}},
        r"of 'interactions\.time' in .*'colum'\. Did you mean 'column'",
    ),
    "domain": ({"domain": "produkt"}, "unknown domain 'produkt'. Did you mean 'product'"),
    "limit": ({"limits": {"min_users": 3}}, r"of 'limits' in .*Did you mean 'min_user'"),
}


@pytest.mark.parametrize(("change", "message"), SETTINGS.values(), ids=SETTINGS)
def test_a_setting_that_does_not_exist_suggests_one(make: Make, change: Row, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        load_dataset(make(**change))


VALUES: dict[str, tuple[Row, str]] = {
    "no words": ({"domain": None}, "exactly one of 'domain' and 'template'"),
    "two words": ({"template": {"noun": "x"}}, "exactly one of 'domain' and 'template'"),
    "template": ({"domain": None, "template": "x"}, r"template: .*dictionary, got 'x'"),
    "norway": ({"items": {"item": False}}, r"items\.item: .*string, got False; put it in quotes"),
    "name": ({"name": 2024}, "name: .*string, got 2024; put it in quotes"),
    "empty name": ({"name": ""}, r"name: .*at least 1 character"),
    "unit": ({"interactions": {"time": {"column": "when", "unit": "h"}}}, r"time\.unit: .*'h'"),
    "zone": (
        {"interactions": {"time": {"column": "when", "zone": "Berlin"}}},
        r"time\.zone: no such time zone, got 'Berlin'",
    ),
    "limits": ({"limits": {"min_user": -1}}, r"limits\.min_user: .*greater than or equal to 0"),
    "separator": ({"items": {"separator": ";;"}}, r"items\.separator: .*at most 1 character"),
    "taken": ({"items": {"texts": {"title": "kind"}}}, "the name 'title' is taken"),
    "twice": ({"items": {"numbers": ["category"]}}, "the name 'category' is taken"),
    "list": ({"items": []}, "items: .*dictionary"),
    "ending": ({"items": {"file": "goods.xlsx"}}, r"'goods\.xlsx' must end in one of \.csv"),
}


@pytest.mark.parametrize(("change", "message"), VALUES.values(), ids=VALUES)
def test_a_setting_that_cannot_be_used_is_named(make: Make, change: Row, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_dataset(make(**change))


@pytest.mark.parametrize("missing", ["name", "interactions", "items"])
def test_a_missing_setting_is_named(make: Make, missing: str) -> None:
    path = Path(make())
    mapping = {k: v for k, v in yaml.safe_load(path.read_text()).items() if k != missing}
    path.write_text(yaml.safe_dump(mapping))
    with pytest.raises(ConfigError, match=f"the setting '{missing}' is missing"):
        load_dataset(str(path))


@pytest.mark.parametrize(
    "content", ["", "- a\n", "just text", "a: [", "\0", "1: 2\n", "!!python/object:os.system {}"]
)
def test_what_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_dataset(str(tmp_path / "bad.yaml"))


def test_bytes_are_no_mapping(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(ConfigError, match=r"bad\.yaml is not YAML"):
        load_dataset(str(tmp_path / "bad.yaml"))


def test_a_missing_mapping_is_named() -> None:
    with pytest.raises(ConfigError, match=r"cannot read nowhere/mine\.yaml: No such file"):
        load_dataset("nowhere/mine.yaml")


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_column_is_named_with_the_nearest(make: Make, kind: str) -> None:
    goods = [{k: str(v) for k, v in row.items()} for row in GOODS]
    path = make(goods=goods, items={"file": "goods" + kind, "texts": {"category": "kinds"}})
    message = rf"goods{re.escape(kind)}.*\['kinds'\]\. Did you mean 'kind'\?"
    with pytest.raises(DataError, match=message):
        load_dataset(path)


def test_a_key_may_be_absent_from_some_lines(make: Make) -> None:
    goods = [GOODS[0], {"id": 8, "name": "Pan"}]
    data = load_dataset(make(goods=goods, items={"file": "goods.jsonl"}))
    assert data.items["category"].tolist() == ["kitchen", None]


def test_a_damaged_parquet_file_is_named(make: Make, tmp_path: Path) -> None:
    rows = [{k: str(v) for k, v in row.items()} for row in GOODS]
    path = make(goods=rows, items={"file": "goods.parquet"})
    whole = (tmp_path / "goods.parquet").read_bytes()
    (tmp_path / "goods.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"goods\.parquet cannot be read as Parquet"):
        load_dataset(path)


HEAD = "who,what,when,stars,note\n"
GOOD = "a,7,1700000000,4,fine\n"
HOSTILE: dict[str, tuple[str, str]] = {
    "no user": (",7,1700000001,4,x", "interaction without a user or an item"),
    "no item": ("a,,1700000001,4,x", "interaction without a user or an item"),
    "unknown item": ("a,99,1700000001,4,x", "event of an unknown item"),
    "too short": ("a,7", "row without 5 fields"),
    "too long": ("a,7,1700000001,4,x,y", "row without 5 fields"),
    "NUL": ("a,7,1700000001,4,\0", "line with NUL bytes"),
    "50 MB line": ("a,7,1700000001,4," + "x" * 2_000_000, "line longer than"),
    "again": ("a,7,1700000000,4,x", "duplicate event"),
}


@pytest.mark.parametrize(("row", "kind"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_rows_are_counted(make: Make, row: str, kind: str) -> None:
    data = load_dataset(make(HEAD + GOOD + row + "\n"))
    assert len(data.interactions) == 1
    assert data.interactions["note"].tolist() == ["fine"]
    found = [repair for repair in data.repairs if kind in repair.kind]
    assert [repair.count for repair in found] == [1], kinds(data)
    with pytest.raises(DataError):
        load_dataset(make(HEAD + GOOD + row + "\n"), bad_rows="raise")


def test_a_rating_that_is_no_number_keeps_its_row(make: Make) -> None:
    data = load_dataset(make(HEAD + GOOD + "a,8,1700000001,five,x\n"))
    assert data.interactions["rating"].isna().tolist() == [False, True]
    assert kinds(data)["rating that cannot be used, left empty"] == 1


def test_mixed_encodings_are_read_and_counted(make: Make) -> None:
    data = load_dataset(make(HEAD + GOOD + "a,8,1700000001,4,Caf\udce9\n"))
    assert data.interactions["note"].tolist() == ["fine", "Café"]
    assert any("not utf-8" in kind for kind in kinds(data))


def test_truncated_gz_is_an_error_with_its_line(make: Make, tmp_path: Path) -> None:
    path = make(interactions={"file": "clicks.csv.gz"})
    packed = gzip.compress((HEAD + GOOD * 5000).encode())
    (tmp_path / "clicks.csv.gz").write_bytes(packed[:-20])
    with pytest.raises(DataError, match=r"clicks\.csv\.gz: the gz data break off.*after line"):
        load_dataset(path)


def test_items_and_users_count_once(make: Make, tmp_path: Path) -> None:
    people = [("a", 30), ("b", 400), ("a", 31), ("", 1)]
    write_table(tmp_path / "people.csv", [{"id": user, "age": age} for user, age in people])
    users = {"file": "people.csv", "user": "id", "numbers": ["age"]}
    data = load_dataset(make(goods=[*GOODS, GOODS[0]], users=users))
    assert data.users["age"].tolist() == [30, 400]
    assert kinds(data) == {
        "price that cannot be used, left empty": 1,
        "item listed twice, kept once": 1,
        "user listed twice, kept once": 1,
        "user without an id, skipped": 1,
    }


def test_users_who_are_not_listed_are_dropped_and_counted(make: Make, tmp_path: Path) -> None:
    write_table(tmp_path / "people.csv", [{"id": "a"}, {"id": "idle"}])
    data = load_dataset(make(users={"file": "people.csv", "user": "id"}))
    assert data.users["token"].tolist() == ["a"]
    assert kinds(data)["event of an unknown user, dropped"] == 1


def test_limits(make: Make) -> None:
    rows = [{**CLICKS[0], "what": 8}, *CLICKS]
    path = make(rows, limits={"min_user": 2, "min_item": 1})
    data = load_dataset(path)
    assert data.users["token"].tolist() == ["a"]
    assert data.n_items == 2
    assert load_dataset(path, limits=Limits()).n_users == 2
    with pytest.raises(DataError, match="none of the 0 interactions"):
        load_dataset(path, limits=Limits(min_user=99))


def test_publication_times(make: Make) -> None:
    goods = [{**GOODS[0], "since": "2020-01-01"}, {**GOODS[1], "since": "0000"},
             {**GOODS[1], "id": 9, "since": ""}]  # fmt: skip
    data = load_dataset(
        make(goods=goods, items={"available_from": {"column": "since", "format": "iso"}})
    )
    assert data.items["available_from"].fillna(-1).tolist() == [1577836800, -1, -1]
    assert kinds(data)["publication time that cannot be read, left empty"] == 1


SHELF = {"file": "shelf.csv", "list": "n", "user": "who", "time": "when", "item": "what",
         "clicked": "took"}  # fmt: skip


def shown(*rows: tuple[object, ...]) -> list[Row]:
    return [dict(zip(("n", "who", "when", "what", "took"), row, strict=True)) for row in rows]


def test_lists_with_several_clicks_or_none(make: Make, tmp_path: Path) -> None:
    rows = shown(
        ("p", "a", 5, 8, "yes"), ("q", "b", 4, 7, 0), ("p", "a", 5, 7, "TRUE"), ("q", "b", 4, 8, "")
    )
    write_table(tmp_path / "shelf.csv", rows)
    lists = load_dataset(make(impressions=SHELF)).impressions
    assert lists is not None
    assert lists.names.tolist() == ["q", "p"]
    assert [[a.tolist() for a in lists.row(i)] for i in range(2)] == [
        [[1, 2], [False, False]], [[2, 1], [True, True]],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "row",
    [("p", "a", 5, 7, "maybe"), ("p", "a", 6, 7, 0), ("p", "b", 5, 7, 0), ("p", "a", 5, "", 0),
     ("p", "a", "x", 7, 0), ("p", "", 5, 7, 0), ("", "a", 5, 7, 0)],
)  # fmt: skip
def test_a_list_with_a_row_that_does_not_fit_is_dropped(
    make: Make, tmp_path: Path, row: tuple[object, ...]
) -> None:
    write_table(tmp_path / "shelf.csv", shown(("p", "a", 5, 8, 1), row, ("q", "b", 4, 7, 0)))
    data = load_dataset(make(impressions=SHELF))
    assert data.impressions is not None
    assert data.impressions.names.tolist() == (["q", "p"] if row[0] == "" else ["q"])
    assert kinds(data)["row that does not fit its list, the list dropped"] == 1


def test_lists_and_friends_of_users_left_out_are_no_repairs(make: Make, tmp_path: Path) -> None:
    write_table(tmp_path / "shelf.csv", shown(("p", "a", 5, 8, 1), ("q", "b", 4, 7, 0)))
    write_table(tmp_path / "pairs.csv", [{"x": "a", "y": "b"}])
    path = make(
        [{**CLICKS[0], "what": 8}, *CLICKS],
        [GOODS[0], {**GOODS[1], "price": 1}],
        impressions=SHELF,
        friends={"file": "pairs.csv", "user": "x", "friend": "y"},
        limits={"min_user": 2},
    )
    data = load_dataset(path, bad_rows="raise")
    assert data.impressions is not None
    assert data.impressions.names.tolist() == ["p"]
    assert data.friends is not None
    assert data.friends.empty


def test_friends_without_ids_are_counted(make: Make, tmp_path: Path) -> None:
    write_table(tmp_path / "pairs.csv", [{"x": "a", "y": "b"}, {"x": "a", "y": ""}])
    data = load_dataset(make(friends={"file": "pairs.csv", "user": "x", "friend": "y"}))
    assert data.friends is not None
    assert data.friends.to_numpy().tolist() == [[1, 2], [2, 1]]
    assert kinds(data)["friends without two ids, skipped"] == 1


def test_one_column_may_serve_twice(make: Make) -> None:
    path = make(items={"texts": {"category": "kind", "label": "name"}})
    assert load_dataset(path).items["label"].tolist() == ["Red kettle", None]


def test_values_of_every_type_become_texts(make: Make) -> None:
    values = [["a", "b"], 3, 2.5, True, None, {"x": 1}]
    goods = [{**GOODS[0], "id": i, "kind": value} for i, value in enumerate(values)]
    data = load_dataset(make([{**CLICKS[0], "what": 0}], goods, items={"file": "goods.jsonl"}))
    assert data.items["category"].tolist() == ["a, b", "3", "2.5", "yes", None, None]
    assert kinds(data)["category that is no text, left empty"] == 1


def test_the_file_may_be_a_path(make: Make) -> None:
    path = make()
    assert load_dataset(Path(path)).titles == load_dataset(path).titles
