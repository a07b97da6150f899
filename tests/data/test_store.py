"""A data set comes back from disk as it was: values, types, order."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usermirror_gym.data import RecDataset, load_dataset, read_dataset, save_dataset
from usermirror_gym.data.store import from_arrow, to_arrow
from usermirror_gym.errors import DataError, RunError

Build = Callable[..., RecDataset]

HOSTILE = "NUL \0, CR \r\n, \x85\u2028, \ud83d half a pair, [A] option, 日本, \u202e reversed"


@pytest.fixture
def rich(build: Build) -> RecDataset:
    """Every kind of table and column a source may give."""
    users = pd.DataFrame(
        {
            "user_id": ["a", "b"],
            "age": pd.array([30, None], "Int64"),
            "active": pd.array([True, None], "boolean"),
            "joined": pd.to_datetime(["2020-01-01", None]),
            "group": pd.Categorical(["x", "y"], ["y", "x"]),
            "name": pd.array(["A", None], "string"),
        }
    )
    items = pd.DataFrame(
        {
            "item_id": ["x", "y", "z"],
            "title": ["X", HOSTILE, "Z"],
            "genres": [None, "a", "b"],
            "maker": [np.nan, "a", "b"],
            "price": [1.5, np.nan, np.inf],
            "tags": [["a", "b"], ["c", "d"], []],
            "mixed": ["7", 7, 7.0],
            "deep": [{"a": (1, None)}, pd.NA, np.int64(4)],
            "available_from": [1, None, 3],
        }
    )
    events = pd.DataFrame(
        {
            "user_id": ["a", "b", "a"],
            "item_id": ["x", "y", "z"],
            "timestamp": [1, 2, 3],
            "rating": [1.0, None, 5.0],
            "hours": pd.array([1, None, 3], "Int32"),
            "undated": [True, False, False],
        }
    )
    lists = pd.DataFrame(
        {
            "impression_id": ["p", "q"],
            "user_id": ["b", "a"],
            "timestamp": [9, 4],
            "shown": [["x", "y", "z"], ["z"]],
            "clicked": [[1, 0, 1], [False]],
        }
    )
    return build(
        events,
        users=users,
        items=items,
        impressions=lists,
        friends=pd.DataFrame({"user_id": ["a", "b"], "friend_id": ["b", "a"]}),
        template={"line": ["{title}", {"é": None}], "values": {1: "one", None: date(2020, 1, 1)}},
    )


def check_equal(one: RecDataset, two: RecDataset) -> None:
    for table in ("users", "items", "interactions", "friends"):
        left, right = getattr(one, table), getattr(two, table)
        assert (left is None) == (right is None), table
        if left is not None:
            pd.testing.assert_frame_equal(left, right, check_exact=True)
    assert (one.name, one.domain, one.repairs, one.template) == (
        two.name, two.domain, two.repairs, two.template,
    )  # fmt: skip
    assert (one.impressions is None) == (two.impressions is None)
    if one.impressions is not None and two.impressions is not None:
        for field, value in vars(one.impressions).items():
            other = getattr(two.impressions, field)
            assert other.dtype == value.dtype, field
            np.testing.assert_array_equal(value, other, err_msg=field)


def test_everything_comes_back(rich: RecDataset, tmp_path: Path) -> None:
    again = read_dataset(save_dataset(rich, tmp_path / "data"))
    check_equal(rich, again)
    assert again.titles[2] == HOSTILE.strip()
    # assert_frame_equal takes None for NaN and 7 for 7.0.
    assert again.items["genres"].tolist()[0] is None
    assert isinstance(again.items["maker"].tolist()[0], float)
    assert [type(v) for v in again.items["mixed"]] == [str, int, float]
    assert again.items["deep"].tolist()[0] == {"a": (1, None)}
    assert type(again.items["deep"].tolist()[2]) is np.int64
    assert again.items["tags"].tolist() == [["a", "b"], ["c", "d"], []]


def test_a_plain_data_set_comes_back(build: Build, tmp_path: Path) -> None:
    data = build([("a", "x", 1), ("ghost", "x", 2)])
    again = read_dataset(save_dataset(data, tmp_path))
    check_equal(data, again)
    assert [r.count for r in again.repairs] == [1]


def test_no_shown_list_and_no_friend_differ_from_none(build: Build, tmp_path: Path) -> None:
    lists = pd.DataFrame({c: [] for c in ("user_id", "timestamp", "shown", "clicked")})
    friends = pd.DataFrame({"user_id": ["a"], "friend_id": ["ghost"]})
    data = build([("a", "x", 1)], impressions=lists, friends=friends)
    assert data.impressions is not None
    again = read_dataset(save_dataset(data, tmp_path))
    check_equal(data, again)
    assert again.impressions is not None
    assert again.impressions.offsets.tolist() == [0]


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_the_same_data_set_gives_the_same_bytes(rich: RecDataset, tmp_path: Path) -> None:
    save_dataset(rich, tmp_path / "one")
    save_dataset(read_dataset(tmp_path / "one"), tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_real_data_set_comes_back(tmp_path: Path) -> None:
    data = load_dataset("ml-100k")
    check_equal(data, read_dataset(save_dataset(data, tmp_path)))


def test_saving_again_replaces_all_tables(rich: RecDataset, build: Build, tmp_path: Path) -> None:
    save_dataset(rich, tmp_path)
    data = build([("b", "z", 1)])
    save_dataset(data, tmp_path)
    check_equal(data, read_dataset(tmp_path))
    assert not (tmp_path / "impressions.parquet").exists()


def test_unfinished_folder_is_no_data_set(
    rich: RecDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_dataset(rich, tmp_path)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("usermirror_gym.data.store.write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        save_dataset(rich, tmp_path)
    with pytest.raises(RunError, match=r"no finished data set \(no dataset\.json\)"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("harm", ["change", "remove", "swap"])
def test_changed_files_are_refused(rich: RecDataset, tmp_path: Path, harm: str) -> None:
    path = save_dataset(rich, tmp_path) / "items.parquet"
    if harm == "change":
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    elif harm == "remove":
        path.unlink()
    else:
        path.write_bytes((tmp_path / "users.parquet").read_bytes())
    with pytest.raises(RunError, match=r"items\.parquet"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{", '{"format": 99}'])
def test_another_manifest_is_refused(rich: RecDataset, tmp_path: Path, text: str) -> None:
    (save_dataset(rich, tmp_path) / "dataset.json").write_text(text)
    with pytest.raises(RunError, match=r"dataset\.json"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("value", [date(2020, 1, 1), {1, 2}, b"bytes", object()])
def test_what_cannot_be_stored_is_named_and_harms_nothing(
    rich: RecDataset, tmp_path: Path, value: object
) -> None:
    save_dataset(rich, tmp_path)
    items = rich.items.assign(odd=pd.Series([value, None, None], rich.items.index, dtype=object))
    with pytest.raises(DataError, match=f"'items', column 'odd'.*{type(value).__name__}"):
        save_dataset(replace(rich, items=items), tmp_path)
    check_equal(rich, read_dataset(tmp_path))


@pytest.mark.parametrize("template", [{"x": ("a",)}, {"x": object()}, {"x": float("nan")}])
def test_template_must_be_yaml(rich: RecDataset, tmp_path: Path, template: dict) -> None:
    with pytest.raises(DataError, match="template"):
        save_dataset(replace(rich, template=template), tmp_path)


def test_column_names_must_be_texts(rich: RecDataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'users' must have distinct texts"):
        save_dataset(replace(rich, users=rich.users.assign(**{"x": 1}).rename(columns={"x": 5})),
                     tmp_path)  # fmt: skip


def test_manifest_can_be_read_by_people(rich: RecDataset, tmp_path: Path) -> None:
    manifest = json.loads((save_dataset(rich, tmp_path) / "dataset.json").read_text())
    assert (manifest["users"], manifest["items"], manifest["interactions"]) == (2, 3, 3)


leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    | st.text(st.characters(categories=["Cs"])) | st.just(pd.NA)
)  # fmt: skip
values = st.recursive(
    leaves, lambda v: st.lists(v) | st.tuples(v) | st.dictionaries(st.text() | st.integers(), v)
)


@given(st.lists(values, max_size=6))
def test_any_mixture_of_python_values_comes_back(column: list[Any]) -> None:
    frame = pd.DataFrame({"x": pd.Series(column, dtype=object)})
    again = from_arrow(to_arrow(frame, "t"))["x"]
    assert again.dtype == object
    assert repr(again.tolist()) == repr(column)
