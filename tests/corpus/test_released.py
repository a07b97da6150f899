"""The released sets of UserMirrorer: invented rows of their schema, and rows that break it."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from usermirror_gym.corpus.released.read import PromptFrame, read_released
from usermirror_gym.engines.choosing import load_engine
from usermirror_gym.errors import DataError, UnknownNameError
from usermirror_gym.types import Message

SYSTEM = "Act as the reader. Name one line."
Row = dict[str, Any]


def user_message(profile: str, history: str, options: list[str]) -> str:
    listing = "\n".join(f"[{'ABCDEFGH'[i]}] {text}" for i, text in enumerate(options))
    return f"# Reader\n{profile}\n\n## Shelf\n{history}\n\n# On offer\n{listing}\n"


OPTIONS = ["The Salt Map\n", "Low Tide\n", "# Nine Herons\n"]
HISTORY = "A book seen today\nTitle: Gull\n"


def train_row(target: int = 1, other: int = 0, **changed: Any) -> Row:
    prompt = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": user_message("", HISTORY, OPTIONS)},
    ]

    def say(option: int) -> list[dict]:
        text = f"Thought: tides again.\nBehavior: [{'ABC'[option]}]"
        return [*copy.deepcopy(prompt), {"role": "assistant", "content": text}]

    return {
        "dataset": "goodreads", "user_id": "u1", "item_id": f"i{target}", "timestamp": 1_300_000,
        "messages_chosen": say(target), "messages_rejected": say(other),
        "impression_list": ["i0", "i1", "i2"], "item_pos": target, **changed,
    }  # fmt: skip


def eval_row(target: int = 2, **changed: Any) -> Row:
    text = {"profile": "", "history": HISTORY, "action_list": list(OPTIONS)}
    return {
        "text": text, "user_id": "u2", "item_id": f"i{target}", "timestamp": 1_300_000_500,
        "item_pos": target, "choice_cnt": 3, "dataset": "goodreads",
        "impression_list": ["i0", "i1", "i2"], **changed,
    }  # fmt: skip


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(*rows: Any, name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(list(rows)), path)
            return path
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
        return path

    return _write


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.parquet"])
def test_train_rows_are_preference_pairs_for_trl(name: str, write: Write) -> None:
    train = read_released(write(train_row(), train_row(0, 2), name=name), "train")
    first, second = train.preferences()
    assert [m["role"] for m in first["prompt"]] == ["system", "user"]
    assert first["prompt"][1]["content"] == user_message("", HISTORY, OPTIONS)
    assert first["chosen"] == [
        {"role": "assistant", "content": "Thought: tides again.\nBehavior: [B]"}
    ]
    assert first["rejected"][0]["content"].endswith("[A]")
    assert second["dataset"] == "goodreads"
    assert [(pair.target, pair.other) for pair in train.pairs] == [(1, 0), (0, 2)]


@pytest.mark.slow
def test_trl_takes_the_pairs(write: Write) -> None:
    datasets = pytest.importorskip("datasets")
    trl = pytest.importorskip("trl")
    rows = read_released(write(train_row()), "train").preferences()
    assert trl.data_utils.is_conversational(datasets.Dataset.from_list(rows)[0])


def test_files_with_fewer_columns_are_enough(write: Write) -> None:
    """The authors' completed train file has three columns, their eval file no impression_list."""
    row = train_row()
    for column in ("user_id", "item_id", "timestamp", "impression_list", "item_pos"):
        del row[column]
    assert len(read_released(write(row), "train").pairs) == 1
    row = eval_row(more="than published")
    del row["impression_list"]
    assert read_released(write(row), "eval").targets.tolist() == [2]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_eval_rows_are_prompts_laid_out_as_in_the_train_set(name: str, write: Write) -> None:
    frame = read_released(write(train_row(), name="t.jsonl"), "train").frame()
    test = read_released(write(eval_row(2), eval_row(0), name=name), "eval")
    prompts = test.prompts(frame)
    system, user = prompts[0].messages
    assert system == Message("system", SYSTEM)
    assert user == Message("user", user_message("", HISTORY, OPTIONS))
    assert prompts[0].answer_prefix == "Behavior: ["
    assert prompts[0].options == ("A", "B", "C")
    assert prompts[0].name.endswith(("line 1", "row 1"))
    np.testing.assert_array_equal(test.targets, [2, 0])


@pytest.mark.slow
def test_a_real_engine_answers_the_prompts(write: Write) -> None:
    frame = read_released(write(train_row(), name="t.jsonl"), "train").frame()
    test = read_released(write(eval_row(0), eval_row(2)), "eval")
    scores = load_engine().choice_logprobs(test.prompts(frame))
    for score in scores:
        np.testing.assert_allclose(np.exp(score.logprobs).sum(), 1, atol=1e-6)
        assert score.n_tokens.tolist() == [1, 1, 1]


@pytest.mark.parametrize("profile", ["", "Lives by the sea.", "Lives by the sea.\n"])
@pytest.mark.parametrize("history", [HISTORY, HISTORY.strip(), ""])
def test_line_breaks_are_those_of_the_train_prompts(
    profile: str, history: str, write: Write
) -> None:
    """Whether the texts end in line breaks, or the layout adds them, cannot be told apart."""
    content = user_message(profile, history, OPTIONS)
    row = train_row()
    for side in ("messages_chosen", "messages_rejected"):
        row[side] = copy.deepcopy(row[side])
        row[side][1]["content"] = content
    frame = read_released(write(row), "train").frame()
    assert frame.user_message(profile, history, OPTIONS, "goodreads") == content
    assert frame.user_message(profile, history, OPTIONS, "steam") == content


def test_another_system_text_may_be_asked_with(write: Write) -> None:
    frame = read_released(write(train_row()), "train").frame()
    other = replace(frame, system="Answer at once.")
    (prompt,) = read_released(write(eval_row()), "eval").prompts(other)
    assert prompt.messages[0].content == "Answer at once."


def test_rows_without_their_text_are_counted(write: Write) -> None:
    """MIND and MovieLens-1M are released without texts."""
    bare = train_row(dataset="ml-1m")
    for side in ("messages_chosen", "messages_rejected"):
        bare[side] = bare[side][-1:]
    hollow = train_row(dataset="MIND")
    for side in ("messages_chosen", "messages_rejected"):
        hollow[side] = copy.deepcopy(hollow[side])
        hollow[side][1]["content"] = None
    train = read_released(write(train_row(), bare, hollow, bare), "train")
    assert len(train.pairs) == len(train.preferences()) == 1
    assert train.withheld == {"ml-1m": 2, "MIND": 1}
    empty = {"profile": "", "history": None, "action_list": []}
    blank = {"profile": "", "history": "", "action_list": ["", "", ""]}
    test = read_released(
        write(eval_row(), *(eval_row(dataset="MIND", text=t) for t in (None, empty, blank))), "eval"
    )
    assert len(test.scenes) == 1
    assert test.withheld == {"MIND": 3}


def drop(row: Row, column: str) -> Row:
    return {name: value for name, value in row.items() if name != column}


def message(row: Row, side: str, number: int, **changed: Any) -> Row:
    row = copy.deepcopy(row)
    row[f"messages_{side}"][number] |= changed
    return row


BROKEN_TRAIN = [
    (drop(train_row(), "messages_rejected"), "'messages_rejected': Field required; the row has"),
    (drop(train_row(), "dataset"), "'dataset': Field required"),
    (train_row(messages_chosen="text"), "'messages_chosen': .*list.*got 'text'"),
    (train_row(messages_chosen=[]), "'messages_chosen': .*at least 1"),
    (message(train_row(), "chosen", 0, role="System"), r"'messages_chosen.0.role': .*'System'"),
    (message(train_row(), "chosen", 2, role="user"), "last message must be the assistant's"),
    (message(train_row(), "chosen", 2, content=""), "last message must be the assistant's"),
    (message(train_row(), "chosen", 2, content=7), r"'messages_chosen.2.content': .*got '7'"),
    (
        message(train_row(), "rejected", 2, content="I take B"),
        r"'messages_rejected': its last message has no Behavior: \[letter\], but ends 'I take B'",
    ),
    (message(train_row(), "rejected", 1, content="else"), "its prompt is not that of"),
    (message(train_row(), "rejected", 2, content="Behavior: [B]"), r"it chooses \[B\] as well"),
    (train_row(item_pos=2), r"'item_pos': 2, but messages_chosen chooses \[B\]"),
    (train_row(item_pos="C"), r"'item_pos': 'C', but messages_chosen chooses \[B\]"),
    (train_row(item_pos=-1), "'item_pos': -1 is negative"),
    (train_row(item_pos=1.5), "'item_pos.int': .*got '1.5'"),
    (train_row(item_pos=True), "'item_pos.int': .*got 'True'"),
    (train_row(item_pos="first"), "'first' is neither a number nor a letter"),
    (train_row(impression_list=["i0"]), "'impression_list': 1 options"),
    (train_row(2, 0, impression_list=["i0", "i1"]), "position 2 in a list of 2"),
    (train_row(1, 2, impression_list=["i0", "i1"]), "'messages_rejected': position 2 in a list"),
    (train_row(impression_list=["i0", "i7", "i2"]), "'i7' at position 1, but item_id is 'i1'"),
    (train_row(choice_cnt=4), "lengths of the list disagree: choice_cnt 4, impression_list 3"),
    (
        message(message(train_row(), "chosen", 1, content="# x"), "rejected", 1, content="# x"),
        r"\[B\] is chosen, but no line of the user's message opens with it",
    ),
]


@pytest.mark.parametrize(("row", "wrong"), BROKEN_TRAIN, ids=[w[:40] for _, w in BROKEN_TRAIN])
def test_a_broken_train_row_is_named(row: Row, wrong: str, write: Write) -> None:
    path = write(train_row(), train_row(), row)
    with pytest.raises(DataError, match=f"rows.jsonl, line 3, column .*{wrong}"):
        read_released(path, "train")


def with_text(**changed: Any) -> Row:
    row = eval_row()
    return {**row, "text": {**row["text"], **changed}}


BROKEN_EVAL = [
    (drop(eval_row(), "text"), "'text': Field required"),
    (drop(eval_row(), "item_pos"), "'item_pos': Field required"),
    (eval_row(text="all of it"), "'text': .*got 'all of it'"),
    (with_text(history=5), "'text.history': .*got '5'"),
    (with_text(action_list="ABC"), "'text.action_list': .*got 'ABC'"),
    (with_text(action_list=["a", "", "c"]), "'text.action_list': option 1 has no text"),
    (with_text(action_list=["a", "b"]), "disagree: text.action_list 2, choice_cnt 3"),
    (eval_row(choice_cnt=5), "lengths of the list disagree"),
    (eval_row(impression_list=["i0"]), "lengths of the list disagree"),
    (eval_row(item_pos=3), "'item_pos': position 3 in a list of 3"),
    (eval_row(item_pos=-1), "'item_pos': -1 is negative"),
    (eval_row(item_pos=None), "'item_pos"),
    (eval_row(item_pos=0), "'i0' at position 0, but item_id is 'i2'"),
    (
        {**with_text(action_list=["x"] * 27), "choice_cnt": 27, "impression_list": None},
        "27 options; lists have 2 to 26",
    ),
]


@pytest.mark.parametrize(("row", "wrong"), BROKEN_EVAL, ids=[w[:40] for _, w in BROKEN_EVAL])
def test_a_broken_eval_row_is_named(row: Row, wrong: str, write: Write) -> None:
    with pytest.raises(DataError, match=f"rows.jsonl, line 2, column .*{wrong}"):
        read_released(write(eval_row(), row), "eval")


def test_a_position_may_be_a_letter(write: Write) -> None:
    assert read_released(write(eval_row(item_pos="C")), "eval").targets.tolist() == [2]


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b'{"text": \n', r"line 1: .*one JSON object a line"),
        (b"[1, 2]\n", "line 1: a list, not an object"),
        (b'{"dataset": "\xff"}\n', "line 1: .*decode"),
        (b"", "holds no rows"),
        (b"[" * 100_000, "line 1: "),
    ],
)
def test_a_damaged_file_is_named(content: bytes, wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=wrong):
        read_released(path, "eval")


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet"])
def test_a_cut_file_is_an_error(name: str, write: Write) -> None:
    path = write(*(eval_row() for _ in range(500)), name=name)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=name):
        read_released(path, "eval")


def test_a_folder_may_hold_both_sets(write: Write) -> None:
    write(train_row(), name="set/UserMirrorer-Full.jsonl.gz")
    folder = write(eval_row(), name="set/UserMirrorer-eval-Full.jsonl.gz").parent
    (folder / "notes.json").write_text("[]")
    assert len(read_released(folder, "train").pairs) == 1
    assert len(read_released(folder, "eval").scenes) == 1


def test_shards_are_one_set_and_two_copies_are_not(write: Write) -> None:
    write(eval_row(), name="set/data/test-00000-of-00002.parquet")
    path = write(eval_row(0), name="set/data/test-00001-of-00002.parquet")
    folder = path.parents[1]
    assert read_released(folder, "eval").targets.tolist() == [2, 0]
    write(eval_row(), name="set/full.jsonl")
    with pytest.raises(DataError, match=r"several files .* 'text': .*full.jsonl.* is meant"):
        read_released(folder, "eval")


def test_a_folder_without_the_set(write: Write, tmp_path: Path) -> None:
    write(train_row(), name="set/train.jsonl")
    with pytest.raises(
        DataError, match=r"no file in .* has the column 'text' \(files: train.jsonl"
    ):
        read_released(tmp_path / "set", "eval")


def test_hub_names_are_downloaded(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(train_row(), name="hub/data/train-00000-of-00001.parquet").parents[1]
    asked: list[tuple[str, str]] = []

    def snapshot_download(name: str, *, repo_type: str, allow_patterns: list[str]) -> str:
        asked.append((name, repo_type))
        assert "*.parquet" in allow_patterns
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert len(read_released("Joinn/UserMirrorer", "train").pairs) == 1
    assert asked == [("Joinn/UserMirrorer", "dataset")]


def test_a_download_that_fails_suggests_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(name: str, **_: Any) -> str:
        raise OSError("404")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(DataError, match=r"Joinn/UserMirorer from the hub: 404. Did you mean"):
        read_released("Joinn/UserMirorer", "train")


@pytest.mark.parametrize("name", ["UserMirrorer", "./absent/rows.jsonl", "a/b/c"])
def test_a_name_that_is_nothing(name: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown released data set"):
        read_released(name, "train")


def test_an_unknown_split(write: Write) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown split 'evall'. Did you mean 'eval'\?"):
        read_released(write(eval_row()), "evall")  # type: ignore[call-overload]


def test_a_train_set_without_a_layout(write: Write) -> None:
    other = copy.deepcopy(train_row())
    for side in ("messages_chosen", "messages_rejected"):
        other[side][0]["content"] = "Another system text."
    with pytest.raises(DataError, match="2 different system texts"):
        read_released(write(train_row(), other), "train").frame()
    with pytest.raises(DataError, match=r"share the headings \['# Reader'\]; three are needed"):
        PromptFrame.of([("x", SYSTEM, "# Reader\nnobody\n[A] a\n")])
    with pytest.raises(DataError, match="0 different system texts"):
        PromptFrame.of([])
