"""Readers of raw files: every bad row is an error or counted, whatever the file holds."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from usermirror_gym.data.raw.raw_files import has_file
from usermirror_gym.data.raw.reading import (
    ReadLog,
    find_file,
    read_csv_rows,
    read_json_lines,
    read_lines,
    read_rows,
)
from usermirror_gym.errors import DataError, UnknownNameError
from usermirror_gym.progress import Display

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def _save(content: str | bytes, name: str = "raw.txt", *, gz: bool = False) -> Path:
        raw = content.encode() if isinstance(content, str) else content
        path = tmp_path / name
        path.write_bytes(gzip.compress(raw) if gz else raw)
        return path

    return _save


def kinds(log: ReadLog) -> dict[str, int]:
    return {repair.kind: repair.count for repair in log.repairs}


# Lines.


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "end"])
def test_lines_are_numbered_from_one(save: Save, gz: bool, end: str, last: str) -> None:
    path = save(f"ünï{end}{end}  two {end}{last and last + end}", gz=gz)
    expected = [(1, "ünï"), (2, ""), (3, "  two ")] + ([(4, "end")] if last else [])
    assert list(read_lines(path, ReadLog())) == expected


def test_gz_is_recognised_by_content_not_by_name(save: Save) -> None:
    assert list(read_lines(save("a\n", "plain.gz"), ReadLog())) == [(1, "a")]
    assert list(read_lines(save("a\n", "packed.txt", gz=True), ReadLog())) == [(1, "a")]


def test_a_byte_order_mark_is_not_part_of_the_first_line(save: Save) -> None:
    assert list(read_lines(save(b"\xef\xbb\xbfid\n"), ReadLog())) == [(1, "id")]


def test_control_characters_do_not_end_a_line(save: Save) -> None:
    path = save("a\x0b\x0c\x1c\x85\u2028b\rc\n")
    assert list(read_lines(path, ReadLog())) == [(1, "a\x0b\x0c\x1c\x85\u2028b\rc")]


@given(st.lists(st.text(st.characters(exclude_characters="\0\n\r", exclude_categories=["Cs"]))))
def test_any_utf8_text_is_read_back(tmp_path_factory: pytest.TempPathFactory, lines: list) -> None:
    path = tmp_path_factory.mktemp("any") / "raw.txt"
    path.write_bytes(gzip.compress("".join(line + "\n" for line in ["", *lines]).encode()))
    log = ReadLog()
    assert [line for _, line in read_lines(path, log)] == ["", *lines]
    assert log.repairs == ()


def test_mixed_encodings_are_read_right_and_counted(save: Save) -> None:
    # A Latin-1 line, a Windows quote, a character cut in two and a right line in one file.
    rows = [b"caf\xe9", b"\x93so\x94", "naïve ".encode() + b"\xc3", "日本".encode()]
    log = ReadLog()
    read = [line for _, line in read_lines(save(b"\n".join(rows)), log)]
    assert read == ["café", "“so”", "naïve Ã", "日本"]
    (repair,) = log.repairs
    assert (repair.kind, repair.count) == ("bytes that are not utf-8, read as Windows-1252", 3)
    assert repair.examples[0] == "raw.txt:1 café"


def test_a_declared_encoding_is_used(save: Save) -> None:
    log = ReadLog()
    path = save("é".encode("latin-1"))
    assert list(read_lines(path, log, encoding="iso-8859-1")) == [(1, "é")]
    assert log.repairs == ()


def test_lines_with_nul_bytes_are_counted_and_left_out(save: Save) -> None:
    log = ReadLog()
    assert list(read_lines(save(b"a\nb\0c\nd\n"), log)) == [(1, "a"), (3, "d")]
    assert log.repairs[0].examples == ("raw.txt:2 b?c",)


def big_line(megabytes: int) -> Iterator[bytes]:
    yield b'{"id": 1}\n{"text": "'
    for _ in range(megabytes):
        yield b"x" * 1_000_000
    yield b'"}\n{"id": 2}\n'


@pytest.mark.parametrize("gz", [False, True])
def test_a_line_of_50_mb_is_skipped_in_bounded_memory(tmp_path: Path, gz: bool) -> None:
    path = tmp_path / "raw.jsonl"
    with gzip.open(path, "wb", compresslevel=1) if gz else path.open("wb") as file:
        for piece in big_line(50):
            file.write(piece)
    log = ReadLog()
    tracemalloc.start()
    try:
        rows = list(read_json_lines(path, log))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows == [(1, {"id": 1}), (3, {"id": 2})]
    assert kinds(log) == {"line longer than 1,000,000 bytes, skipped": 1}
    assert log.repairs[0].examples == ("raw.jsonl:2",)
    assert peak < 6_000_000


def test_the_longest_allowed_line_is_read(save: Save) -> None:
    log = ReadLog()
    path = save("12345\r\n123456\r\n12345")
    assert list(read_lines(path, log, max_bytes=5)) == [(1, "12345"), (3, "12345")]


@pytest.mark.parametrize("keep", [0.3, 0.8, 0.999])
def test_truncated_gz_says_how_far_it_was_read(save: Save, keep: float) -> None:
    raw = gzip.compress(json.dumps([{"n": n} for n in range(50_000)]).replace(" ", "\n").encode())
    path = save(raw[: int(len(raw) * keep)], "raw.gz")
    seen: list[tuple[int, str]] = []
    with pytest.raises(DataError, match=r"raw\.gz: the gz data break off .* after line") as error:
        seen.extend(read_lines(path, ReadLog()))
    assert f"after line {len(seen)} " in str(error.value)


def test_damaged_gz_is_an_error(save: Save) -> None:
    raw = bytearray(gzip.compress(b"".join(b"%d\n" % (n * n) for n in range(20_000))))
    raw[len(raw) // 2] ^= 0xFF
    with pytest.raises(DataError, match=r"raw\.gz: the gz data .* Fetch the file again"):
        list(read_lines(save(bytes(raw), "raw.gz"), ReadLog()))


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"PK\x03\x04rest", "zip archive"),
        (b"PAR1rest", "Parquet"),
        ("id\n".encode("utf-16"), "UTF-16"),
        (b"BZh91AY", "bzip2"),
    ],
)
def test_files_of_another_kind_are_named(save: Save, start: bytes, what: str) -> None:
    with pytest.raises(DataError, match=rf"raw\.txt is .*{what}"):
        list(read_lines(save(start), ReadLog()))


@pytest.mark.parametrize("gz", [False, True])
def test_an_empty_file_is_an_error(save: Save, gz: bool) -> None:
    with pytest.raises(DataError, match=r"raw\.txt is empty"):
        list(read_lines(save("", gz=gz), ReadLog()))


def test_a_folder_in_place_of_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        list(read_lines(tmp_path, ReadLog()))


# The log.


def test_the_log_counts_by_kind_and_keeps_three_short_examples(tmp_path: Path) -> None:
    log = ReadLog()
    for line in range(1, 6):
        log.skip("too odd", tmp_path / "a.csv", line, "v" * 500)
    (repair,) = log.repairs
    assert repair.count == 5
    assert [e.split(" ")[0] for e in repair.examples] == ["a.csv:1", "a.csv:2", "a.csv:3"]
    assert all(len(e) < 80 for e in repair.examples)


def test_a_strict_log_names_file_line_value_and_cure(tmp_path: Path) -> None:
    log = ReadLog("raise")
    with pytest.raises(DataError, match=r"a\.csv, line 7: too odd: 12\.x\. Mend the file, or pass"):
        log.skip("too odd", tmp_path / "a.csv", 7, "12.x")


def test_values_nested_too_deep_to_print_are_noted(tmp_path: Path) -> None:
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    log = ReadLog()
    log.skip("too deep", tmp_path / "a.json", 1, deep)
    assert log.repairs[0].examples == ("a.json:1 list",)


def test_an_unknown_way_with_bad_rows_is_named() -> None:
    with pytest.raises(UnknownNameError, match="repair"):
        ReadLog("repiar")  # type: ignore[arg-type]


def test_reading_again_counts_nothing_twice(save: Save) -> None:
    path = save("{}\nnot json\n")
    log = ReadLog()
    for each in (log, log.again()):
        list(read_json_lines(path, each))
    assert sum(kinds(log).values()) == 1


def test_big_files_show_a_bar_over_their_bytes(save: Save) -> None:
    path = save("x" * 999 + "\n" + ("y" * 999 + "\n") * 3000, "long.txt")
    screen = io.StringIO()
    display = Display(Console(file=screen, force_terminal=True, width=100))
    assert sum(1 for _ in read_lines(path, ReadLog(display=display))) == 3001
    assert "long.txt" in screen.getvalue()
    assert "3/3" in screen.getvalue()


# Finding files.


@pytest.mark.parametrize("asked", ["a.json", "a.json.gz", "a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize("there", ["a.json", "a.json.gz", "a.jsonl", "a.jsonl.gz"])
def test_a_file_is_found_under_each_of_its_names(save: Save, asked: str, there: str) -> None:
    path = save("{}", there)
    assert find_file(path.parent, asked) == path
    assert has_file(path.parent, asked)
    assert not has_file(path.parent, "b" + asked)


def test_the_name_asked_for_wins(save: Save) -> None:
    plain, packed = save("1", "a.csv"), save("2", "a.csv.gz", gz=True)
    assert find_file(plain.parent, "a.csv") == plain
    assert find_file(plain.parent, "a.csv.gz") == packed


def test_a_missing_file_is_named_with_what_is_there(save: Save) -> None:
    folder = save("x", "stem_reviews.json.gz").parent
    with pytest.raises(DataError) as error:
        find_file(folder, "steam_reviews.json.gz")
    message = str(error.value)
    assert str(folder / "steam_reviews.json.gz") in message
    assert "Is it 'stem_reviews.json.gz'" in message
    with pytest.raises(DataError, match="no such folder"):
        find_file(folder, "interactions/log.csv")


# JSON lines.


def test_json_lines_skip_what_is_no_object(save: Save) -> None:
    log = ReadLog()
    good = "".join(f'{{"id": {n}}}\n' for n in range(10))
    path = save(good + '\n[1]\n"text"\n{"id": \n{"id": 1}')
    rows = list(read_json_lines(path, log))
    assert len(rows) == 11
    assert rows[-1] == (15, {"id": 1})
    (repair,) = log.repairs
    assert repair.count == 3
    assert repair.examples[0] == "raw.txt:12 [1]"


def test_only_the_lines_asked_for_are_parsed(save: Save) -> None:
    path = save('{"n": 1}\nbroken\n{"n": 3}\n')
    assert list(read_json_lines(path, ReadLog("raise"), lines={3})) == [(3, {"n": 3})]


HOSTILE = [
    "[" * 200_000,
    "{1:" * 100_000,
    "-" * 300_000 + "1",
    "1+" * 200_000 + "1",
    "(" * 90 + ")" * 90,
    "9" * 100_000,
    "{[]: 1}",
    "__import__('os').system('true')",
    "{'a': open('x')}",
    "{u'id': ",
    "'\\ud800",
]


@pytest.mark.parametrize("literal", [False, True])
def test_hostile_lines_are_counted_never_a_crash(save: Save, literal: bool) -> None:
    log = ReadLog()
    path = save("{}\n" + "\n".join(HOSTILE) + '\n{"z": 1}\n')
    assert [row for _, row in read_json_lines(path, log, literal=literal)] == [{}, {"z": 1}]
    assert sum(kinds(log).values()) == len(HOSTILE)


def test_python_dicts_are_read_beside_json(save: Save) -> None:
    path = save("{u'id': u'\\u00e9', 'n': 1.5, 'x': None, 'l': [u'a']}\n{\"id\": \"é\"}\n")
    rows = [row for _, row in read_json_lines(path, ReadLog("raise"), literal=True)]
    assert rows == [{"id": "é", "n": 1.5, "x": None, "l": ["a"]}, {"id": "é"}]


def test_odd_escapes_in_a_python_text_warn_nobody(
    save: Save, recwarn: pytest.WarningsRecorder
) -> None:
    path = save("{'text': 'C:\\games'}\n")
    assert list(read_json_lines(path, ReadLog("raise"), literal=True)) == [
        (1, {"text": "C:\\games"})
    ]
    assert not recwarn.list


@pytest.mark.parametrize("content", ["<!DOCTYPE html>\n<p>Not found</p>\n", "a,b\n1,2\n"])
def test_a_file_without_any_good_line_is_another_file(save: Save, content: str) -> None:
    with pytest.raises(DataError, match=r"raw\.txt: 2 of 2 rows are bad, the first in line 1"):
        list(read_json_lines(save(content), ReadLog()))


def test_a_file_with_too_many_bad_lines_is_another_file(save: Save) -> None:
    path = save('{"n": 1}\n' * 1000 + "bad\n" * 112)
    with pytest.raises(DataError, match="112 of 1112 rows are bad, the first in line 1001"):
        list(read_json_lines(path, ReadLog()))
    few = save('{"n": 1}\n' * 1000 + "bad\n" * 111)
    assert len(list(read_json_lines(few, ReadLog()))) == 1000


def test_a_wrong_file_is_not_read_to_its_end(save: Save) -> None:
    with pytest.raises(DataError, match="1000 of 1000 rows are bad"):
        list(read_json_lines(save("bad\n" * 100_000), ReadLog()))


# Delimited rows.


def test_rows_without_header(save: Save) -> None:
    log = ReadLog()
    rows = read_rows(
        save("1::a\n\n2::b::c\n3::\n"), log, sep="::", columns=["id", "x"], header=False
    )
    assert list(rows) == [(1, {"id": "1", "x": "a"}), (4, {"id": "3", "x": ""})]
    assert log.repairs[0].examples == ("raw.txt:3 2::b::c",)


def test_rows_with_header_give_the_columns_in_the_order_asked(save: Save) -> None:
    path = save('id\tname\turl\r\n7\t"x\tu\r\n')
    rows = read_rows(path, ReadLog("raise"), sep="\t", columns=["name", "id"], header=True)
    assert [(n, list(row.items())) for n, row in rows] == [(2, [("name", '"x'), ("id", "7")])]
    assert list(read_rows(path, ReadLog(), sep="\t", columns=None, header=True)) == [
        (2, {"id": "7", "name": '"x', "url": "u"})
    ]


def test_missing_columns_are_named_with_the_nearest(save: Save) -> None:
    path = save("userID,artist\n1,2\n", "log.csv")
    wanted = ["user_id", "artist"]
    message = r"log\.csv, line 1: missing column\(s\) \['user_id'\]\. Did you mean 'userID'\?"
    with pytest.raises(DataError, match=message):
        list(read_rows(path, ReadLog(), sep=",", columns=wanted, header=True))
    with pytest.raises(DataError, match=message):
        list(read_csv_rows(path, ReadLog(), columns=wanted))


# CSV.


def test_quoted_fields_may_hold_anything(save: Save) -> None:
    text = 'id,text,n\r\n1,"a, ""b""\r\nline two",3\r\n2,plain,4\r\n\r\n3,"",5'
    rows = list(read_csv_rows(save("\ufeff" + text), ReadLog("raise"), columns=["text", "id"]))
    assert rows == [
        (2, {"text": 'a, "b"\nline two', "id": "1"}),
        (4, {"text": "plain", "id": "2"}),
        (6, {"text": "", "id": "3"}),
    ]


def test_bad_csv_rows_are_counted_with_their_line(save: Save) -> None:
    good = "".join(f"{n},x\n" for n in range(20))
    log = ReadLog()
    path = save("id,text\n" + good + "1,2,3\n" + "a\0b,c\n" + "9,end\n")
    rows = list(read_csv_rows(path, log, columns=["id"]))
    assert len(rows) == 21
    assert rows[-1] == (24, {"id": "9"})
    assert [r.examples[0].split(" ")[0] for r in log.repairs] == ["raw.txt:22", "raw.txt:23"]


def test_a_quote_that_is_never_closed_costs_a_bounded_part_of_the_file(save: Save) -> None:
    rows = "".join(f"{n},{'x' * 90}\n" for n in range(30_000))
    log = ReadLog()
    path = save('id,text\n1,"open\n' + rows)
    read = list(read_csv_rows(path, log, columns=["id"]))
    assert len(read) > 28_000
    assert read[-1][1] == {"id": "29999"}
    assert log.repairs[0].examples[0].startswith("raw.txt:2 ")


def test_only_the_csv_rows_asked_for_are_given(save: Save) -> None:
    path = save("id\n1\n2\n3\n")
    assert list(read_csv_rows(path, ReadLog(), columns=["id"], lines={3})) == [(3, {"id": "2"})]
