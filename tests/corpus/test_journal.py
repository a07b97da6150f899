"""Nothing that was written is lost, and nothing else is mixed in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usermirror_gym.corpus.rationales.journal import Journal, read_header, read_records
from usermirror_gym.errors import RunError

HEADER = {"journal": "test", "settings": {"seed": 1, "temperature": 0.5}}


def begin(path: Path, records: list[dict]) -> bytes:
    with Journal(path, HEADER) as journal:
        journal.append(records)
    return path.read_bytes()


def test_records_come_back_in_the_order_written_after_the_header(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "j.jsonl"
    begin(path, [{"a": 1}, {"a": "zeile\u2028 \ud800 ü"}])
    with Journal(path, HEADER) as journal:
        journal.append([{"a": 3}])
        assert [r["a"] for r in journal.records()] == [1, "zeile\u2028 \ud800 ü", 3]
    assert read_header(path) == HEADER


@given(cut=st.integers(min_value=0))
def test_a_file_cut_anywhere_goes_on_with_the_whole_lines(cut: int, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("cut") / "j.jsonl"
    whole = begin(path, [{"a": i} for i in range(3)])
    cut %= len(whole) + 1
    path.write_bytes(whole[:cut])
    kept = max(0, whole[:cut].count(b"\n") - 1)
    with Journal(path, HEADER) as journal:
        assert [r["a"] for r in journal.records()] == list(range(kept))
        journal.append([{"a": i} for i in range(kept, 3)])
    assert path.read_bytes() == whole


def test_another_header_is_an_error_that_names_every_difference(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    before = begin(path, [{"a": 1}])
    other = {"journal": "test", "settings": {"seed": 2, "temperature": 0.5}, "model": "m"}
    wanted = "settings.seed was 1 and is now 2; model was nothing and is now 'm'"
    with pytest.raises(RunError, match=wanted), Journal(path, other):
        pass
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"my notes", b"my notes\nline\n", b'{"a": 1}\n', b"[]\n"])
def test_a_file_that_is_no_journal_is_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(content)
    with pytest.raises(RunError, match="not a journal"), Journal(path, HEADER):
        pass
    assert path.read_bytes() == content


def test_two_writers_at_once_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path, HEADER) as journal:
        with pytest.raises(RunError, match="written by another process"), Journal(path, HEADER):
            pass
        journal.append([{"a": 1}])
    with Journal(path, HEADER) as journal:
        assert list(journal.records()) == [{"a": 1}]


def test_sorting_makes_one_file_of_any_order(tmp_path: Path) -> None:
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path, numbers in zip(paths, ([3, 1, 2], [2, 3, 1]), strict=True):
        with Journal(path, HEADER) as journal:
            journal.append([{"a": n, "text": "x" * n} for n in numbers])
            journal.sort(lambda record: record["a"])
            journal.append([{"a": 4}])
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert [r["a"] for r in read_records(paths[0])] == [1, 2, 3, 4]
    assert not list(tmp_path.glob(".*.tmp"))


def test_what_a_killed_sort_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    before = begin(path, [{"a": 1}])
    leftover = tmp_path / ".j.jsonl.12345.tmp"
    leftover.write_bytes(b"half")
    with Journal(path, HEADER):
        pass
    assert not leftover.exists()
    assert path.read_bytes() == before


def test_readers_refuse_damaged_lines_by_number(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    whole = begin(path, [{"a": 1}, {"a": 2}])
    path.write_bytes(whole[:-3])
    with pytest.raises(RunError, match=r"line 3 is unfinished"):
        list(read_records(path))
    path.write_bytes(whole.replace(b'{"a": 1}', b'\0\0"a": 1}'))
    with pytest.raises(RunError, match="line 2"):
        list(read_records(path))
    path.write_bytes(whole.replace(b'{"a": 1}', b"[1]"))
    with pytest.raises(RunError, match="line 2 is not an object"):
        list(read_records(path))


def test_nan_and_writing_outside_the_block_are_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl", HEADER)
    with pytest.raises(RunError, match="inside its with block"):
        journal.append([{"a": 1}])
    with journal:
        with pytest.raises(ValueError, match="JSON compliant"):
            journal.append([{"a": float("nan")}])
        assert list(journal.records()) == []
    assert json.loads((tmp_path / "j.jsonl").read_text()) == HEADER
